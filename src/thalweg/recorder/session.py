"""The recorder of one process: hears of every step, measures what the budget allows, writes it.

A step passes ``after_backward`` → ``before_step`` → ``after_step``. Between records each costs a
few microseconds. After each step the budget decides what the next one will be measured for; the
hooks, modes and copies that this needs exist only during that step. Nothing here changes a weight,
a gradient, a buffer or the random state, and nothing here may raise into the training.

What is trained, what is captured of a step, which probes run and when weights are kept are files of
their own: ``trained``, ``captures``, ``probing``, ``kept_weights``.
"""

from __future__ import annotations

import os
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.optim.optimizer import Optimizer

from thalweg.errors import ThalwegError
from thalweg.recorder.attach import Attachment
from thalweg.recorder.budget import Budget
from thalweg.recorder.captures import Captures
from thalweg.recorder.first_gradient import FirstGradient
from thalweg.recorder.followed_laws import FollowedLaws
from thalweg.recorder.guard import Guard
from thalweg.recorder.kept_steps import KeptSteps
from thalweg.recorder.kept_weights import KeptWeights
from thalweg.recorder.micro_batches import MicroBatches
from thalweg.recorder.plan import Plan
from thalweg.recorder.probing import Probing
from thalweg.recorder.ranks import largest_of_ranks
from thalweg.recorder.scalars import Scalars
from thalweg.recorder.step_closure import step_closure, watch_first_call
from thalweg.recorder.step_loss import StepLoss
from thalweg.recorder.store import FLUSH_S, Store
from thalweg.recorder.tracked import Tracked
from thalweg.recorder.trained import Trained
from thalweg.recorder.validation import Validation
from thalweg.recorder.watchdog import Watchdog

__all__ = ["Session"]

PLAN_S = 4e-3  # how often the budget is looked at, at most
NAN = float("nan")
SKIPPED = "skipped:non-finite gradients, the gradient scaler took no step"

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
        blackbox_mb: what the black box may hold; 0: none; None: the default, if it is affordable.
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
        blackbox_mb: float | None = None,
    ) -> None:
        if _live:
            raise ThalwegError(
                "this process is being recorded already: close that recording first. A script run "
                "by `thalweg record` needs no thalweg.record of its own"
            )
        self._store, self._plan = store, plan
        self._wants_loss, self._wants_lr = plan.wants("loss"), plan.wants("lr")
        self._budget = Budget(overhead)
        for unit, cost in plan.units().items():
            self._budget.add(unit, cost=cost)
        self._guard = Guard(store, self._budget, plan)
        self._trained = Trained(store, plan, models=models, optimizers=optimizers)
        self._tracked = self._trained.optimizers
        self._scalars = Scalars(store)
        self._weights = KeptWeights(
            store, self._trained, self._budget, self._guard, cap_bytes=snapshot_bytes
        )
        self._steps = KeptSteps(
            store, self._trained, self._budget, self._guard, megabytes=blackbox_mb
        )
        self._scalars.heard = self._steps.heard
        paid = self._budget, self._guard, self._trained
        self._captures = Captures(store, self._scalars, plan, *paid)
        self._probing = Probing(store, plan, *paid, self._captures, fixed_loss=probe_loss)
        self._validation = Validation(store, self._trained.models)
        self._micro_batches = MicroBatches(store, self._scalars, plan)
        self._laws = FollowedLaws(store, plan, self._budget, self._trained)

        # What the step now under way is measured for.
        self._planned = self._plan_at = self.step
        self._norms_now = False
        self._norms_s = 0.0
        self._next_record = 0  # with sharded weights: the step that all ranks agreed on
        self._tape_wanted = True

        self._loss = StepLoss()
        self._first_gradient = FirstGradient()
        self._in_step = False

        self._step_end = _clock()
        self._spent_at_end = 0.0
        self._closed = False
        self._attachment = Attachment(self)
        self._watchdog = Watchdog(store)
        _live.add(self)

    @property
    def step(self) -> int:
        """Number of the last step, over all segments.

        A step that a gradient scaler skips counts; with several optimizers, a new step begins when
        one of them steps again.
        """
        return self._store.step

    @property
    def optimizers_seen(self) -> int:
        """How many optimizers have stepped."""
        return len(self._tracked)

    @property
    def achieved_overhead(self) -> float:
        """Recording time over bare time, so far."""
        return self._budget.achieved

    # -- what the attachment tells -------------------------------------------------------------

    def after_zero_grad(self) -> None:
        """Backward passes before this do not count for the next step."""
        self._first_gradient.cleared()
        if self._in_step:
            return  # a closure clears them between its evaluations
        self._loss.used = True
        self._captures.forget()
        self._micro_batches.cleared()

    def after_scale(self, scaled: Tensor, scale: Tensor) -> None:
        """A gradient scaler multiplied a loss."""
        self._loss.scaled(scaled, scale)

    def after_accumulation(self, loss: Tensor) -> None:
        """An ``AccumulationContext`` rescaled what has accumulated: the step follows ``loss``."""
        start = _clock()
        factor = self._loss.accumulated(loss)
        if factor is not None:
            self._captures.rescale(factor)
            if self._norms_now and not self._in_step:
                self._guard.run("norms", self._read_preclip, self._loss.divided)
        self._budget.common_s += _clock() - start

    def after_backward(self, roots: Any, gradients: Any) -> None:
        """Adds the root to the loss of this step; reads gradients before anyone clips them."""
        start = _clock()
        self._steps.backward(roots)
        if self._in_step and not self._loss.used:
            return  # a closure evaluated again inside one step (LBFGS): its first loss counts
        root, scale = self._loss.backward(roots, gradients)
        if self._validation.waiting:
            self._validation.backward()
        if self._captures.taping:
            start += self._captures.backward(root, scale)
        if self._norms_now and not self._in_step:
            if self._micro_batches.wanted:
                self._guard.run("micro-batches", self._micro_batches.backward, root, scale)
            self._guard.run("norms", self._read_preclip, scale)
            self._norms_s += _clock() - start
        else:
            self._budget.common_s += _clock() - start

    def before_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> Any:
        """Reads what must be read before the weights move."""
        tracked = self._tracked.get(id(optimizer))
        self._steps.before_step()
        closure = step_closure(args, kwargs)
        if tracked is not None and closure is None and not self._norms_now:
            self._in_step = True
            return None
        if id(optimizer) in self._trained.ignored:
            return None
        if closure is None:
            self._begin_step(optimizer)
            return None
        # Loss and gradients of this step come to be inside it, and so does, at the very first one,
        # the model's first call.
        self._in_step = self._loss.used = True
        if tracked is not None and not self._norms_now:
            return None
        return watch_first_call(args, kwargs, lambda: self._begin_step(optimizer))

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
        tracked = self._tracked.get(id(optimizer)) or self._introduce(optimizer)
        if tracked is not None and tracked.count == before and not self._closed:
            self._finish(tracked, stepped=False)
        return out

    def loss_computed(
        self, name: str, loss: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        """Keeps a loss computed without gradients, or by a model in eval mode, as validation.

        In a step that is measured, those computed with gradients may be of micro-batches.
        """
        if self._probing.running:
            return
        if self._plan.wants("val_loss"):
            self._validation.add(loss, args)
        if self._norms_now and not self._in_step and self._micro_batches.wanted:
            start, watch = _clock(), self._micro_batches.computed
            self._guard.run("micro-batches", watch, name, loss, args, kwargs)
            self._norms_s += _clock() - start

    # -- one step ------------------------------------------------------------------------------

    def _introduce(self, optimizer: Optimizer) -> Tracked | None:
        """Meets an optimizer. Done once, however long the training: no part of a step's price."""
        if id(optimizer) in self._trained.ignored:
            return None
        start = _clock()
        tracked = self._guard.run("discovery", self._meet, optimizer)
        self._budget.setup_s += _clock() - start
        return tracked

    def _meet(self, optimizer: Optimizer) -> Tracked | None:
        models = len(self._trained.models)
        tracked = self._trained.meet(optimizer, in_step=self._in_step)
        if tracked is None:
            return None
        if len(self._trained.models) != models:
            self._captures.models_changed()
        self._weights.start(tracked)
        if len(self._tracked) == 1:
            self._norms_now = self._plan.norms  # the very first step is measured
            self._weights.write_snapshot()
            if not self._trained.models:
                self._store.event(
                    "unsupported",
                    self.step,
                    message="no module that owns the optimizer's parameters was seen running: "
                    "no activations, no loss closure, parameters named param0, param1, …",
                )
        self._trained.describe()
        return tracked

    def _begin_step(self, optimizer: Optimizer) -> None:
        """Reads what a step starts from: final gradients, weights."""
        tracked = self._tracked.get(id(optimizer)) or self._introduce(optimizer)
        if tracked is None:
            return
        self._in_step = True
        start = _clock()
        if self._norms_now:
            self._guard.run("norms", tracked.remember_weights)
            self._guard.run("norms", self._read_gradients, tracked)
            self._norms_s += _clock() - start
        else:
            self._budget.common_s += _clock() - start

    def _read_preclip(self, scale: Tensor | None) -> None:
        if self._plan.wants("grad_norm_preclip"):
            for tracked in self._tracked.values():
                tracked.read_preclip(scale)

    def _read_gradients(self, tracked: Tracked) -> None:
        self._trained.follow(tracked)
        tracked.read_gradients()

    def _finish(self, tracked: Tracked, *, stepped: bool) -> None:
        """One optimizer has stepped, or was kept from it by a gradient scaler."""
        start = _clock()
        store = self._store
        self._in_step = False
        tracked.count += 1
        leads = tracked.count > store.step - store.first_step
        if self._validation.waiting:
            self._validation.write()
        if leads:
            store.step += 1
            if store.step == store.first_step + 1:
                self._first_gradient.take(tracked.params)
        at = start - store.start
        # Optimizers that share one backward each get its loss; none gets the same one twice.
        loss = self._loss
        if loss.value is not None and tracked.backwards != loss.backwards:
            tracked.backwards = loss.backwards
            if self._wants_loss:
                self._scalars.add_one(store.step, at, tracked.loss_codes, loss.value)
        loss.used = True
        if self._wants_lr and tracked.learning_rates_changed():
            for code, value in tracked.learning_rate_rows():
                store.rows(store.step, [code], [value], at)
        if not stepped or (self._norms_now and tracked.skipped_inside()):
            self._write_skipped(tracked, at)
        elif self._norms_now:
            now = _clock()
            self._guard.run("norms", self._send_norms, tracked, at)
            if leads:
                self._guard.run("micro-batches", self._micro_batches.write, store.step, at)
            seconds, self._norms_s = self._norms_s + _clock() - now, 0.0
            self._budget.charge("norms", seconds)
            start += _clock() - now
        self._micro_batches.forget()
        self._budget.common_s += _clock() - start
        if stepped and self._laws.wanted:
            self._guard.run("laws", self._laws.stepped, tracked)
        self._steps.stepped(tracked, stepped=stepped)
        if leads and store.step >= self._plan_at:
            self._between_steps(at)
        self._steps.write_due(tracked, self._attachment.scaler)

    def _send_norms(self, tracked: Tracked, at: float) -> None:
        self._scalars.add_record(self.step, at, tracked.finish(), tracked.codes)

    def _write_skipped(self, tracked: Tracked, at: float) -> None:
        """A gradient scaler took no step: rows and an event say so."""
        tracked.forget()
        codes = [c[0] for name, c in tracked.codes.items() if name != "weight_norm"]
        n = len(codes)
        self._store.rows(self.step, codes, [NAN] * n, at, None, [SKIPPED] * n)
        scale = None if self._loss.scale is None else float(self._loss.scale)
        self._store.event("skipped step", self.step, why=SKIPPED, loss_scale=scale)

    # -- between two steps ---------------------------------------------------------------------

    def _between_steps(self, at: float) -> None:
        """Closes the captures of the step that ended and plans the next."""
        budget, settled = self._budget, self.step - self._store.first_step >= 2
        bare = _clock() - self._step_end - (budget.spent_s - self._spent_at_end)
        budget.pass_steps(bare, self.step - self._planned)
        self._captures.end_activations(at)
        self._captures.end_tape()
        self._probing.run_due(at)
        if settled and self._trained.discovering:
            self._trained.stop_discovery()
            kept = self._first_gradient.lived_on()
            self._store.describe(
                outside_optimizers=self._trained.outside_optimizers(), gradients_kept=kept
            )
            self._steps.begin(gradients_kept=kept)
            if self._laws.wanted:
                self._find_laws()
        self._weights.write_due(at)
        if settled and self._laws.wanted and budget.affords("laws"):
            self._guard.timed("laws", self._laws.write, at)
        self._steps.plan()
        start = _clock()
        self._norms_now = self._record_next() if self._trained.sharded else budget.affords("norms")
        if self._trained.models and budget.affords("activations"):
            self._captures.watch_activations()
        if settled and self._trained.roots:
            if self._tape_wanted:
                self._tape_wanted = False
                why = self._captures.start_tape()
                if why is not None:
                    self._probing.give_up(why)
            if self._plan.probes and self._probing.plan_next(at):
                self._norms_now = True
        if self._scalars.waiting:
            self._guard.run("scalars", self._scalars.drain)
        if start - self._store.flushed > FLUSH_S:
            self._store.flush()
        self._planned, self._plan_at = self.step, self.step + self._steps_to_pass()
        self._step_end = _clock()
        budget.common_s += self._step_end - start
        self._spent_at_end = budget.spent_s

    def _find_laws(self) -> None:
        """Once: the model's forward is followed on a copy, with nothing of ours listening."""
        start = _clock()
        with self.paused():
            self._guard.run("laws", self._laws.start)
        self._budget.setup_s += _clock() - start

    def _steps_to_pass(self) -> int:
        """Steps until the next look at the budget: one, unless steps are short and none is due."""
        captures, trained = self._captures, self._trained
        busy = self._norms_now or captures.watching or captures.taping or self._probing.due
        if busy or trained.sharded or trained.discovering or not self._budget.step_s > 0:
            return 1
        return max(1, min(64, int(PLAN_S / self._budget.step_s)))

    def _record_next(self) -> bool:
        if not self._plan.norms or "norms" in self._guard.broken:
            return False
        # Norms of sharded weights are collective: every rank must take them on the same step, so
        # the next one is agreed on at each record and no rank measures in between.
        if self.step >= self._next_record:
            self._next_record = self.step + largest_of_ranks(self._budget.steps_until("norms"))
        return self.step + 1 >= self._next_record

    # -- pause and end -------------------------------------------------------------------------

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Nothing is seen or spent inside: the hooks are away, the budget's clock stands still."""
        self._detach()
        self._laws.missed("recording was paused")
        self._norms_now, self._probing.due = False, []
        self._micro_batches.forget()
        try:
            yield
        finally:
            if not self._closed:
                self._attachment = Attachment(self)
                self._steps.resume()
                self._loss.used = True
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
        self._trained.pause_discovery()
        self._captures.drop()
        self._steps.pause()

    def failed(self, error: BaseException) -> None:
        """The training ended by an exception: notes it, and has the last steps kept."""
        self._store.event("exception", self.step, error=f"{type(error).__name__}: {error}")
        if isinstance(error, Exception):
            self._guard.run("scalars", self._scalars.drain, True)
            self._steps.failed(error)

    def _say_what_never_ran(self) -> None:
        """A series that was asked for is there, and says why it is empty."""
        names = [n for unit in self._budget.never_ran() for n in self._plan.instruments_of(unit)]
        if not names:
            return
        for unit in self._budget.never_ran():
            self._guard.end(unit, "skipped:budget")
        self._store.event(
            "skipped",
            self.step,
            message=f"{', '.join(names)} never fitted {self._budget.fraction:.0%} of the time of "
            f"{self.step - self._store.first_step} steps: raise --overhead, or train longer",
        )

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
        if self._validation.waiting:
            self._guard.run("val_loss", self._validation.write)
        self._guard.run("scalars", self._scalars.drain, True)
        if self._tracked:
            if self._laws.wanted:
                self._guard.run("laws", self._laws.write, _clock() - self._store.start)
            self._say_what_never_ran()
        self._steps.close()
        self._weights.close()
        self._store.close(status, last_step=self.step, overhead=self._budget.report())
