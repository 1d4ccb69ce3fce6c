"""Weight and update norms: how large the weights are, how far one step and all steps moved them.

All take lists of tensors in matching order and return the norm of the whole and of each tensor
without a device sync. Axes: `n` tensors in the list.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from thalweg.instruments.instrument import instrument
from thalweg.numerics import Norms, norms

__all__ = ["distance_from_init", "update_norm", "update_ratio", "weight_norm"]


@instrument("params")
def weight_norm(params: Iterable[Tensor]) -> Norms:
    """L2 norm of the weights, whole and per tensor.

    Args:
        params: the weights, any shapes.

    Returns:
        Norms; nan or inf if a weight is.

    Example:
        >>> import torch
        >>> weight_norm([torch.ones(4), torch.zeros(2)]).each
        tensor([2., 0.])
    """
    return norms(p.detach() for p in params)


@instrument("update")
def update_norm(params: Sequence[Tensor], before: Sequence[Tensor]) -> Norms:
    """L2 norm of the last update θ_t − θ_{t−1}, whole and per tensor.

    It is the step that the optimizer really took: momentum, adaptive scaling, weight decay and
    clipping included. A tensor that the optimizer holds but never moves reads exactly 0.

    Args:
        params: the weights after the step.
        before: the weights before it, same order and shapes.

    Raises:
        ValueError: if the two lists do not match.

    Example:
        >>> import torch
        >>> update_norm([torch.tensor([1.0, 1.0])], [torch.tensor([1.0, 3.0])]).total
        tensor(2.)
    """
    return norms(_difference(params, before, "update_norm"))


@instrument("update")
def update_ratio(params: Sequence[Tensor], before: Sequence[Tensor]) -> Norms:
    """Size of the last update relative to the weights, ‖θ_t − θ_{t−1}‖ / ‖θ_{t−1}‖.

    Around 1e-3 is usual for a healthy step of Adam; a tensor far below its siblings starves, far
    above it dominates. A tensor that was zero before its update reads inf (0/0 reads nan).

    Args:
        params: the weights after the step.
        before: the weights before it, same order and shapes.

    Raises:
        ValueError: if the two lists do not match.

    Example:
        >>> import torch
        >>> update_ratio([torch.tensor([3.0])], [torch.tensor([2.0])]).total
        tensor(0.5000)
    """
    moved, size = update_norm(params, before), weight_norm(before)
    return Norms(moved.total / size.total, moved.each / size.each)


@instrument("init")
def distance_from_init(params: Sequence[Tensor], init: Sequence[Tensor]) -> Norms:
    """L2 distance of the weights from where recording began, ‖θ_t − θ_0‖, whole and per tensor.

    Args:
        params: the weights now.
        init: the weights at the start, same order and shapes.

    Raises:
        ValueError: if the two lists do not match.

    Example:
        >>> import torch
        >>> distance_from_init([torch.tensor([3.0, 4.0])], [torch.zeros(2)]).total
        tensor(5.)
    """
    return norms(_difference(params, init, "distance_from_init"))


def _difference(a: Sequence[Tensor], b: Sequence[Tensor], who: str) -> list[Tensor]:
    shapes = [tuple(t.shape) for t in a], [tuple(t.shape) for t in b]
    if shapes[0] != shapes[1]:
        raise ValueError(
            f"{who}: the two lists must hold tensors of the same shapes in the same order; "
            f"got {shapes[0]} and {shapes[1]}"
        )
    return list(torch._foreach_sub([t.detach() for t in a], [t.detach() for t in b]))
