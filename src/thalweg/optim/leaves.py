"""Variables that are nests of tensors, and losses of them.

Source: the nests of ``torch.utils._pytree``, as ``torch.func`` takes them (PyTorch 2, 2023).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree

__all__ = ["Leaves", "filled", "flat", "scalar"]


class Leaves:
    """The tensors of a nest, detached and sharing memory with it, and how to build it again.

    Args:
        tree: a tensor, or a nest of dicts, lists and tuples.
        name: for errors.

    Raises:
        TypeError: for a leaf that is no real floating tensor, or is sharded.
        ValueError: for a nest without a leaf.
    """

    def __init__(self, tree: Any, name: str) -> None:
        tensors, self._spec = _pytree.tree_flatten(tree)
        for leaf in tensors:
            if not isinstance(leaf, Tensor) or not leaf.is_floating_point():
                got = leaf.dtype if isinstance(leaf, Tensor) else type(leaf).__name__
                raise TypeError(f"{name} must consist of real floating tensors, got {got}")
            if hasattr(leaf, "device_mesh"):
                raise TypeError(f"{name} holds a sharded tensor; keep both variables whole")
        if not tensors:
            raise ValueError(f"{name} must hold a tensor, got an empty nest")
        self.tensors: list[Tensor] = [t.detach() for t in tensors]

    def tracked(self) -> list[Tensor]:
        """The same tensors as new leaves that require grad."""
        return [t.detach().requires_grad_() for t in self.tensors]

    def build(self, tensors: Sequence[Tensor]) -> Any:
        """A nest of this form."""
        return _pytree.tree_unflatten(list(tensors), self._spec)


def flat(tensors: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
    """One vector of them all."""
    return torch.cat([t.reshape(-1).to(dtype) for t in tensors])


def filled(grads: Sequence[Tensor | None], like: Sequence[Tensor]) -> list[Tensor]:
    """Gradients with zeros where there are none."""
    return [torch.zeros_like(t) if g is None else g for g, t in zip(grads, like, strict=True)]


def scalar(loss: Any, name: str) -> Tensor:
    """The loss as a 0-d tensor.

    Raises:
        ValueError: if it is no scalar that autograd can differentiate.
    """
    if not isinstance(loss, Tensor) or loss.numel() != 1 or not loss.requires_grad:
        got = tuple(loss.shape) if isinstance(loss, Tensor) else type(loss).__name__
        raise ValueError(
            f"{name} must return a scalar that is computed with gradients from x or y, got {got}"
        )
    return loss.reshape(())
