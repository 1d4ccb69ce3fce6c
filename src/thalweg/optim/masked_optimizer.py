"""Training a part of the weights only: a mask in front of any optimizer.

Masked gradients alone leak: weight decay and momentum move what has no gradient. Here the gradient
is masked before the step, and what the mask leaves out is put back after it, bit for bit.

Source: Yu, Liu, Hu, Ma, Jiang, Ye 2026, arXiv 2606.13657 (subnetwork training).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["MaskedOptimizer"]


class MaskedOptimizer(torch.optim.Optimizer):
    """Steps of an optimizer on the entries that a mask names.

    Parameters without a mask are trained whole. Groups, state and learning rates are those of the
    optimizer within; schedulers take either. Masks are not part of ``state_dict``.

    Args:
        optimizer: any.
        masks: parameter → mask, or name → mask: bool, the shape of the parameter, True where it is
            trained. Names need ``model``, or an optimizer that was given ``named_parameters()``.
        model: that the names are of.

    Attributes:
        optimizer: the one within.

    Raises:
        TypeError: if a mask is not bool.
        ValueError: if a mask has another shape or belongs to no parameter of the optimizer, or a
            sharded parameter has a plain mask.

    Cost: a copy of the masked parameters during the step.

    Source: arXiv 2606.13657; entry opd-geometry.

    Example:
        >>> p = nn.Parameter(torch.ones(2))
        >>> sgd = torch.optim.SGD([p], lr=0.5, weight_decay=1.0)
        >>> masked = MaskedOptimizer(sgd, {p: torch.tensor([True, False])})
        >>> p.grad = torch.zeros(2)
        >>> masked.step()
        >>> p.data
        tensor([0.5000, 1.0000])
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        masks: Mapping[Any, Tensor],
        *,
        model: nn.Module | None = None,
    ) -> None:
        self.optimizer: torch.optim.Optimizer | None = None
        super().__init__(optimizer.param_groups, optimizer.defaults)
        self.optimizer = optimizer
        self._share()
        self._left_out = _left_out(optimizer, masks, model)

    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """One step of the optimizer within.

        Args:
            closure: computes the loss and its gradients.
        """
        assert self.optimizer is not None

        def masked_closure() -> Any:
            assert closure is not None
            with torch.enable_grad():
                loss = closure()
            self._mask_gradients()
            return loss

        with torch.no_grad():
            before = {p: p.clone() for p in self._left_out if p.requires_grad}
            if closure is None:
                self._mask_gradients()
                loss = self.optimizer.step()
            else:
                loss = self.optimizer.step(masked_closure)
            for p, old in before.items():
                p.copy_(torch.where(self._left_out[p], old, p))
        return loss

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """A group of further parameters, trained whole.

        Args:
            param_group: as of the optimizer within.
        """
        if self.optimizer is None:  # while this is made
            super().add_param_group(param_group)
        else:
            self.optimizer.add_param_group(param_group)

    def state_dict(self) -> dict[str, Any]:
        """That of the optimizer within."""
        assert self.optimizer is not None
        return self.optimizer.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a state of the optimizer within.

        Args:
            state_dict: of it.
        """
        assert self.optimizer is not None
        self.optimizer.load_state_dict(state_dict)
        self._share()

    def _share(self) -> None:
        assert self.optimizer is not None
        self.param_groups = self.optimizer.param_groups
        self.state = self.optimizer.state
        self.defaults = self.optimizer.defaults

    def _mask_gradients(self) -> None:
        with torch.no_grad():
            for p, out in self._left_out.items():
                if p.grad is not None:
                    p.grad.masked_fill_(out, 0)  # not a product: it would keep nan


def _left_out(
    optimizer: torch.optim.Optimizer, masks: Mapping[Any, Tensor], model: nn.Module | None
) -> dict[Tensor, Tensor]:
    """Parameter → what its mask leaves out; checked."""
    named: dict[str, Tensor] = dict(model.named_parameters()) if model is not None else {}
    trained: set[int] = set()
    for group in optimizer.param_groups:
        named |= dict(zip(group.get("param_names", ()), group["params"], strict=False))
        trained |= {id(p) for p in group["params"]}
    found: dict[Tensor, Tensor] = {}
    for key, mask in masks.items():
        p = named.get(key) if isinstance(key, str) else key
        label = repr(key) if isinstance(key, str) else f"a parameter of shape {tuple(key.shape)}"
        if p is None or id(p) not in trained:
            raise ValueError(
                f"MaskedOptimizer: {label} is no parameter of the optimizer; masks by name need "
                "model=, or an optimizer of named_parameters()"
            )
        if mask.dtype != torch.bool:
            raise TypeError(f"MaskedOptimizer: the mask of {label} is {mask.dtype}, not bool")
        if mask.shape != p.shape:
            raise ValueError(
                f"MaskedOptimizer: the mask of {label} has shape {tuple(mask.shape)}, the "
                f"parameter {tuple(p.shape)}"
            )
        if hasattr(p, "device_mesh") and not hasattr(mask, "device_mesh"):
            raise ValueError(
                f"MaskedOptimizer: {label} is sharded (DTensor) and its mask is not; distribute "
                "the mask with the parameter's mesh and placements"
            )
        found[p] = ~mask.to(p.device)
    return found
