"""Opens and closes what watches one step from inside: activation statistics and the loss tape."""

from __future__ import annotations

from time import perf_counter
from typing import Any

from torch import Tensor

from thalweg.recorder.activations import CALL_S, ActivationCapture
from thalweg.recorder.budget import Budget
from thalweg.recorder.discovery import is_compiled
from thalweg.recorder.guard import Guard
from thalweg.recorder.loss_tape import LossClosure, LossTape
from thalweg.recorder.plan import RANKS, Plan
from thalweg.recorder.scalars import Scalars
from thalweg.recorder.store import Store
from thalweg.recorder.trained import Trained

__all__ = ["Captures"]


class Captures:
    """The captures of the step under way.

    Args:
        store, scalars: take what was captured.
        plan: which instruments.
        budget: pays.
        guard: runs.
        trained: the models to watch.

    Attributes:
        closure: the loss of a captured step, once there is one.
        watching: whether activations of this step are watched.
        taping: whether its loss is.
    """

    def __init__(
        self,
        store: Store,
        scalars: Scalars,
        plan: Plan,
        budget: Budget,
        guard: Guard,
        trained: Trained,
    ) -> None:
        self.closure: LossClosure | None = None
        self.watching = self.taping = False
        self._store, self._scalars, self._plan = store, scalars, plan
        self._budget, self._guard, self._trained = budget, guard, trained
        self._activations: ActivationCapture | None = None
        self._tape: LossTape | None = None
        self._tapes = 0  # that have ended

    # -- activations ---------------------------------------------------------------------------

    def watch_activations(self) -> None:
        """Has the next step's activations watched."""
        self._guard.run("activations", self._watch_activations)

    def _watch_activations(self) -> None:
        if is_compiled(self._trained.models):
            self._unsupported(
                "torch.compile: module hooks do not fire in compiled code, and losses computed "
                "there are not seen as val_loss"
            )
            return
        if self._activations is None:
            self._activations = ActivationCapture(
                self._trained.models,
                self._store.series,
                rms=self._plan.wants("activation_rms"),
                dormant=self._plan.wants("dormant_fraction"),
                ranks=[name for name in RANKS if self._plan.wants(name)],
            )
        self.watching = True
        self._activations.open()

    def end_activations(self, at: float) -> None:
        """Sends the statistics of the step that ended, ``at`` so many seconds."""
        if not self.watching or self._activations is None:
            return
        self.watching = False
        start = perf_counter()
        self._activations.close()
        self._guard.run("activations", self._send_activations, self._activations, at)
        self._budget.charge("activations", perf_counter() - start + self._activations.seconds)

    def _send_activations(self, capture: ActivationCapture, at: float) -> None:
        if capture.failure is not None:
            raise capture.failure
        if capture.values:
            self._scalars.add_many(self._store.step, at, capture.codes, capture.values)
        elif capture.fired == 0:
            self._unsupported("module hooks did not fire; is the model compiled or scripted?")

    def _unsupported(self, why: str) -> None:
        message = f"no activation statistics: {why}"
        self._store.event("unsupported", self._store.step, message=message)
        self._guard.end("activations", f"unsupported:{why}")

    def models_changed(self) -> None:
        """There are models that were not there before: hooks are set anew."""
        if self._activations is not None:
            self._activations.close()
            self._activations, self.watching = None, False

    # -- the loss ------------------------------------------------------------------------------

    def start_tape(self) -> str | None:
        """Has the loss of the next step written down.

        Returns:
            Why it cannot be, else None.
        """
        return self._guard.run("loss tape", self._start_tape)

    def _start_tape(self) -> str | None:
        why = None
        if is_compiled(self._trained.models):
            why = "torch.compile: the loss of compiled code cannot be captured"
        elif self._trained.sharded:
            why = "sharded weights: evaluating the loss again would need every rank"
        if why is not None:
            self._store.describe(loss_closure=f"unsupported:{why}")
            return why
        self._tape = LossTape(self._trained.roots)
        self.taping = True
        self._tape.open()
        return None

    def forget(self) -> None:
        """Gradients were cleared: what ran backward before does not count."""
        if self._tape is not None:
            self._tape.forget()

    def rescale(self, factor: Tensor) -> None:
        """What backward ran on so far counts divided by ``factor``."""
        if self._tape is not None:
            self._guard.run("loss tape", self._tape.rescale, factor)

    def backward(self, root: Any, scale: Tensor | None) -> float:
        """Backward ran from ``root``; returns the seconds that the tape took, booked by itself."""
        if self._tape is None:
            return 0.0
        start = perf_counter()
        self._guard.run("loss tape", self._tape.backward, root, scale)
        seconds = perf_counter() - start
        self._book_tape(seconds)
        return seconds

    def end_tape(self) -> None:
        """Makes the closure of the step that ended."""
        if self._tape is None:
            return
        tape, self._tape, self.taping = self._tape, None, False
        start = perf_counter()
        tape.stop()
        self._guard.run("loss tape", self._end_tape, tape)
        self._book_tape(perf_counter() - start)
        self._tapes += 1

    def _end_tape(self, tape: LossTape) -> None:
        tape.close()
        self._book_tape(tape.watched * CALL_S)
        self.closure = tape.closure
        said = tape.closure.description if tape.closure else f"unsupported:{tape.why_not}"
        calls = tape.closure.signature() if tape.closure else []
        self._store.describe(loss_closure=said, loss_calls=calls)

    def _book_tape(self, seconds: float) -> None:
        """The first tape, which says what the loss is, is setup; later ones serve the probes."""
        if self._tapes:
            self._budget.common_s += seconds
        else:
            self._budget.setup_s += seconds

    def drop(self) -> None:
        """Takes every hook and mode away; what was captured of this step is lost."""
        self.watching = self.taping = False
        if self._activations is not None:
            self._activations.close()
        if self._tape is not None:
            self._tape.stop()
            self._tape = None
