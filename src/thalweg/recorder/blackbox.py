"""The black box of a recording: enough of the last steps to run them again, bit for bit.

Now and then, as the time budget allows, the whole state of the training is written to disk; in
between, every tensor and number that feeds a step is held (see ``feed``), with the random state at
each model call. Two states are kept in turn, so that some steps before an alarm are always there.
On an alarm (a figure that is not finite, a loss spike, an exception) the state and the steps since
are kept for ``thalweg replay``.

Batches are held by reference, at no cost: they are alive anyway, or would soon be freed. A batch
that the script writes into afterwards is noticed by its version counter, and from then on they are
copied.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter as _clock
from typing import Any

from torch import Tensor, nn
from torch.optim.optimizer import Optimizer

from thalweg.recorder.alarm import Alarm
from thalweg.recorder.feed import Feed
from thalweg.recorder.held_steps import Chunk, HeldSteps, packed
from thalweg.recorder.kept import FOLDER, kept_name, state_name, write
from thalweg.recorder.store import Store
from thalweg.recorder.training_state import digest, gather

__all__ = ["DEFAULT_MB", "BlackBox"]

DEFAULT_MB = 512
BATCHES = 0.25  # share of the cap that batches may take in memory; the rest is two states on disk
CONTEXT = 4  # steps before an alarm that a state should lie back
APART = 16  # steps between two states, at least
APART_DEVICE = 128  # where losses reach the host late: twice the steps that they may be late
MOST_STEPS = 4096
SPIKE_GROWTH = 2.0  # a later spike is kept instead of an earlier one if it is that much higher,
SPIKES_APART = 128  # and that many steps later: a divergence is told by its first
PROBATION = 32  # steps after which the price of holding batches is judged
SHARE = 1 / 3  # of the time budget that holding them may take
HOOKS_S = 10e-6  # a step's hooks and mode, beyond what is timed inside (seen on a 2 GHz core)


@dataclass(frozen=True)
class _State:
    """A state on disk, and the number of chunks that came before it."""

    step: int
    chunks: int
    path: Path


class BlackBox:
    """Holds the last steps of one process.

    Args:
        store: of the recording.
        megabytes: what it may hold: a quarter in memory, the rest on disk.
        fraction: the time budget; None: batches are held whatever it costs.

    Attributes:
        why_not: why it is off, "" while it is on.
        seconds: spent on holding batches since the recorder last asked.
    """

    def __init__(self, store: Store, megabytes: float, fraction: float | None) -> None:
        self.why_not = ""
        self.seconds = 0.0
        self._store, self._cap, self._fraction = store, int(megabytes * 2**20), fraction
        self._feed: Feed | None = None
        self._models: list[nn.Module] = []
        self._optimizers: list[Optimizer] = []
        self._gradients = False
        self._training: list[bool] = []
        self._versions: list[int] = []
        self._held = HeldSteps(())
        self._states: list[_State] = []
        self._kept: dict[str, tuple[Path, str]] = {}  # kind: file, name of its state
        self._spike: tuple[int, float] | None = None
        self._skipped: set[int] = set()  # steps that a gradient scaler skipped
        self._alarms: dict[int, Alarm] = {}
        self._alarm: tuple[int, str, str] | None = None
        self._fault: Exception | None = None
        self._spent = 0.0
        self._told_of_gap = False

    # -- the recorder's side -------------------------------------------------------------------

    @property
    def on(self) -> bool:
        """Whether steps are being held."""
        return self._feed is not None

    def begin(
        self,
        roots: Sequence[nn.Module],
        models: Sequence[nn.Module],
        optimizers: Sequence[Optimizer],
        *,
        gradients: bool,
    ) -> None:
        """Starts holding steps.

        Args:
            roots: the modules that the script calls.
            models: those whose state is kept.
            optimizers: in the order of their first step.
            gradients: whether nobody clears them between steps.
        """
        self._models, self._optimizers = list(models), list(optimizers)
        self._gradients = gradients
        self._held = HeldSteps(optimizers)
        self._training = [root.training for root in roots]
        self._feed = Feed(roots, self, self._training, self._failed)
        self._feed.open()

    def stop(self, why: str) -> None:
        """Lets go of everything; ``why`` is noted once."""
        if self._feed is not None:
            self._feed.close()
            self._feed = None
        if not self.why_not:
            self.why_not = why
            self._store.event("black box off", self._held.now.step, why=why)
            self._store.describe(blackbox=why)
        self._forget()

    def _failed(self, error: Exception) -> None:
        """A fault of ours inside the script's own computation: it waits for the step's end."""
        if os.environ.get("THALWEG_DEBUG"):
            raise error
        self._fault = self._fault or error

    def pause(self) -> None:
        """Takes the hooks away; no file is touched."""
        if self._feed is not None:
            self._feed.close()
            self._versions = self._weight_versions()

    def resume(self) -> None:
        """Puts them back; if the weights have moved meanwhile, what is held leads nowhere."""
        if self._feed is not None:
            self._feed.open()
            if self._versions != self._weight_versions():
                self._held.now = Chunk(step=self._held.now.step)
                self._forget()

    def _weight_versions(self) -> list[int]:
        return [p._version for o in self._optimizers for g in o.param_groups for p in g["params"]]

    def close(self) -> None:
        """Ends it: states that belong to no kept steps are deleted."""
        if self._alarm is not None and self.on:
            self.keep(*self._alarm)  # it reached the host with the last figures
        if self.on:
            self._end()

    def _end(self) -> None:
        if self._feed is not None:
            self._feed.close()
            self._feed = None
        self._forget()
        kept = sorted(path.name for path, _ in self._kept.values())
        self._store.describe(blackbox={"kept": kept})

    # -- what a step is fed --------------------------------------------------------------------

    def model_called(self, root: int, leaves: list[Any]) -> None:
        """Holds the arguments of a model and the random state."""
        start = _clock()
        self._held.model_called(root, leaves)
        self.seconds += _clock() - start

    def function_called(self, name: str, leaves: list[Any]) -> None:
        """Holds what a torch function combines the model's output with."""
        start = _clock()
        self._held.function_called(name, leaves)
        self.seconds += _clock() - start

    def backward(self, loss: Tensor | None) -> None:
        """Holds the value on which ``backward`` ran."""
        if self._feed is None:
            return
        start = _clock()
        self._feed.pause()
        self._held.backward(loss)
        self.seconds += _clock() - start

    def before_step(self) -> None:
        """Nothing that feeds the step comes after this, but for closures."""
        if self._feed is not None:
            self._feed.rest()

    # -- the end of a step ---------------------------------------------------------------------

    def heard(self, step: int, code: int, value: float, *, loss: bool = True) -> None:
        """A loss or a gradient norm has reached the host, perhaps some steps late."""
        if self._feed is None:
            return
        if not loss:
            found = None if value - value == 0 else ("nonfinite", f"the gradient norm is {value}")
        else:
            found = self._alarms.setdefault(code, Alarm()).hear(value)
        if found is None or (self._alarm is not None and self._alarm[1] == "nonfinite"):
            return
        if found[0] == "spike":
            before = self._spike
            if before and (value < SPIKE_GROWTH * before[1] or step - before[0] < SPIKES_APART):
                return
            self._spike = step, value
        self._alarm = step, found[0], found[1]

    def stepped(self, index: int, step: int, skipped: bool) -> None:
        """An optimizer has stepped: one more chunk is whole."""
        if self._feed is None:
            return
        if self._fault is not None:
            raise self._fault
        start = _clock()
        self._feed.rest()
        self._held.end(index, step, skipped)
        if len(self._held.chunks) > 1 and not self._held.clone and self._held.chunks[-2].edited():
            self._held.clone = True  # a buffer that is filled anew for each step, say
            self._forget()
        self._trim()
        self.seconds += _clock() - start
        if skipped:
            self._skipped.add(step)
        if self._alarm is not None:
            at, kind, why = self._alarm
            self._alarm = None
            if kind != "nonfinite" or at not in self._skipped:  # that is what a scaler is for
                self.keep(at, kind, why)

    def upkeep(self, bare_s: float, steps: int) -> float:
        """Seconds spent since the last call; judges whether holding batches is too dear.

        Args:
            bare_s: seconds of training so far.
            steps: steps so far.
        """
        spent, self.seconds = self.seconds, 0.0
        self._spent += spent
        number = self._held.number
        if self._fraction is not None and self.on and number >= PROBATION and steps and bare_s:
            each, step_s = self._spent / number + HOOKS_S, bare_s / steps
            if each > SHARE * self._fraction * step_s:
                self.stop(
                    f"skipped:budget: holding the batches takes {each * 1e6:.0f} µs of a step of "
                    f"{step_s * 1e6:.0f} µs; --blackbox {DEFAULT_MB} holds them all the same"
                )
        return spent

    def due(self, step: int) -> bool:
        """Whether a state may be written now: enough steps since the last, none in mid-cycle."""
        if self._feed is None or self._held.now.events:
            return False
        apart = APART_DEVICE if self._held.devices else APART
        return not self._states or step - self._states[-1].step >= apart

    def write_state(self, step: int, scaler: Any, last: int) -> None:
        """Writes the state after a step; the oldest of three is deleted.

        Args:
            step: the step.
            scaler: the gradient scaler, if there is one.
            last: index of the optimizer that stepped last.

        Raises:
            OSError: if the disk refuses.
        """
        try:
            tensors, rest = gather(
                self._models, self._optimizers, scaler, gradients=self._gradients
            )
        except TypeError as error:
            self.stop(f"unsupported: the state of the optimizer: {error}")
            return
        size = sum(t.numel() * t.element_size() for t in tensors.values())
        if 2 * size > (1 - BATCHES) * self._cap:
            need = 2 * size / (1 - BATCHES) / 2**20
            self.stop(
                f"skipped:memory: two states of {size / 2**20:.0f} MB and the batches do not fit "
                f"into {self._cap / 2**20:.0f} MB; --blackbox {need:.0f} would do"
            )
            return
        path = self._store.path / FOLDER / state_name(self._store.rank, self._store.segment, step)
        write(path, tensors, {"step": step, "last": last, **rest})
        self._states.append(_State(step, self._held.number, path))
        while len(self._states) > 2:
            self._drop(self._states.pop(0))
        self._trim()

    def keep(self, step: int, kind: str, why: str) -> None:
        """Keeps the steps up to now, on an alarm at ``step``.

        Args:
            step: at which it shows; an exception may leave it half done.
            kind: ``nonfinite``, ``exception`` or ``spike``.
            why: in words.
        """
        if self._feed is None:
            return
        fit = [s for s in self._states if s.step < step and s.chunks >= self._held.first]
        early = [s for s in fit if s.step <= step - CONTEXT]
        chosen = early[-1] if early else fit[0] if fit else None
        chunks = [] if chosen is None else self._held.chunks[chosen.chunks - self._held.first :]
        part = [self._held.now] if kind == "exception" and self._held.now.events else []
        self._held.now.step = step if part else self._held.now.step
        edited = any(chunk.edited() for chunk in [*chunks, *part])
        lacking = "no state was written before it" if chosen is None else ""
        lacking = "a batch was written into after its step" if edited else lacking
        if chosen is None or edited or not (chunks or part):
            self._store.event(
                "black box", step, kind=kind, why=why, kept=None,
                message=f"nothing kept: {lacking or 'no step since the last state'}",
            )  # fmt: skip
            return
        tensors: dict[str, Tensor] = {}
        meta = {
            "state": chosen.path.name,
            "first": chosen.step + 1,
            "step": step,
            "kind": kind,
            "why": why,
            "chunks": packed([*chunks, *part], tensors),
            "weights": digest(self._models, self._optimizers),
            "training": self._training,
            "opaque": sorted(self._feed.opaque),
        }
        store = self._store
        path = store.path / FOLDER / kept_name(store.rank, store.segment, step, kind)
        write(path, tensors, meta)
        before = self._kept.get(kind)
        self._kept[kind] = path, chosen.path.name
        if before is not None:
            before[0].unlink(missing_ok=True)
            old = path.with_name(before[1])
            if all(old != state.path for state in self._states):
                self._drop(_State(0, 0, old))
        store.event("black box", step, kind=kind, why=why, kept=path.name)
        store.say(f"step {step}: {why}; kept for: thalweg replay {store.path}")
        if kind == "nonfinite":
            # What follows is trained on what is broken: there is nothing more to learn from it.
            self._end()

    # -- what is let go ------------------------------------------------------------------------

    def _trim(self) -> None:
        """Drops chunks that lie before the older state, and what the memory cap does not allow."""
        start = self._states[0].chunks if self._states else self._held.first
        self._held.let_go(start - self._held.first)
        room = BATCHES * self._cap
        if (self._held.bytes > room or len(self._held.chunks) > MOST_STEPS) and len(
            self._states
        ) > 1:
            self._drop(self._states.pop(0))
            self._held.let_go(self._states[0].chunks - self._held.first)
        if self._held.bytes > room or len(self._held.chunks) > MOST_STEPS:
            if not self._told_of_gap and self._states:
                self._told_of_gap = True
                self._store.event(
                    "black box gap", self._held.now.step,
                    message=f"the batches of {len(self._held.chunks)} steps fill "
                    f"{self._held.bytes / 2**20:.0f} MB before the budget allows the next state: "
                    "steps in between cannot be replayed. More --blackbox or --overhead: no gap",
                )  # fmt: skip
            self._forget()

    def _forget(self) -> None:
        """Drops all that is held."""
        self._held.let_go(len(self._held.chunks))
        while self._states:
            self._drop(self._states.pop())

    def _drop(self, state: _State) -> None:
        if all(name != state.path.name for _, name in self._kept.values()):
            state.path.unlink(missing_ok=True)
