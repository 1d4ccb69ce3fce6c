"""Drives a script through kept steps: puts the kept values in place of the script's own.

The script's first step introduces its models and optimizers; then the kept state is put in place,
and from there on each event of the script (a model is called, a function combines its output with
something, ``backward`` runs, an optimizer steps) is matched with the next kept one.
"""

from __future__ import annotations

import contextlib
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer

from thalweg.errors import ThalwegError
from thalweg.recorder.attach import Attachment
from thalweg.recorder.feed import Feed
from thalweg.recorder.plan import Plan
from thalweg.recorder.record import unrecorded
from thalweg.recorder.trained import Trained
from thalweg.recorder.training_state import decode, digest, restore
from thalweg.recorder.walk import Bad, Moment, Walk

__all__ = ["Replay", "Rerun"]


@dataclass(frozen=True)
class Replay:
    """What came of running kept steps again.

    Attributes:
        kind: why they were kept: ``nonfinite``, ``exception`` or ``spike``.
        why: in words.
        step: at which the alarm was raised.
        first, last: the steps that were run again.
        losses: how many losses were compared.
        departs: where the replay first differed from the recording; None: bit for bit the same.
        bad: the first tensor that is not finite, if there is one.
        moments: the last steps in detail.
        notes: what a reader should know.
    """

    kind: str
    why: str
    step: int
    first: int
    last: int
    losses: int
    departs: str | None
    bad: Bad | None
    moments: tuple[Moment, ...]
    notes: tuple[str, ...]


class _Done(BaseException):
    """Ends the script from within: the kept steps are through."""


class Rerun:
    """Runs a script; hears of its steps as a recording does.

    Args:
        tensors, meta: of the file of kept steps.
        state, rest: of the file of the state before them.
        steps: how many, up to the last, are looked at in detail.
    """

    def __init__(
        self,
        tensors: dict[str, Tensor],
        meta: dict[str, Any],
        state: dict[str, Tensor],
        rest: dict[str, Any],
        steps: int,
    ) -> None:
        self._tensors, self._meta, self._state, self._rest = tensors, meta, state, rest
        self._chunks: list[dict[str, Any]] = meta["chunks"]
        numbers = sorted({chunk["step"] for chunk in self._chunks})
        self._detail = numbers[-steps:][0]
        self._trained = Trained(_Nowhere(), Plan(["loss"]))  # pyright: ignore[reportArgumentType]
        self._attachment: Attachment | None = None
        self._feed: Feed | None = None
        self._walk: Walk | None = None
        self._chunk = self._event = 0
        self._optimizers: list[Optimizer] = []
        self._counts: dict[int, int] = {}
        self._in_step = False
        self._inner: set[int] = set()
        self._left_out: list[str] = []  # functions of the step under way that were not called again
        self._losses = 0
        self._departs: str | None = None
        self._complete = False

    def run(self, start: Callable[[], None]) -> BaseException | None:
        """Runs the script until the kept steps are through; returns what it raised, if it did."""
        attachment = self._attachment = Attachment(self)
        error: BaseException | None = None
        try:
            with unrecorded(), contextlib.redirect_stdout(sys.stderr):
                start()
        except _Done:
            pass
        except BaseException as raised:
            error = raised
        finally:
            attachment.close()
            self._trained.stop_discovery()
            if self._feed is not None:
                self._feed.close()
            if self._walk is not None:
                self._walk.close()
        return error

    def result(self, error: BaseException | None, notes: list[str]) -> Replay:
        """What came of it.

        Raises:
            ThalwegError: if the kept steps were never reached.
        """
        meta = self._meta
        if self._feed is None:
            if isinstance(error, ThalwegError):
                raise error
            said = "ended" if error is None else f"raised {type(error).__name__}: {error}"
            if error is not None and not isinstance(error, SystemExit):
                traceback.print_exception(error)
            raise ThalwegError(
                f"the script {said} before its first optimizer step, where a replay begins"
            ) from None
        self._judge(error, notes)
        if self._departs is None:
            if digest(self._trained.models, self._optimizers) != meta["weights"]:
                self._departs = "the weights after the last step differ"
        moments = self._walk.moments if self._walk else []
        return Replay(
            meta["kind"],
            meta["why"],
            meta["step"],
            self._chunks[0]["step"] if self._chunks else meta["first"],
            self._now if self._chunks else meta["first"],
            self._losses,
            self._departs,
            self._walk.bad if self._walk else None,
            tuple(moments),
            tuple(notes),
        )

    def _judge(self, error: BaseException | None, notes: list[str]) -> None:
        """Whether the script ended as it did when it was recorded."""
        if error is None:
            if not self._complete:
                self._depart("the script ended before the kept steps were through")
            elif self._meta["kind"] == "exception" and self._departs is None:
                notes.append("the exception came from outside the steps, from loading data say")
            return
        said = f"{type(error).__name__}: {error}"
        if self._meta["kind"] != "exception":
            self._depart(f"the script raised {said}; in the recording it did not")
        elif said != self._meta["why"]:
            self._depart(f"the script raised {said}; in the recording {self._meta['why']}")
        elif not self._exhausted:
            self._depart(f"the script raised {said} earlier than in the recording")

    # -- where the kept steps stand ------------------------------------------------------------

    @property
    def _now(self) -> int:
        return self._chunks[min(self._chunk, len(self._chunks) - 1)]["step"]

    @property
    def _events(self) -> list[list[Any]]:
        return self._chunks[self._chunk]["events"] if self._chunk < len(self._chunks) else []

    @property
    def _exhausted(self) -> bool:
        return all(event[0] == "function" for event in self._events[self._event :])

    def _depart(self, what: str, *, stop: bool = False) -> None:
        self._departs = self._departs or f"step {self._now}: {what}"
        if stop:
            raise _Done

    def _next(self, kind: str, does: str) -> list[Any]:
        """The next kept event, which must be of a kind; functions not called again are skipped."""
        events = self._events
        while self._event < len(events) and events[self._event][0] == "function" != kind:
            self._left_out.append(events[self._event][1])
            self._event += 1
        if self._event >= len(events):
            # The last step is half done only where an exception ended it.
            self._complete = True
            self._depart(f"the script goes on; in the recording: {self._meta['why']}", stop=True)
        event = events[self._event]
        if event[0] != kind:
            was = {"model": "a model was called", "backward": "backward ran", "step": "the "
                   "optimizer stepped"}[event[0]]  # fmt: skip
            self._depart(f"the script {does} where, in the recording, {was}", stop=True)
        self._event += 1
        return event

    def _values(self, leaves: Sequence[dict[str, Any]]) -> list[Any]:
        return [
            self._tensors[leaf["tensor"]].clone() if "tensor" in leaf else leaf["value"]
            for leaf in leaves
        ]

    # -- what the feed tells -------------------------------------------------------------------

    def model_called(self, root: int, leaves: list[Any]) -> Sequence[Any] | None:
        """Replaces the batch, and sets the random state."""
        _, kept_root, kept, random = self._next("model", "calls a model")
        if kept_root != root or len(kept) != len(leaves):
            self._depart("the script calls a model otherwise than in the recording", stop=True)
        torch.set_rng_state(self._tensors[random[0]])
        for i, name in enumerate(random[1:]):
            torch.cuda.set_rng_state(self._tensors[name], i)
        values = self._values(kept)
        if self._walk is not None:
            self._walk.fed("the batch that the model is called with", values)
        return values

    def function_called(self, name: str, leaves: list[Any]) -> Sequence[Any] | None:
        """Replaces targets and factors, where the call can be told from the kept ones."""
        events = self._events
        for i in range(self._event, len(events)):
            kind, *rest = events[i]
            if kind != "function":
                return None
            if rest[0] == name and _alike(rest[1], leaves):
                self._left_out += [event[1] for event in events[self._event : i]]
                self._event = i + 1
                values = self._values(rest[1])
                if self._walk is not None:
                    self._walk.fed(f"what {name} is given beside the model's output", values)
                return values
        return None

    # -- what the attachment tells -------------------------------------------------------------

    def after_zero_grad(self) -> None:
        """Nothing to do."""

    def after_scale(self, scaled: Tensor, scale: Tensor) -> None:
        """Nothing to do."""

    def loss_computed(
        self, name: str, loss: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        """Nothing to do."""

    def after_accumulation(self, loss: Tensor) -> None:
        """Nothing to do."""

    def after_backward(self, roots: Any, gradients: Any) -> None:
        """Holds the loss against the recorded one."""
        if self._feed is None:
            return
        self._feed.pause()
        root = roots[0] if type(roots) in (list, tuple) and len(roots) == 1 else roots
        single = isinstance(root, Tensor) and root.numel() == 1
        loss = float(root.detach()) if single else None
        _, kept = self._next("backward", "runs backward")
        if self._walk is not None:
            self._walk.backward(root, loss)
        self._losses += 1
        if kept is not None and loss is not None and loss.hex() != kept:
            was = float.fromhex(kept)
            left_out = f"; not called again: {', '.join(self._left_out)}" if self._left_out else ""
            self._depart(f"the loss is {loss!r}, in the recording it was {was!r}{left_out}")

    def before_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> Any:
        """Gives the optimizer its recorded settings."""
        if self._in_step:
            self._inner.add(id(optimizer))  # inside the step of another that wraps it
            return None
        self._in_step = True
        if self._feed is None:
            return None
        self._feed.rest()
        index = self._index(optimizer)
        if index is None:
            return None
        last = self._events[-1] if self._events else None
        if last is not None and last[0] == "step" and last[1] == index:
            for group, settings in zip(optimizer.param_groups, last[2], strict=False):
                group.update(decode(settings, self._tensors, None))
        if self._walk is not None:
            self._walk.before_step(index)
        return None

    def after_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        """One kept step is through."""
        if id(optimizer) in self._inner:
            return
        self._stepped(optimizer, skipped=False)

    def scaler_step(self, optimizer: Optimizer, step: Callable[[], Any]) -> Any:
        """Notices steps that a gradient scaler skips."""
        before = self._counts.get(id(optimizer), 0)
        out = step()
        if self._counts.get(id(optimizer), 0) == before:
            self._stepped(optimizer, skipped=True)
        return out

    def _stepped(self, optimizer: Optimizer, *, skipped: bool) -> None:
        self._in_step = False
        self._counts[id(optimizer)] = self._counts.get(id(optimizer), 0) + 1
        if self._feed is None:
            self._warm_up(optimizer)
            return
        index = self._index(optimizer)
        if index is None:
            return
        self._feed.rest()
        _, kept_index, _, kept_skipped = self._next("step", "steps an optimizer")
        if kept_index != index or kept_skipped != skipped:
            self._depart("another optimizer steps, or a step is skipped, than before", stop=True)
        if self._walk is not None:
            self._walk.after_step(index)
        self._chunk, self._event, self._left_out = self._chunk + 1, 0, []
        if self._chunk >= len(self._chunks):
            self._complete = True
            raise _Done
        self._begin_chunk()

    def _index(self, optimizer: Optimizer) -> int | None:
        for i, known in enumerate(self._optimizers):
            if known is optimizer:
                return i
        return None

    def _warm_up(self, optimizer: Optimizer) -> None:
        """The script's own first steps, until all that is to be restored has been seen."""
        if self._index(optimizer) is None:
            if self._trained.meet(optimizer, in_step=False) is None:
                return
            self._optimizers.append(optimizer)
        if len(self._optimizers) < len(self._rest["optimizers"]):
            return
        if self._index(optimizer) != self._rest["last"]:
            return
        roots, training = self._trained.roots, self._meta["training"]
        if len(roots) != len(training):
            raise ThalwegError(
                f"expected {len(training)} models as recorded, the script called {len(roots)}"
            )
        self._trained.stop_discovery()
        scaler = None if self._attachment is None else self._attachment.scaler
        restore(self._state, self._rest, self._trained.models, self._optimizers, scaler)
        self._feed = Feed(roots, self, training)
        self._feed.open()
        self._begin_chunk()

    def _begin_chunk(self) -> None:
        step = self._now
        if step < self._detail:
            return
        if self._walk is None:
            self._walk = Walk(self._trained.models, self._optimizers)
            self._walk.begin(step)
            self._walk.open()
        self._walk.begin(step)


class _Nowhere:
    """Stands where a recording has its store."""

    step = first_step = 0

    def series(self, instrument: str, part: str) -> int:
        """No series."""
        return 0


def _alike(kept: Sequence[dict[str, Any]], leaves: Sequence[Any]) -> bool:
    """Whether two calls have tensors, numbers and inside values in the same places."""
    if len(kept) != len(leaves):
        return False
    for was, leaf in zip(kept, leaves, strict=True):
        tensor, none = "tensor" in was, "tensor" not in was and was["value"] is None
        if tensor != isinstance(leaf, Tensor) or none != (leaf is None):
            return False
    return True
