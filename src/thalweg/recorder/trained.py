"""What is being trained: the models and optimizers that a recording has met so far."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torch.optim.optimizer import Optimizer

from thalweg.recorder.discovery import (
    Discovery,
    describe_model,
    labels,
    parameter_names,
    unwrapped,
)
from thalweg.recorder.plan import Plan
from thalweg.recorder.store import Store
from thalweg.recorder.tracked import Tracked

__all__ = ["Trained"]


class Trained:
    """Models and optimizers under observation.

    Args:
        store: gets their description.
        plan: which instruments.
        models: the models, if known; otherwise they are found.
        optimizers: only these, if given; otherwise all that step.

    Attributes:
        models: outermost modules whose parameters are trained.
        roots: those among the models, or inside them, that the script calls.
        optimizers: by ``id``, those that are recorded, in the order of their first steps.
        ignored: ``id`` of those that are not.
        sharded: whether any weight is a DTensor.
    """

    def __init__(
        self,
        store: Store,
        plan: Plan,
        *,
        models: Sequence[nn.Module] = (),
        optimizers: Sequence[Optimizer] = (),
    ) -> None:
        self.models = [unwrapped(m) for m in models]
        self.roots: list[nn.Module] = []
        self.optimizers: dict[int, Tracked] = {}
        self.ignored: set[int] = set()
        self.sharded = False
        self._store, self._plan = store, plan
        self._only = {id(o) for o in optimizers}
        self._discovery: Discovery | None = Discovery()

    @property
    def discovering(self) -> bool:
        """Whether models are still being looked for."""
        return self._discovery is not None

    def meet(self, optimizer: Optimizer, *, in_step: bool) -> Tracked | None:
        """The first step of an optimizer: finds its model, names its parameters.

        Args:
            optimizer: that is about to step.
            in_step: whether another one is in the midst of its own step.

        Returns:
            What is kept of it; None if it is not to be recorded.
        """
        params = [p for g in optimizer.param_groups for p in g["params"]]
        known = {id(p) for t in self.optimizers.values() for p in t.params}
        # Not ours, or one that a wrapper (SAM, Lookahead, ZeRO) steps inside its own step.
        inner = bool(known) and in_step and known.issuperset(map(id, params))
        if inner or (self._only and id(optimizer) not in self._only):
            self.ignored.add(id(optimizer))
            return None
        if self._discovery is not None:
            found = self._discovery.models(params)
            self.roots += [m for m in found if all(m is not seen for seen in self.roots)]
            inside = {id(m) for model in self.models for m in model.modules()}
            self.models += [m for m in self.roots if id(m) not in inside]
        names = parameter_names(self.models, params)
        tracked = Tracked(optimizer, len(self.optimizers), names, self._store, self._plan)
        self.optimizers[id(optimizer)] = tracked
        self.sharded = self.sharded or tracked.sharded
        return tracked

    def follow(self, tracked: Tracked) -> None:
        """Notices param groups that were added or removed since the last look."""
        if not tracked.reshaped():
            return
        params = [p for g in tracked.optimizer.param_groups for p in g["params"]]
        tracked.rebuild(parameter_names(self.models, params))
        tracked.remember_weights()
        self._store.event("param groups changed", self._store.step, optimizer=tracked.label)
        self._store.describe(optimizers=[t.describe() for t in self.optimizers.values()])

    def describe(self) -> None:
        """Writes models and optimizers into the header."""
        self._store.describe(
            optimizers=[t.describe() for t in self.optimizers.values()],
            models=[
                describe_model(m, label)
                for m, label in zip(self.models, labels(self.models), strict=True)
            ],
        )

    def stop_discovery(self) -> None:
        """Models that run for the first time from here on are not looked for."""
        if self._discovery is not None:
            self._discovery.close()
            self._discovery = None

    def pause_discovery(self) -> None:
        """Takes the hooks away that look for models."""
        if self._discovery is not None:
            self._discovery.close()

    def outside_optimizers(self) -> list[dict[str, Any]]:
        """Trainable parameters that no optimizer holds, and whether they get gradients."""
        held = {id(p) for t in self.optimizers.values() for p in t.params}
        params = [p for m in self.models for p in m.parameters()]
        left = [p for p in params if p.requires_grad and id(p) not in held]
        names = parameter_names(self.models, left)
        return [
            {"name": name, "gradient": p.grad is not None}
            for name, p in zip(names, left, strict=True)
        ]

    def tensors(self) -> dict[str, Tensor]:
        """Parameters and buffers by name, what no model owns included: a snapshot's content."""
        tensors: dict[str, Tensor] = {}
        for model, label in zip(self.models, labels(self.models), strict=True):
            for name, t in model.state_dict(keep_vars=True).items():
                if isinstance(t, Tensor):
                    tensors[f"{label}.{name}" if label else name] = t
        held = {id(t) for t in tensors.values()}
        for tracked in self.optimizers.values():
            for name, p in zip(tracked.names, tracked.params, strict=True):
                if id(p) not in held:
                    tensors.setdefault(name, p)
        return tensors
