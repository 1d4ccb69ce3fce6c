"""One optimizer under observation: its parameters, their names, and the norms of one step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer

from thalweg.instruments import grad_norm
from thalweg.numerics import norms
from thalweg.recorder.plan import Plan
from thalweg.recorder.store import Store

__all__ = ["Tracked"]

NORMS = (
    "grad_norm",
    "grad_norm_preclip",
    "weight_norm",
    "update_norm",
    "update_ratio",
    "distance_from_init",
)


class Tracked:
    """What the recorder keeps per optimizer.

    Beyond the model it holds two copies of the weights: the first ones (for the distance from
    initialisation) and those before the step being measured.

    Args:
        optimizer: the optimizer.
        index: 0 for the first that stepped.
        names: of its parameters, in the order of its param groups.
        store: gives series their codes.
        plan: which norms are wanted.

    Attributes:
        label: leads the part of its whole-model figures: "" for the first optimizer,
            ``optimizer1`` for the second…
        count: steps taken (or skipped by a gradient scaler) in this segment.
        backwards: number of the backward pass whose loss it was last credited with.
        keep_update: asks ``finish`` to leave the update of the step in ``update``.
        update: θ_t − θ_{t−1} of the step just measured, if it was asked for.
        sharded: whether any parameter is a DTensor.
    """

    def __init__(
        self, optimizer: Optimizer, index: int, names: Sequence[str], store: Store, plan: Plan
    ) -> None:
        self.optimizer = optimizer
        self.label = f"optimizer{index}" if index else ""
        self.count = 0
        self.backwards = 0
        self.keep_update = False
        self.update: list[Tensor] | None = None
        self._found_inf: Tensor | None = None
        self._store, self._plan = store, plan
        self._learning_rates: list[Any] = []
        self.loss_codes = [store.series("loss", self.label)]
        self.rebuild(names)

    def rebuild(self, names: Sequence[str]) -> None:
        """Takes the param groups as they are now; distances start anew for new parameters."""
        earlier = dict(zip(self.names, self._init, strict=True)) if hasattr(self, "names") else {}
        groups = self.optimizer.param_groups
        self.params: list[Tensor] = [p for g in groups for p in g["params"]]
        self.names = list(names)
        self.sharded = any(hasattr(p, "device_mesh") for p in self.params)
        self._shape = [len(g["params"]) for g in groups]
        self.codes = {
            name: [self._store.series(name, part) for part in (self.label, *self.names)]
            for name in NORMS
            if self._plan.wants(name)
        }
        self._blocks: dict[str, Tensor] = {}
        self._before: list[Tensor] | None = None
        self._init: list[Tensor] = []
        if self._plan.wants("distance_from_init"):
            self._init = [
                earlier[n] if n in earlier else p.clone()
                for n, p in zip(self.names, self._local(), strict=True)
            ]

    def reshaped(self) -> bool:
        """Whether param groups were added or removed."""
        return [len(g["params"]) for g in self.optimizer.param_groups] != self._shape

    def _local(self) -> list[Tensor]:
        """The parameters, detached, on this rank; complex ones as pairs of reals."""
        out = []
        for p in self.params:
            p = p.detach()
            if hasattr(p, "to_local"):
                p = p.to_local()  # pyright: ignore[reportCallIssue, reportAttributeAccessIssue]
            out.append(torch.view_as_real(p) if p.is_complex() else p)
        return out

    # -- the norms of one step, in order -------------------------------------------------------

    def remember_weights(self) -> None:
        """Copies the weights as they are before the step."""
        if not ({"update_norm", "update_ratio"} & self.codes.keys() or self.keep_update):
            return
        local = self._local()
        if self._before is None:
            self._before = [torch.empty_like(p) for p in local]
        torch._foreach_copy_(self._before, local)
        if "update_ratio" in self.codes:
            self._blocks["weights before"] = norms(self._before, like=self.params).each

    def read_preclip(self, scale: Tensor | None) -> None:
        """Reads gradients as backward left them. The last call before the step counts."""
        each = grad_norm(self.params).each
        self._blocks["grad_norm_preclip"] = each if scale is None else each / scale.to(each)

    def read_gradients(self) -> None:
        """Reads gradients as the step will use them: accumulated, unscaled, clipped."""
        self._found_inf = getattr(self.optimizer, "found_inf", None)
        if "grad_norm" not in self.codes:
            return
        each = grad_norm(self.params).each
        # A fused optimizer divides by the loss scale inside its step.
        scale = getattr(self.optimizer, "grad_scale", None)
        self._blocks["grad_norm"] = each if scale is None else each / scale.to(each)

    def finish(self) -> dict[str, Tensor]:
        """Reads what the step did; returns the norm of each tensor, (n,), per instrument."""
        blocks, self._blocks = self._blocks, {}
        wanted = self.codes.keys()
        local = self._local()
        if "weight_norm" in wanted:
            blocks["weight_norm"] = norms(local, like=self.params).each
        if self._before is not None:
            # In place on the copy: no third copy of the weights.
            torch._foreach_sub_(self._before, local)
            blocks["update_norm"] = norms(self._before, like=self.params).each
            if self.keep_update:
                self.update, self.keep_update = [-moved for moved in self._before], False
        if "distance_from_init" in wanted:
            if self._before is None:
                self._before = [torch.empty_like(p) for p in local]
            torch._foreach_copy_(self._before, local)
            torch._foreach_sub_(self._before, self._init)
            blocks["distance_from_init"] = norms(self._before, like=self.params).each
            if not {"update_norm", "update_ratio"} & wanted:
                self._before = None
        return blocks

    def forget(self) -> None:
        """Drops what was read of a step that was skipped."""
        self._blocks = {}

    def skipped_inside(self) -> bool:
        """Whether a fused optimizer left the weights alone because gradients were not finite."""
        found, self._found_inf = self._found_inf, None
        return found is not None and bool(found)

    # -- learning rates, groups, description ---------------------------------------------------

    def learning_rates_changed(self) -> bool:
        """Whether any learning rate is not what it last was."""
        # One kept in a tensor is compared by value, which waits for its device.
        return self._learning_rates != [g.get("lr") for g in self.optimizer.param_groups]

    def learning_rate_rows(self) -> list[tuple[int, float]]:
        """Series and value of every learning rate that is not what it last was."""
        rates = [g.get("lr") for g in self.optimizer.param_groups]
        numbers = [float(lr) if isinstance(lr, Tensor) else lr for lr in rates]
        before = self._learning_rates + [None] * len(numbers)
        self._learning_rates = numbers
        return [
            (self._store.series("lr", self._group_part(i)), float(lr))
            for i, lr in enumerate(numbers)
            if lr is not None and before[i] != lr
        ]

    def groups(self) -> list[tuple[str, list[Tensor]]]:
        """Part and parameters of each param group."""
        return [
            (self._group_part(i), g["params"])
            for i, g in enumerate(self.optimizer.param_groups)
            if g["params"]
        ]

    def _group_part(self, i: int) -> str:
        if i == 0:
            return self.label
        return f"{self.label}.group{i}" if self.label else f"group{i}"

    def describe(self) -> dict[str, Any]:
        """For the header."""
        names = iter(self.names)
        return {
            "part": self.label,
            "class": type(self.optimizer).__name__,
            "groups": [
                {
                    "part": self._group_part(i),
                    "params": [next(names) for _ in g["params"]],
                    **{k: v for k, v in g.items() if k != "params"},
                }
                for i, g in enumerate(self.optimizer.param_groups)
            ],
        }
