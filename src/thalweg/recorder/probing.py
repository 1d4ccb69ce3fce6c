"""Decides when costly instruments run in a recording, and on which loss."""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import Tensor

from thalweg.instruments import Reading
from thalweg.recorder.budget import Budget
from thalweg.recorder.captures import Captures
from thalweg.recorder.guard import Guard
from thalweg.recorder.plan import Plan
from thalweg.recorder.probes import Probes
from thalweg.recorder.store import Store
from thalweg.recorder.trained import Trained

__all__ = ["Probing"]


class Probing:
    """Runs the probes that the budget allows between two steps.

    Args:
        store: takes the readings.
        plan: which instruments.
        budget: pays.
        guard: runs.
        trained: what they measure.
        captures: give them the loss of a step.
        fixed_loss: what they evaluate instead, if given.

    Attributes:
        due: probes that run when the step under way has ended.
        running: whether one is running: losses computed now are ours.
    """

    def __init__(
        self,
        store: Store,
        plan: Plan,
        budget: Budget,
        guard: Guard,
        trained: Trained,
        captures: Captures,
        *,
        fixed_loss: Callable[[], Tensor] | None = None,
    ) -> None:
        self.due: list[str] = []
        self.running = False
        self._store, self._names = store, list(plan.probes)
        self._budget, self._guard = budget, guard
        self._trained, self._captures = trained, captures
        self._fixed_loss = fixed_loss
        self._probes = Probes(plan.probes)

    def run_due(self, at: float) -> None:
        """Runs those that waited for the step that has just ended, ``at`` so many seconds."""
        for name in self.due:
            self._guard.timed(name, self._run, name, at)
        self.due = []

    def plan_next(self, at: float) -> bool:
        """Runs the probes of the weights alone; has the next loss captured for the others.

        Returns:
            Whether a probe needs the update of the next step.
        """
        broken = self._guard.broken
        due = [n for n in self._names if self._budget.affords(n) and n not in broken]
        for name in due:
            if not self._probes.wants_loss(name):
                self._guard.timed(name, self._run, name, at)
        due = [n for n in due if self._probes.wants_loss(n)]
        if not due or self._captures.taping:
            return False
        if self._fixed_loss is None:
            if len(self._trained.optimizers) > 1:
                self.give_up("several optimizers: no one loss belongs to all weights")
                return False
            why = self._captures.start_tape()
            if why is not None:
                self.give_up(why)
            if not self._captures.taping:
                return False
        self.due = due
        if any(self._probes.wants_update(n) for n in due):
            next(iter(self._trained.optimizers.values())).keep_update = True
            return True
        return False

    def give_up(self, why: str) -> None:
        """No loss can be captured: the instruments that need one say so, unless one was given."""
        if self._fixed_loss is not None and not self._trained.sharded:
            return  # with sharded weights every rank would have to evaluate it at the same time
        for name in self._names:
            if self._probes.wants_loss(name) and name not in self._guard.broken:
                self._guard.end(name, f"unsupported:{why}")

    def _run(self, name: str, at: float) -> None:
        closure = self._fixed_loss or self._captures.closure
        if self._probes.wants_loss(name) and closure is None:
            self._guard.end(name, "unsupported:the loss of a step could not be captured")
            return
        self.running = True
        try:
            for tracked in self._trained.optimizers.values():
                for instrument, part, r in self._probes.run(name, closure, tracked):
                    code = self._store.series(instrument, part)
                    row = [r.value], at, [r.uncertainty], [_status(r)]
                    self._store.rows(self._store.step, [code], *row)
        finally:
            self.running = False


def _status(reading: Reading) -> str:
    bad = reading.status == "ok" and not math.isfinite(reading.value)
    return "nonfinite" if bad else reading.status
