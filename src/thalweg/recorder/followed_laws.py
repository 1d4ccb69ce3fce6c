"""Conservation laws in a recording: found once, followed at every step, written with the budget.

The laws come from the architecture (``known_laws``). Their drift is predicted from the optimizer's
own state, which takes hearing of every step; where that costs more than the budget can bear, the
prediction ends with ``skipped:budget`` and the drift alone goes on.
"""

from __future__ import annotations

from collections.abc import Sequence
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np
from torch import nn

from thalweg.numerics import untouched
from thalweg.recorder.budget import Budget
from thalweg.recorder.discovery import labels
from thalweg.recorder.plan import Plan
from thalweg.recorder.store import Store
from thalweg.recorder.tracked import Tracked
from thalweg.recorder.trained import Trained

if TYPE_CHECKING:
    from thalweg.laws import LawMonitor, LawReading

__all__ = ["FollowedLaws"]

# Finding the laws runs float64 copies of the model; beyond this they would not fit beside it.
MOST_BYTES = 1 << 30
# Share of the budget that hearing of every step may take; looked at after so many steps, and
# whenever their number has doubled: where others use the machine, one look may see too little.
SHARE, LOOK_AFTER = 0.5, 16
NAN = float("nan")


class FollowedLaws:
    """Follows the laws of the models under observation.

    Args:
        store: takes rows and the description of the laws.
        plan: whether laws were asked for.
        budget: says what a step may cost.
        trained: models and optimizers.
    """

    def __init__(self, store: Store, plan: Plan, budget: Budget, trained: Trained) -> None:
        self.wanted = plan.wants("law_drift") or plan.wants("law_residual")
        self._store, self._plan = store, plan
        self._budget, self._trained = budget, trained
        self._monitors: dict[int, list[tuple[str, LawMonitor]]] = {}
        self._spent, self._steps, self._predicting = 0.0, 0, True
        self._look = LOOK_AFTER

    def start(self) -> None:
        """Finds the laws of every model; nothing of the training is touched."""
        from thalweg.laws import LawMonitor, frozen_laws, known_laws

        models, described = self._trained.models, []
        for model, label in zip(models, labels(models), strict=True):
            size = sum(p.numel() * p.element_size() for p in model.parameters())
            if size > MOST_BYTES:
                self._refuse(f"skipped:memory: {label or 'the model'} has {size >> 20} MB")
                continue
            with untouched(list(model.parameters())):
                found = known_laws(model)
            laws = [*found, *frozen_laws(model)]
            prefix = f"{label}." if label and len(models) > 1 else ""
            described += [
                {"name": prefix + law.name, "formula": law.formula, "note": law.note}
                for law in laws
            ]
            missing = [{"module": m.module, "reason": m.reason} for m in found.not_covered]
            self._store.describe(laws=described, laws_not_covered=missing)
            for tracked in self._trained.optimizers.values():
                mine = _of(laws, model, tracked)
                if mine:
                    monitor = LawMonitor(model, mine, tracked.optimizer, hooks=False)
                    self._monitors.setdefault(id(tracked), []).append((prefix, monitor))
        if models and not self._monitors:
            self._refuse("unsupported:no law is known for this architecture")

    def stepped(self, tracked: Tracked) -> None:
        """Hears of a step; stops predicting where that costs too much."""
        if not self._predicting or id(tracked) not in self._monitors:
            return
        start = perf_counter()
        for _, monitor in self._monitors[id(tracked)]:
            monitor.step()
        took = perf_counter() - start
        self._budget.common_s += took
        self._spent, self._steps = self._spent + took, self._steps + 1
        if self._steps < self._look or not self._budget.steps:
            return
        self._look *= 2
        each, bare = self._spent / self._steps, self._budget.step_s
        if each > SHARE * self._budget.fraction * bare:
            self._predicting = False
            self.missed("budget")
            self._store.event(
                "skipped",
                self._store.step,
                message=f"predicting the laws takes {1e3 * each:.2g} ms of a step of "
                f"{1e3 * bare:.2g} ms, more than the budget bears: their drift is recorded and "
                "nothing is predicted. Raise --overhead to follow them",
            )

    def missed(self, why: str) -> None:
        """Steps were not seen: nothing is predicted from here on."""
        for monitors in self._monitors.values():
            for _, monitor in monitors:
                monitor.missed(why)

    def write(self, at: float) -> None:
        """Writes where every law stands."""
        for monitors in self._monitors.values():
            for prefix, monitor in monitors:
                for reading in monitor.readings():
                    self._write(prefix + reading.law.name, reading, at)

    def _write(self, part: str, reading: LawReading, at: float) -> None:
        scale = np.maximum(reading.scale, np.finfo(float).tiny)
        drift = np.abs(reading.drift) / scale
        if self._plan.wants("law_drift"):
            self._row("law_drift", part, float(drift.max()), NAN, "ok", at)
        if self._plan.wants("law_residual"):
            if reading.status != "ok":
                self._row("law_residual", part, NAN, NAN, reading.status, at)
                return
            residual = np.abs(reading.residual) / scale
            worst = int(residual.argmax()) if np.isfinite(residual).all() else 0
            rounding = float(reading.roundoff[worst] / scale[worst])
            value = float(residual[worst])
            status = "ok" if np.isfinite(value) else "nonfinite"
            self._row("law_residual", part, value, rounding, status, at)

    def _row(
        self, name: str, part: str, value: float, uncertainty: float, status: str, at: float
    ) -> None:
        code = self._store.series(name, part)
        self._store.rows(self._store.step, [code], [value], at, [uncertainty], [status])

    def _refuse(self, status: str) -> None:
        for name in ("law_drift", "law_residual"):
            if self._plan.wants(name):
                self._row(name, "", NAN, NAN, status, 0.0)


def _of(laws: Sequence, model: nn.Module, tracked: Tracked) -> list:
    """The laws that speak of a parameter which this optimizer holds, and those of frozen ones."""
    held = {id(p) for g in tracked.optimizer.param_groups for p in g["params"]}
    params = dict(model.named_parameters())
    return [
        law
        for law in laws
        if any(id(params[n]) in held or not params[n].requires_grad for n in law.parameters)
    ]
