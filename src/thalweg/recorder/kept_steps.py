"""Decides when a recording holds steps in its black box, and when it writes a state to go with."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from thalweg.recorder.blackbox import DEFAULT_MB, BlackBox
from thalweg.recorder.budget import Budget
from thalweg.recorder.discovery import is_compiled
from thalweg.recorder.guard import Guard
from thalweg.recorder.store import Store
from thalweg.recorder.tracked import Tracked
from thalweg.recorder.trained import Trained

__all__ = ["KeptSteps"]

UNIT = "blackbox"


class KeptSteps:
    """The black box of a recording, under its budget.

    Args:
        store: whose run it belongs to.
        trained: whose steps.
        budget: pays.
        guard: runs.
        megabytes: what the box may hold; 0: no box; None: the default, unless holding batches
            costs more than a third of the time budget.
    """

    def __init__(
        self,
        store: Store,
        trained: Trained,
        budget: Budget,
        guard: Guard,
        *,
        megabytes: float | None,
    ) -> None:
        self._store, self._trained = store, trained
        self._budget, self._guard = budget, guard
        size = DEFAULT_MB if megabytes is None else megabytes
        self._box = BlackBox(store, size, budget.fraction if megabytes is None else None)
        self._indices: dict[int, int] = {}
        self._wanted = False
        if size == 0:
            self._box.why_not = "switched off"
        else:
            budget.add(UNIT)

    # -- what a step passes --------------------------------------------------------------------

    def backward(self, roots: Any) -> None:
        """Backward ran."""
        if self._box.on:
            root = roots[0] if type(roots) in (list, tuple) and len(roots) == 1 else roots
            single = isinstance(root, Tensor) and root.numel() == 1
            self._box.backward(root.detach() if single else None)

    def before_step(self) -> None:
        """An optimizer is about to step."""
        if self._box.on:
            self._box.before_step()

    def stepped(self, tracked: Tracked, *, stepped: bool) -> None:
        """An optimizer has stepped, or was kept from it by a gradient scaler."""
        if self._box.on:
            index = self._indices.get(id(tracked.optimizer))
            if index is None:
                self._stop("unsupported: an optimizer joined the training later")
                return
            self._run(self._box.stepped, index, self._store.step, not stepped)

    def heard(self, step: int, code: int, value: float, loss: bool) -> None:
        """A loss or gradient norm has reached the host."""
        if self._box.on:
            self._box.heard(step, code, value, loss=loss)

    def failed(self, error: BaseException) -> None:
        """The training ended by an exception."""
        if self._box.on:
            why = f"{type(error).__name__}: {error}"
            self._run(self._box.keep, self._store.step + 1, "exception", why)

    # -- between steps -------------------------------------------------------------------------

    def plan(self) -> None:
        """Books what holding cost; decides whether a state is to be written."""
        if not self._box.on:
            return
        budget = self._budget
        budget.common_s += self._box.upkeep(budget.bare_s, budget.steps)
        self._wanted = self._box.due(self._store.step) and budget.affords(UNIT)
        if not self._box.on:
            budget.remove(UNIT)

    def write_due(self, tracked: Tracked, scaler: Any) -> None:
        """Writes the state that is wanted, once every optimizer has had its turn."""
        if not self._wanted or len({t.count for t in self._trained.optimizers.values()}) > 1:
            return
        self._wanted = False
        if is_compiled(self._trained.models):
            self._stop("unsupported: torch.compile: what feeds compiled code is not seen")
            return
        index = self._indices[id(tracked.optimizer)]
        self._guard.timed(UNIT, self._write, scaler, index)

    def begin(self, *, gradients_kept: bool) -> None:
        """Starts holding steps, now that models and optimizers are known."""
        trained = self._trained
        if self._box.why_not:
            return
        why = None
        if not trained.roots:
            why = "unsupported: no model was seen running"
        elif trained.sharded or _ranks() > 1:
            why = "unsupported: a training of several ranks"
        elif is_compiled(trained.models):
            why = "unsupported: torch.compile: what feeds compiled code is not seen"
        if why is not None:
            self._stop(why)
            return
        optimizers = [t.optimizer for t in trained.optimizers.values()]
        self._indices = {id(o): i for i, o in enumerate(optimizers)}
        self._box.begin(trained.roots, trained.models, optimizers, gradients=gradients_kept)

    # -- pause and end -------------------------------------------------------------------------

    def pause(self) -> None:
        """Takes the hooks away."""
        self._box.pause()

    def resume(self) -> None:
        """Puts them back."""
        self._box.resume()

    def close(self) -> None:
        """Ends it."""
        self._run(self._box.close)

    def _write(self, scaler: Any, index: int) -> None:
        try:
            self._box.write_state(self._store.step, scaler, index)
        except OSError as error:
            self._store.fail(error)
            self._stop("skipped: the disk refused")
            return
        if self._box.why_not:
            self._budget.remove(UNIT)

    def _run(self, work: Any, *args: Any) -> None:
        """A fault of the box, or a disk that refuses, ends the box and nothing else."""
        try:
            self._guard.run(UNIT, work, *args)
        except OSError as error:
            self._store.fail(error)
            self._stop("skipped: the disk refused")
        if UNIT in self._guard.broken:
            self._stop("skipped: a fault of the recorder, see the events")

    def _stop(self, why: str) -> None:
        self._wanted = False
        self._box.stop(why)
        self._budget.remove(UNIT)


def _ranks() -> int:
    distributed = torch.distributed
    ready = distributed.is_available() and distributed.is_initialized()
    return distributed.get_world_size() if ready else 1
