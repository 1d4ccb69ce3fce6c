"""Keeps faults of the recorder out of the training: a part that fails ends, and says so."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable
from time import perf_counter
from typing import Any

import torch

from thalweg.recorder.budget import Budget
from thalweg.recorder.plan import Plan
from thalweg.recorder.store import Store

__all__ = ["Guard"]


class Guard:
    """Runs the recorder's units of work.

    With ``THALWEG_DEBUG`` set in the environment a fault is raised where it happens.

    Args:
        store: takes events and the rows that say why a series ends.
        budget: pays.
        plan: knows the instruments of a unit.

    Attributes:
        broken: units that have ended.
    """

    def __init__(self, store: Store, budget: Budget, plan: Plan) -> None:
        self.broken: set[str] = set()
        self._store, self._budget, self._plan = store, budget, plan

    def run(self, unit: str, work: Callable[..., Any], *args: Any) -> Any:
        """Runs our work; a fault of ours ends that part of the recording, never the training."""
        if unit in self.broken:
            return None
        try:
            return work(*args)
        except Exception as error:
            if os.environ.get("THALWEG_DEBUG"):
                raise
            memory = isinstance(error, torch.OutOfMemoryError | MemoryError)
            status = "skipped:memory" if memory else f"unsupported:{error!r}"
            self.end(unit, status)
            step = self._store.step
            message = f"recording of {unit} stops at step {step}: {error!r}"
            trace = traceback.format_exc(limit=-4)
            self._store.event("recorder error", step, message=message, traceback=trace)
            self._store.warn(message)
            return None

    def timed(self, unit: str, work: Callable[..., Any], *args: Any) -> None:
        """Runs a unit and charges it with the seconds that it took."""
        start = perf_counter()
        self.run(unit, work, *args)
        self._budget.charge(unit, perf_counter() - start)

    def end(self, unit: str, status: str) -> None:
        """Ends a unit of work; its series say why."""
        self.broken.add(unit)
        self._budget.remove(unit)
        for name in self._plan.instruments_of(unit):
            code = self._store.series(name, "")
            self._store.rows(self._store.step, [code], [float("nan")], None, None, [status])
