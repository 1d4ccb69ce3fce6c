"""Decides when a recording keeps the weights themselves: snapshots and sketches."""

from __future__ import annotations

from thalweg.recorder.budget import Budget
from thalweg.recorder.guard import Guard
from thalweg.recorder.snapshots import SketchWriter, SnapshotSchedule, SnapshotWriter
from thalweg.recorder.store import Store
from thalweg.recorder.tracked import Tracked
from thalweg.recorder.trained import Trained

__all__ = ["KeptWeights"]


class KeptWeights:
    """Writes snapshots and sketches when they are due and the budget allows.

    Args:
        store: whose run they belong to; hears of a disk that refuses.
        trained: whose weights.
        budget: pays.
        guard: runs.
        cap_bytes: on the snapshots of this segment.
    """

    def __init__(
        self, store: Store, trained: Trained, budget: Budget, guard: Guard, *, cap_bytes: int
    ) -> None:
        self._store, self._trained = store, trained
        self._budget, self._guard = budget, guard
        self._schedule = SnapshotSchedule(store.step)
        where = {"rank": store.rank, "segment": store.segment}
        self._snapshots = SnapshotWriter(store.path, **where, cap_bytes=cap_bytes)
        self._sketches = SketchWriter(store.path, **where)

    def start(self, tracked: Tracked) -> None:
        """Takes θ₀ of an optimizer's param groups."""
        for part, group in tracked.groups():
            self._sketches.start(part, group)

    def write_due(self, at: float) -> None:
        """Writes what is due after the step that has just ended, ``at`` so many seconds."""
        step = self._store.step
        if self._schedule.next <= step and self._budget.affords("snapshots"):
            self._guard.timed("snapshots", self.write_snapshot)
        if self._sketches.next <= step and self._budget.affords("sketches"):
            self._guard.timed("sketches", self._write_sketches, at)

    def write_snapshot(self) -> None:
        """Writes a snapshot now."""
        self._schedule.passed(self._store.step)
        try:
            self._snapshots.write(self._store.step, self._trained.tensors(), self._schedule)
        except OSError as error:
            self._store.fail(error)

    def close(self) -> None:
        """Writes the last snapshot, ends the sketches."""
        if self._trained.optimizers and self._snapshots.latest != self._store.step:
            self._guard.run("snapshots", self.write_snapshot)
        self._guard.run("sketches", self._sketches.close)

    def _write_sketches(self, at: float) -> None:
        groups = {part: g for t in self._trained.optimizers.values() for part, g in t.groups()}
        try:
            self._sketches.write(self._store.step, at, groups)
        except OSError as error:
            self._store.fail(error)
            self._budget.remove("sketches")
