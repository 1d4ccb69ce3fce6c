"""The recorder of one process: hears of every step, measures what the budget allows, writes it.

A step passes ``after_backward`` → ``before_step`` → ``after_step``. Between records each costs a
few microseconds. After each step the budget decides what the next one will be measured for; the
hooks, modes and copies that this needs exist only during that step. Nothing here changes a weight,
a gradient, a buffer or the random state, and nothing here may raise into the training.
"""

from __future__ import annotations

import math
import os
import time
import traceback
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import Optimizer
from torch.utils.weak import TensorWeakRef

from thalweg.errors import ThalwegError
from thalweg.instruments import Reading
from thalweg.recorder.activations import CALL_S, ActivationCapture
from thalweg.recorder.attach import Attachment
from thalweg.recorder.budget import Budget
from thalweg.recorder.discovery import (
    Discovery,
    describe_model,
    is_compiled,
    labels,
    parameter_names,
    unwrapped,
)
from thalweg.recorder.loss_tape import LossClosure, LossTape
from thalweg.recorder.plan import RANKS, Plan
from thalweg.recorder.probes import Probes
from thalweg.recorder.ranks import largest_of_ranks
from thalweg.recorder.scalars import Scalars
from thalweg.recorder.snapshots import SketchWriter, SnapshotSchedule, SnapshotWriter
from thalweg.recorder.store import FLUSH_S, Store
from thalweg.recorder.tracked import Tracked
from thalweg.recorder.validation import Evaluation
from thalweg.recorder.watchdog import Watchdog

__all__ = ["Session"]

PLAN_S = 4e-3  # how often the budget is looked at, at most

_live: weakref.WeakSet[Session] = weakref.WeakSet()
_clock = time.perf_counter


def _abandon_in_child() -> None:
    """A forked child (a DataLoader worker, say) is no part of the training."""
    for session in list(_live):
        session.abandon()


os.register_at_fork(after_in_child=_abandon_in_child)


class Session:
    """Records this process until ``close``.

    Args:
        store: where everything goes.
        plan: which instruments.
        overhead: share of step time that recording may take.
        models: the models, if known; otherwise they are found.
        optimizers: only these, if given; otherwise all that step.
        probe_loss: what costly instruments evaluate; default the captured loss of a step.
        snapshot_bytes: cap on the snapshots of this segment.

    Attributes:
        step: number of the last step, over all segments. A step that a gradient scaler skips
            counts; with several optimizers, a new step begins when one of them steps again.
        closure: the loss of a captured step, once there is one.
    """

    def __init__(
        self,
        store: Store,
        *,
        plan: Plan,
        overhead: float,
        models: Sequence[nn.Module] = (),
        optimizers: Sequence[Optimizer] = (),
        probe_loss: Callable[[], Tensor] | None = None,
        snapshot_bytes: int = 512 << 20,
    ) -> None:
        if _live:
            raise ThalwegError(
                "this process is being recorded already: close that recording first. A script run "
                "by `thalweg record` needs no thalweg.record of its own"
            )
        self.step = store.first_step
        self.closure: LossClosure | None = None
        self._store, self._plan = store, plan
        self._wants_loss, self._wants_lr = plan.wants("loss"), plan.wants("lr")
        self._budget = Budget(overhead)
        for unit, cost in plan.units().items():
            self._budget.add(unit, cost=cost)
        self._models = [unwrapped(m) for m in models]
        self._only = {id(o) for o in optimizers}
        self._tracked: dict[int, Tracked] = {}
        self._ignored: set[int] = set()
        self._scalars = Scalars(store)
        self._schedule = SnapshotSchedule(self.step)
        self._snapshots = SnapshotWriter(
            store.path, rank=store.rank, segment=store.segment, cap_bytes=snapshot_bytes
        )
        self._sketches = SketchWriter(store.path, rank=store.rank, segment=store.segment)

        # What the step now under way is measured for.
        self._planned = self._plan_at = self.step
        self._norms_now = False
        self._norms_s = 0.0
        self._next_record = 0  # with sharded weights: the step that all ranks agreed on
        self._sharded = False
        self._activations: ActivationCapture | None = None
        self._activations_now = False
        self._tape: LossTape | None = None
        self._tape_wanted = True
        self._probes = Probes(plan.probes)
        self._probes_due: list[str] = []
        self._probing = False
        self._probe_loss = probe_loss

        # The loss whose gradient the next step follows.
        self._loss: Tensor | None = None
        self._loss_used = True  # the next backward starts a new sum
        self._backwards = 0
        self._kept_gradient: tuple[Tensor, TensorWeakRef] | None = None  # of the first step
        self._scaled: tuple[Tensor, Tensor] | None = None
        self._loss_scale: Tensor | None = None
        self._in_step = False
        self._evaluation, self._doubtful = Evaluation(), Evaluation()

        self._step_end = _clock()
        self._spent_at_end = 0.0
        self._broken: set[str] = set()
        self._closed = False
        self._discovery: Discovery | None = Discovery()
        self._roots: list[nn.Module] = []  # those among the models, or inside them, that are called
        self._attachment = Attachment(self)
        self._watchdog = Watchdog(store)
        _live.add(self)

    # -- what the attachment tells -------------------------------------------------------------

    def after_zero_grad(self) -> None:
        """Backward passes before this do not count for the next step."""
        self._kept_gradient = None
        if self._in_step:
            return  # a closure clears them between its evaluations
        self._loss_used = True
        if self._tape is not None:
            self._tape.forget()

    def after_scale(self, scaled: Tensor, scale: Tensor) -> None:
        """A gradient scaler multiplied a loss."""
        self._scaled, self._loss_scale = (scaled, scale), scale

    def after_backward(self, roots: Any, gradients: Any) -> None:
        """Adds the root to the loss of this step; reads gradients before anyone clips them."""
        start = _clock()
        if self._in_step and not self._loss_used:
            return  # a closure evaluated again inside one step (LBFGS): its first loss counts
        root, scale = roots, None
        if type(roots) in (list, tuple) and len(roots) == 1:
            root = roots[0]
        if self._scaled is not None:
            scale = self._scaled[1] if self._scaled[0] is root else None
            self._scaled = None
        if self._doubtful.batches:
            self._doubtful.clear()  # a model that trains in eval mode
        if isinstance(root, Tensor) and root.numel() == 1 and gradients is None:
            value = root.detach() if scale is None else root.detach() / scale
            self._loss = value if self._loss_used or self._loss is None else self._loss + value
            self._loss_used = False
            self._backwards += 1
        if self._tape is not None:
            begun = _clock()
            self._guarded("loss tape", lambda tape: tape.backward(root, scale), self._tape)
            self._book_tape(_clock() - begun)
            start += _clock() - begun
        if self._norms_now and not self._in_step:
            self._guarded("norms", self._read_preclip, scale)
            self._norms_s += _clock() - start
        else:
            self._budget.common_s += _clock() - start

    def before_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> Any:
        """Reads what must be read before the weights move."""
        tracked = self._tracked.get(id(optimizer))
        closure = args[1] if len(args) > 1 else kwargs.get("closure")
        if tracked is not None and closure is None and not self._norms_now:
            self._in_step = True
            return None
        if id(optimizer) in self._ignored:
            return None
        known = tracked is not None
        if closure is not None:
            # Loss and gradients of this step come to be inside it, and so does, at the very first
            # one, the model's first call.
            self._in_step = self._loss_used = True
            if known and not self._norms_now:
                return None
            return self._watch_closure(optimizer, closure, args, kwargs)
        tracked = tracked or self._introduce(optimizer)
        if tracked is not None:
            self._in_step = True
            self._read_start(tracked)
        return None

    def after_step(self, optimizer: Optimizer, args: Any = (), kwargs: Any = None) -> None:
        """Reads what the step did, decides what the next one is measured for."""
        tracked = self._tracked.get(id(optimizer))
        if tracked is not None and not self._closed:
            self._finish(tracked, stepped=True)

    def scaler_step(self, optimizer: Optimizer, step: Callable[[], Any]) -> Any:
        """Notices steps that a gradient scaler skips because gradients are not finite."""
        tracked = self._tracked.get(id(optimizer))
        before = tracked.count if tracked else 0
        out = step()
        tracked = self._tracked.get(id(optimizer)) or self._guarded(
            "discovery", self._meet, optimizer
        )
        if tracked is not None and tracked.count == before and not self._closed:
            self._finish(tracked, stepped=False)
        return out

    def evaluated(self, loss: Tensor, args: tuple[Any, ...]) -> None:
        """Keeps a loss computed without gradients, or by a model in eval mode, as validation."""
        if self._probing:
            return
        if not torch.is_grad_enabled():
            evaluation = self._evaluation
        else:
            for m in self._models:
                if m.training:
                    return
            if not self._models:
                return
            evaluation = self._doubtful  # unless a backward follows
        if self._plan.wants("val_loss"):
            target = args[1] if len(args) > 1 else None
            samples = target.shape[0] if isinstance(target, Tensor) and target.ndim else 1
            evaluation.add(loss.detach(), samples)

    # -- the user's own figures ----------------------------------------------------------------

    def log(self, values: Mapping[str, Any], step: int | None = None) -> None:
        """Records figures of the user's own as ``user/<name>``.

        Args:
            values: name to number (or 0-d tensor).
            step: default the present one.

        Raises:
            TypeError: if a value is not a number.
        """
        codes, numbers = [], []
        for name, value in values.items():
            try:
                numbers.append(float(value))
            except (TypeError, ValueError, RuntimeError):
                raise TypeError(
                    f"run.log: {name!r} must be a number, got {type(value).__name__}"
                ) from None
            codes.append(self._store.series(f"user/{name}", ""))
        if codes:
            self._store.rows(self.step if step is None else int(step), codes, numbers)

    # -- one step ------------------------------------------------------------------------------

    def _meet(self, optimizer: Optimizer) -> Tracked | None:
        """The first step of an optimizer: finds its model, names its parameters."""
        params = [p for g in optimizer.param_groups for p in g["params"]]
        known = {id(p) for t in self._tracked.values() for p in t.params}
        # Not ours, or one that a wrapper (SAM, Lookahead, ZeRO) steps inside its own step.
        inner = bool(known) and self._in_step and known.issuperset(map(id, params))
        if inner or (self._only and id(optimizer) not in self._only):
            self._ignored.add(id(optimizer))
            return None
        if self._discovery is not None:
            found = self._discovery.models(params)
            self._roots += [m for m in found if all(m is not seen for seen in self._roots)]
            inside = {id(m) for model in self._models for m in model.modules()}
            self._models += [m for m in self._roots if id(m) not in inside]
            if self._activations is not None:  # it watches the models known before
                self._activations.close()
                self._activations, self._activations_now = None, False
        names = parameter_names(self._models, params)
        tracked = Tracked(optimizer, len(self._tracked), names, self._store, self._plan)
        first = not self._tracked
        self._tracked[id(optimizer)] = tracked
        self._sharded = self._sharded or tracked.sharded
        for part, group in tracked.groups():
            self._sketches.start(part, group)
        if first:
            self._norms_now = self._plan.norms  # the very first step is measured
            self._write_snapshot()
            if not self._models:
                self._store.event(
                    "unsupported",
                    self.step,
                    message="no module that owns the optimizer's parameters was seen running: "
                    "no activations, no loss closure, parameters named param0, param1, …",
                )
        self._store.describe(
            optimizers=[t.describe() for t in self._tracked.values()],
            models=[
                describe_model(m, label)
                for m, label in zip(self._models, labels(self._models), strict=True)
            ],
        )
        return tracked

    def _introduce(self, optimizer: Optimizer) -> Tracked | None:
        """Meets an optimizer. Done once, however long the training: no part of a step's price."""
        start = _clock()
        tracked = self._guarded("discovery", self._meet, optimizer)
        self._budget.setup_s += _clock() - start
        return tracked

    def _read_start(self, tracked: Tracked) -> None:
        """Reads what a step starts from: final gradients, weights."""
        start = _clock()
        if self._norms_now:
            self._guarded("norms", tracked.remember_weights)
            self._guarded("norms", self._read_gradients, tracked)
            self._norms_s += _clock() - start
        else:
            self._budget.common_s += _clock() - start

    def _read_preclip(self, scale: Tensor | None) -> None:
        if self._plan.wants("grad_norm_preclip"):
            for tracked in self._tracked.values():
                tracked.read_preclip(scale)

    def _read_gradients(self, tracked: Tracked) -> None:
        if tracked.reshaped():
            params = [p for g in tracked.optimizer.param_groups for p in g["params"]]
            tracked.rebuild(parameter_names(self._models, params))
            tracked.remember_weights()
            self._store.event("param groups changed", self.step, optimizer=tracked.label)
            self._store.describe(optimizers=[t.describe() for t in self._tracked.values()])
        tracked.read_gradients()

    def _watch_closure(
        self, optimizer: Optimizer, closure: Callable[[], Any], args: Any, kwargs: Any
    ) -> Any:
        """Reads the start of the step after the closure's first call inside it."""
        first = True

        def watched(*a: Any, **k: Any) -> Any:
            nonlocal first
            out = closure(*a, **k)
            if first:
                first = False
                tracked = self._tracked.get(id(optimizer)) or self._introduce(optimizer)
                if tracked is not None:
                    self._read_start(tracked)
            return out

        if len(args) > 1:
            return (args[0], watched, *args[2:]), kwargs
        return args, {**kwargs, "closure": watched}

    def _finish(self, tracked: Tracked, *, stepped: bool) -> None:
        """One optimizer has stepped, or was kept from it by a gradient scaler."""
        start = _clock()
        self._in_step = False
        tracked.count += 1
        leads = tracked.count > self.step - self._store.first_step
        if self._evaluation.batches or self._doubtful.batches:
            self._write_validation()
        if leads:
            self.step += 1
            if self.step == self._store.first_step + 1:
                for held in tracked.params:
                    if held.grad is not None:
                        self._kept_gradient = held, TensorWeakRef(held.grad)
                        break
        at = start - self._store.start
        # Optimizers that share one backward each get its loss; none gets the same one twice.
        if self._loss is not None and tracked.backwards != self._backwards:
            tracked.backwards = self._backwards
            if self._wants_loss:
                self._scalars.add_one(self.step, at, tracked.loss_codes, self._loss)
        self._loss_used = True
        if self._wants_lr and tracked.learning_rates_changed():
            for code, value in tracked.learning_rate_rows():
                self._store.rows(self.step, [code], [value], at)
        if not stepped or (self._norms_now and tracked.skipped_inside()):
            tracked.forget()
            codes = [c[0] for name, c in tracked.codes.items() if name != "weight_norm"]
            nan, why = (
                float("nan"),
                "skipped:non-finite gradients, the gradient scaler took no step",
            )
            rows = [nan] * len(codes), None, [why] * len(codes)
            self._store.rows(self.step, codes, rows[0], at, *rows[1:])
            scale = None if self._loss_scale is None else float(self._loss_scale)
            self._store.event("skipped step", self.step, why=why, loss_scale=scale)
        elif self._norms_now:
            now = _clock()
            self._guarded("norms", self._send_norms, tracked, at)
            seconds, self._norms_s = self._norms_s + _clock() - now, 0.0
            self._budget.charge("norms", seconds)
            start += _clock() - now
        self._budget.common_s += _clock() - start
        if leads and self.step >= self._plan_at:
            self._between_steps(at)

    def _send_norms(self, tracked: Tracked, at: float) -> None:
        self._scalars.add_record(self.step, at, tracked.finish(), tracked.codes)

    def _between_steps(self, at: float) -> None:
        """Closes the captures of the step that ended and plans the next."""
        budget = self._budget
        bare = _clock() - self._step_end - (budget.spent_s - self._spent_at_end)
        budget.pass_steps(bare, self.step - self._planned)
        if self._activations_now and self._activations is not None:
            start = _clock()
            self._guarded("activations", self._end_activations, at)
            budget.charge("activations", _clock() - start + self._activations.seconds)
        if self._tape is not None:
            start = _clock()
            self._guarded("loss tape", self._end_tape)
            self._book_tape(_clock() - start)
        for name in self._probes_due:
            self._timed(name, self._run_probe, name, at)
        self._probes_due = []
        if self._discovery is not None and self.step - self._store.first_step >= 2:
            self._discovery.close()
            self._discovery = None
            self._store.describe(
                outside_optimizers=self._outside_optimizers(),
                gradients_kept=self._gradients_kept(),
            )
        if self._schedule.next <= self.step and budget.affords("snapshots"):
            self._timed("snapshots", self._write_snapshot)
        if self._sketches.next <= self.step and budget.affords("sketches"):
            self._timed("sketches", self._write_sketches, at)
        start = _clock()
        self._norms_now = self._record_next() if self._sharded else budget.affords("norms")
        if budget.affords("activations") and self._models:
            self._guarded("activations", self._begin_activations)
        if self._tape_wanted and self._roots and self.step - self._store.first_step >= 2:
            self._tape_wanted = False
            self._guarded("loss tape", self._begin_tape)
        if self._plan.probes and self._roots and not self._tape_wanted:
            self._plan_probes(at)
        if self._scalars.waiting:
            self._guarded("scalars", self._scalars.drain)
        if start - self._store.flushed > FLUSH_S:
            self._store.flush()
        self._planned, self._plan_at = self.step, self.step + self._steps_to_pass()
        self._step_end = _clock()
        budget.common_s += self._step_end - start
        self._spent_at_end = budget.spent_s

    def _steps_to_pass(self) -> int:
        """Steps until the next look at the budget: one, unless steps are short and none is due."""
        busy = (
            self._norms_now
            or bool(self._probes_due)
            or self._activations_now
            or self._tape is not None
        )
        if busy or self._sharded or self._discovery is not None or not self._budget.bare_s:
            return 1
        return max(1, min(64, int(PLAN_S * self._budget.steps / self._budget.bare_s)))

    def _record_next(self) -> bool:
        if not self._plan.norms or "norms" in self._broken:
            return False
        # Norms of sharded weights are collective: every rank must take them on the same step, so
        # the next one is agreed on at each record and no rank measures in between.
        if self.step >= self._next_record:
            self._next_record = self.step + largest_of_ranks(self._budget.steps_until("norms"))
        return self.step + 1 >= self._next_record

    def _outside_optimizers(self) -> list[dict[str, Any]]:
        """Trainable parameters that no optimizer holds, and whether they get gradients."""
        held = {id(p) for t in self._tracked.values() for p in t.params}
        params = [p for m in self._models for p in m.parameters()]
        left = [p for p in params if p.requires_grad and id(p) not in held]
        names = parameter_names(self._models, left)
        return [
            {"name": name, "gradient": p.grad is not None}
            for name, p in zip(names, left, strict=True)
        ]

    def _plan_probes(self, at: float) -> None:
        """Runs the probes of the weights alone; has the next loss captured for the others."""
        due = [n for n in self._plan.probes if self._budget.affords(n) and n not in self._broken]
        for name in due:
            if not self._probes.wants_loss(name):
                self._timed(name, self._run_probe, name, at)
        due = [n for n in due if self._probes.wants_loss(n)]
        if not due or self._tape is not None:
            return
        if self._probe_loss is not None:
            self._await_probes(due)
            return
        if len(self._tracked) > 1:
            self._cannot_probe("several optimizers: no one loss belongs to all weights")
            return
        self._guarded("loss tape", self._begin_tape)
        if self._tape is not None:
            self._await_probes(due)

    def _await_probes(self, due: list[str]) -> None:
        """Has probes run after the next step, and keeps its update for those that need it."""
        self._probes_due = due
        if any(self._probes.wants_update(n) for n in due):
            self._norms_now = True
            next(iter(self._tracked.values())).keep_update = True

    def _run_probe(self, name: str, at: float) -> None:
        closure = self._probe_loss or self.closure
        if self._probes.wants_loss(name) and closure is None:
            self._break(name, "unsupported:the loss of a step could not be captured")
            return
        self._probing = True
        try:
            for tracked in self._tracked.values():
                for instrument, part, r in self._probes.run(name, closure, tracked):
                    code = self._store.series(instrument, part)
                    row = [r.value], at, [r.uncertainty], [_status(r)]
                    self._store.rows(self.step, [code], *row)
        finally:
            self._probing = False

    def _cannot_probe(self, why: str) -> None:
        """No loss can be evaluated again: the instruments that need one say so."""
        for name in self._plan.probes:
            if self._probes.wants_loss(name) and name not in self._broken:
                self._break(name, f"unsupported:{why}")

    def _gradients_kept(self) -> bool:
        """Whether the first step's gradient lived on into the second: no one cleared it.

        Zeroing ``.grad`` in place by hand, without ``zero_grad``, looks the same.
        """
        if self._kept_gradient is None:
            return False
        (param, gradient), self._kept_gradient = self._kept_gradient, None
        return param.grad is not None and gradient() is param.grad

    def _write_validation(self) -> None:
        evaluation = self._evaluation if self._evaluation.batches else self._doubtful
        mean, error = evaluation.result()
        self._doubtful.clear()
        code = self._store.series("val_loss", "")
        self._store.rows(self.step, [code], [mean], None, [error])

    # -- captures of one step ------------------------------------------------------------------

    def _begin_activations(self) -> None:
        if is_compiled(self._models):
            self._unsupported(
                "torch.compile: module hooks do not fire in compiled code, and losses computed "
                "there are not seen as val_loss"
            )
            return
        if self._activations is None:
            self._activations = ActivationCapture(
                self._models,
                self._store.series,
                rms=self._plan.wants("activation_rms"),
                dormant=self._plan.wants("dormant_fraction"),
                ranks=[name for name in RANKS if self._plan.wants(name)],
            )
        self._activations_now = True
        self._activations.open()

    def _end_activations(self, at: float) -> None:
        self._activations_now = False
        capture = self._activations
        if capture is None:
            return
        capture.close()
        if capture.values:
            self._scalars.add_many(self.step, at, capture.codes, capture.values)
        elif capture.fired == 0:
            self._unsupported("module hooks did not fire; is the model compiled or scripted?")

    def _begin_tape(self) -> None:
        why = None
        if is_compiled(self._models):
            why = "torch.compile: the loss of compiled code cannot be captured"
        elif self._sharded:
            why = "sharded weights: evaluating the loss again would need every rank"
        if why is not None:
            self._store.describe(loss_closure=f"unsupported:{why}")
            self._cannot_probe(why)
            return
        self._tape = LossTape(self._roots)
        self._tape.open()

    def _book_tape(self, seconds: float) -> None:
        """The first tape, which says what the loss is, is setup; later ones serve the probes."""
        if self._probes_due:
            self._budget.common_s += seconds
        else:
            self._budget.setup_s += seconds

    def _end_tape(self) -> None:
        tape, self._tape = self._tape, None
        assert tape is not None
        tape.close()
        self._book_tape(tape.watched * CALL_S)
        self.closure = tape.closure
        said = tape.closure.description if tape.closure else f"unsupported:{tape.why_not}"
        calls = tape.closure.signature() if tape.closure else []
        self._store.describe(loss_closure=said, loss_calls=calls)

    def _write_snapshot(self) -> None:
        tensors: dict[str, Tensor] = {}
        for model, label in zip(self._models, labels(self._models), strict=True):
            for name, t in model.state_dict(keep_vars=True).items():
                if isinstance(t, Tensor):
                    tensors[f"{label}.{name}" if label else name] = t
        held = {id(t) for t in tensors.values()}
        for tracked in self._tracked.values():
            for name, p in zip(tracked.names, tracked.params, strict=True):
                if id(p) not in held:
                    tensors.setdefault(name, p)
        self._schedule.passed(self.step)
        try:
            self._snapshots.write(self.step, tensors, self._schedule)
        except OSError as error:
            self._store.fail(error)

    def _write_sketches(self, at: float) -> None:
        groups = {part: g for t in self._tracked.values() for part, g in t.groups()}
        try:
            self._sketches.write(self.step, at, groups)
        except OSError as error:
            self._store.fail(error)
            self._budget.remove("sketches")

    # -- bookkeeping ---------------------------------------------------------------------------

    def _timed(self, unit: str, work: Callable[..., Any], *args: Any) -> None:
        start = _clock()
        self._guarded(unit, work, *args)
        self._budget.charge(unit, _clock() - start)

    def _guarded(self, unit: str, work: Callable[..., Any], *args: Any) -> Any:
        """Runs our work; a fault of ours ends that part of the recording, never the training."""
        if unit in self._broken:
            return None
        try:
            return work(*args)
        except Exception as error:
            if os.environ.get("THALWEG_DEBUG"):
                raise
            memory = isinstance(error, torch.OutOfMemoryError | MemoryError)
            status = "skipped:memory" if memory else f"unsupported:{error!r}"
            self._break(unit, status)
            message = f"recording of {unit} stops at step {self.step}: {error!r}"
            trace = traceback.format_exc(limit=-4)
            self._store.event("recorder error", self.step, message=message, traceback=trace)
            self._store.warn(message)
            return None

    def _unsupported(self, why: str) -> None:
        self._store.event("unsupported", self.step, message=f"no activation statistics: {why}")
        self._break("activations", f"unsupported:{why}")

    def _break(self, unit: str, status: str) -> None:
        """Ends a unit of work; its series say why."""
        self._broken.add(unit)
        self._budget.remove(unit)
        if unit == "norms":
            self._norms_now = False
        for name in self._plan.instruments_of(unit):
            code = self._store.series(name, "")
            self._store.rows(self.step, [code], [float("nan")], None, None, [status])

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Nothing is seen or spent inside: the hooks are away, the budget's clock stands still."""
        self._detach()
        self._norms_now = self._activations_now = False
        try:
            yield
        finally:
            if not self._closed:
                self._attachment = Attachment(self)
                self._loss_used = True
                self._plan_at = self.step
                self._step_end = _clock()
                self._spent_at_end = self._budget.spent_s

    def abandon(self) -> None:
        """In a forked child: lets go of everything without touching a file of the parent."""
        self._closed = True
        self._detach()
        _live.discard(self)

    def _detach(self) -> None:
        self._attachment.close()
        if self._discovery is not None:
            self._discovery.close()
        if self._activations is not None:
            self._activations.close()
        if self._tape is not None:
            self._tape.close()
            self._tape = None

    def close(self, status: str = "closed") -> None:
        """Ends the recording: last rows, last snapshot, header.

        Args:
            status: ``closed``, ``failed`` or ``interrupted``.
        """
        if self._closed:
            return
        self._closed = True
        self._detach()
        _live.discard(self)
        self._watchdog.stop()
        if self._evaluation.batches or self._doubtful.batches:
            self._guarded("val_loss", self._write_validation)
        if self._tracked and self._snapshots.latest != self.step:
            self._guarded("snapshots", self._write_snapshot)
        self._guarded("scalars", self._scalars.drain, True)
        self._guarded("sketches", self._sketches.close)
        self._store.close(status, last_step=self.step, overhead=self._budget.report())

    @property
    def optimizers_seen(self) -> int:
        """How many optimizers have stepped."""
        return len(self._tracked)

    @property
    def achieved_overhead(self) -> float:
        """Recording time over bare time, so far."""
        return self._budget.achieved


def _status(reading: Reading) -> str:
    bad = reading.status == "ok" and not math.isfinite(reading.value)
    return "nonfinite" if bad else reading.status
