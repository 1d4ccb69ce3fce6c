"""A time budget instead of an interval: which measurements the next step can afford.

The clock of the training is split in two: *bare* seconds, in which the script worked, and *spent*
seconds, in which the recorder did. Recording may spend ``fraction`` of the bare time. What every
step costs (hooks, writing) comes off the top; the rest is shared among the units of work, each
priced by its own last runs, and a unit runs when its share covers its price.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

__all__ = ["Budget"]

# Recording also costs what no clock inside it sees: the way into each hook, colder caches, a heap
# that the training finds in another state, a share of the garbage collection. The first is booked
# per step (seen by switching the hooks on and off in one process, 2 GHz core); the rest is what
# headroom is left for: on short steps it comes to nearly as much again as what is seen.
UNSEEN_S = 12e-6
HEADROOM = 0.5
WARM_UP = 4  # runs of a unit


@dataclass
class _Unit:
    weight: float
    cost: float  # in steps; the prior for the first price
    price: float | None = None  # seconds, once it has run
    last: deque[float] = field(default_factory=lambda: deque(maxlen=3))
    spent: float = 0.0
    runs: int = 0


@dataclass
class Budget:
    """Account of one recording.

    Attributes:
        fraction: share of the bare time that recording may take, > 0.
        bare_s: seconds in which the script worked, so far.
        common_s: seconds spent that belong to no unit.
        setup_s: seconds spent once: meeting the optimizers, first runs. They count as spent, but
            nothing has to wait until they are earned.
        steps: steps of the training, so far.

    Example:
        >>> budget = Budget(fraction=0.05)
        >>> budget.add("norms")
        >>> budget.affords("norms")  # the first run prices it
        True
        >>> budget.charge("norms", 0.010)
        >>> budget.pass_steps(0.1)
        >>> budget.affords("norms")
        False
    """

    fraction: float
    bare_s: float = 0.0
    common_s: float = 0.0
    setup_s: float = 0.0
    steps: int = 0
    _units: dict[str, _Unit] = field(default_factory=dict)
    _units_s: float = 0.0
    # What was booked first: imports, reading of data and one step.
    _first: tuple[float, int] = (0.0, 0)
    # Per priced unit: what the purse must hold before it may run again.
    _needs: dict[str, float] = field(default_factory=dict)
    _weights: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.fraction < float("inf"):
            raise ValueError(
                f"overhead must be a positive fraction of step time, such as 0.05; "
                f"got {self.fraction}"
            )

    def add(self, unit: str, *, weight: float = 1.0, cost: float = 0.0) -> None:
        """Adds a unit of work.

        Args:
            unit: its name.
            weight: its share of the budget relative to the other units.
            cost: what its first run is likely to cost, in training steps; 0: try it and see.
        """
        self._units[unit] = _Unit(weight, cost)
        self._weigh()

    def remove(self, unit: str) -> None:
        """Drops a unit that cannot run here; its share goes to the others."""
        dropped = self._units.pop(unit, None)
        if dropped is not None:
            self._units_s -= dropped.spent
            self.common_s += dropped.spent
        self._weigh()

    def pass_steps(self, bare_s: float, steps: int = 1) -> None:
        """Books steps of the training, and the bare seconds that they took together."""
        unseen = UNSEEN_S * steps
        if self.steps == 0:
            self._first = bare_s, steps
        if bare_s > unseen:
            self.bare_s += bare_s - unseen
            self.common_s += unseen
        self.steps += steps

    @property
    def step_s(self) -> float:
        """Bare seconds of a step, without what came before the first; nan before that."""
        before_s, first = self._first
        if self.steps > first:
            return max(0.0, self.bare_s - before_s) / (self.steps - first)
        return self.bare_s / self.steps if self.steps else float("nan")

    def charge(self, unit: str, seconds: float) -> None:
        """Books one run of a unit. Its price is the cheapest of its last three runs.

        The first runs pay for warming up (allocations, kernels used for the first time): done once,
        however long the training, they are no part of what the unit may spend.
        """
        u = self._units.get(unit)
        if u is None:  # removed, or the work of every step
            self.common_s += seconds
            return
        if u.runs < WARM_UP:
            self.setup_s += seconds
        else:
            self._units_s += seconds
            u.spent += seconds
        u.runs += 1
        # A run held up by something else must not price the unit out; what it took is booked.
        u.last.append(seconds)
        u.price = min(u.last)
        self._needs[unit] = (u.spent + u.price) * self._weights / u.weight

    def affords(self, unit: str) -> bool:
        """Whether the unit's share of the budget covers one more run."""
        needs = self._needs.get(unit)
        if needs is not None:
            return needs <= HEADROOM * self.fraction * self.bare_s - self.common_s
        u = self._units.get(unit)
        if u is None:
            return False
        if u.cost == 0:
            return True
        if self.steps == 0:
            return False
        return u.cost * self.step_s * self._weights / u.weight <= self._purse()

    def _purse(self) -> float:
        """Seconds that all units together may have spent by now."""
        return HEADROOM * self.fraction * self.bare_s - self.common_s

    def _weigh(self) -> None:
        self._weights = sum(u.weight for u in self._units.values())
        self._needs = {
            name: (u.spent + u.price) * self._weights / u.weight
            for name, u in self._units.items()
            if u.price is not None
        }

    def steps_until(self, unit: str) -> int:
        """About how many steps it takes until the unit's share covers one more run, ≥ 1."""
        u = self._units.get(unit)
        if u is None or u.price is None or not self.steps or not self.bare_s:
            return 1
        share = u.weight / self._weights
        missing = u.spent + u.price - share * self._purse()
        income = share * self._purse() / self.steps
        return max(1, min(100_000, round(missing / income))) if income > 0 else 100_000

    def never_ran(self) -> list[str]:
        """Units that were never affordable."""
        return [name for name, u in self._units.items() if not u.runs]

    @property
    def spent_s(self) -> float:
        """Seconds that recording took, in all."""
        return self.common_s + self._units_s + self.setup_s

    @property
    def achieved(self) -> float:
        """Spent over bare time; nan before the first step."""
        return self.spent_s / self.bare_s if self.bare_s > 0 else float("nan")

    def report(self) -> dict[str, object]:
        """The account, for the header: seconds in all and per unit."""
        units = {
            name: {"price_s": u.price, "runs": u.runs, "spent_s": u.spent}
            for name, u in self._units.items()
        }
        return {
            "budget": self.fraction,
            "achieved": self.achieved if self.bare_s > 0 else None,
            "bare_s": self.bare_s,
            "spent_s": self.spent_s,
            "setup_s": self.setup_s,
            "every_step_s": self.common_s / self.steps if self.steps else None,
            "units": units,
        }
