"""How far the Jacobian of a network is aligned with its inputs, the geometry that grokking ends in.

A net without biases and with ReLU is f(x) = J_x x. Its Jacobian is aligned at x if J_x = c xᵀ: of
rank one, with each row along the input.

Source: Walker, Humayun, Balestriero, Baraniuk 2025, arXiv 2506.12284; entry grokalign. Departures:
the full form ``jacobian_alignment`` is written from the definition, for the authors' code has only
the centroid; an alignment that is 0/0 is nan there.

Axes: `B` samples, `C` outputs, `d` entries of one input.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from thalweg.numerics import jacobian

__all__ = ["centroid_alignment", "centroids", "jacobian_alignment", "jacobian_pc1"]

FLOOR = 1e-8
"""Of the denominator of a cosine, as in the authors' code."""


def centroids(model: Callable[..., Any], x: Tensor, *, outputs: str = "sum") -> Tensor:
    """The sum of the rows of the Jacobian at each input.

        μ_x = J_xᵀ 1 = ∇_x Σ_c f_c(x)

    Under cross-entropy the sum of the outputs is arbitrary (a softmax ignores a shift of them all)
    and about 0 for centred ones: look at the row of the largest output as well.

    Args:
        model: module or callable, (B, ...) -> (B, ...), in a mode in which samples don't mix.
        x: (B, ...), floating.
        outputs: ``sum``, or ``top`` for the row of the largest output.

    Returns:
        Like x, detached.

    Raises:
        ValueError: if x holds no sample or is not floating, or ``outputs`` is neither.

    Cost: one backward pass of the batch.

    Source: arXiv 2506.12284; entry grokalign.

    Example:
        >>> W = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
        >>> centroids(lambda x: x @ W.T, torch.ones(1, 2))
        tensor([[4., 6.]])
    """
    if outputs not in ("sum", "top"):
        raise ValueError(f"centroids: outputs must be 'sum' or 'top', got {outputs!r}")

    def scalar(x: Tensor) -> Tensor:
        out = model(x).flatten(1)
        return (out.sum(1) if outputs == "sum" else out.amax(1)).unsqueeze(1)

    return jacobian(scalar, x).reshape(x.shape)


def centroid_alignment(model: Callable[..., Any], x: Tensor, *, outputs: str = "sum") -> Tensor:
    """Cosine between each input and its centroid.

        cos(μ_x, x) = μ_x·x / (‖μ_x‖ ‖x‖)

    With one output its sign follows that of the output: take the absolute value.

    Args:
        model: as in ``centroids``.
        x: (B, ...), floating.
        outputs: ``sum`` or ``top``, as in ``centroids``.

    Returns:
        (B,), in [-1, 1]; 0 where either is 0.

    Raises:
        ValueError: as ``centroids``.

    Cost: one backward pass of the batch.

    Source: arXiv 2506.12284; entry grokalign.

    Example:
        >>> centroid_alignment(lambda x: x @ torch.tensor([[3.0], [4.0]]), torch.eye(2))
        tensor([0.6000, 0.8000])
    """
    mu, x = centroids(model, x, outputs=outputs).flatten(1), x.detach().flatten(1)
    return (mu * x).sum(1) / (mu.norm(dim=1) * x.norm(dim=1)).clamp(min=FLOOR)


def jacobian_alignment(model: Callable[..., Any], x: Tensor) -> Tensor:
    """How nearly each input has the Jacobian of least norm for its output.

        ‖J_x x‖ / (‖J_x‖_F ‖x‖)

    Args:
        model: as in ``centroids``.
        x: (B, ...), floating.

    Returns:
        (B,), in [0, 1], 1 if and only if J_x = c xᵀ; unchanged by the scales of x and of the
        outputs of a linear map; nan where J_x or x is 0.

    Raises:
        ValueError: if x holds no sample or is not floating.

    Cost: C backward passes of the batch, B·C·d floats.

    Source: the definition of alignment in arXiv 2506.12284; entry grokalign.

    Example:
        >>> W = torch.tensor([[3.0, 4.0], [6.0, 8.0]])
        >>> jacobian_alignment(lambda x: x @ W.T, torch.tensor([[3.0, 4.0]]))
        tensor([1.])
    """
    J, x = jacobian(model, x), x.detach().flatten(1)
    along = (J @ x.unsqueeze(2)).flatten(1).norm(dim=1)
    return along / (J.flatten(1).norm(dim=1) * x.norm(dim=1))


def jacobian_pc1(model: Callable[..., Any], x: Tensor) -> Tensor:
    """Share of the first squared singular value of each Jacobian: 1 means rank one.

        σ_1² / Σ_i σ_i²

    Args:
        model: as in ``centroids``.
        x: (B, ...), floating.

    Returns:
        (B,), in [1/min(C, d), 1]; nan where the Jacobian is 0.

    Raises:
        ValueError: if x holds no sample or is not floating.

    Cost: C backward passes of the batch and B svds of (C, d).

    Source: arXiv 2506.12284; entry grokalign.

    Example:
        >>> jacobian_pc1(lambda x: x @ torch.eye(4), torch.ones(1, 4))
        tensor([0.2500])
    """
    squares = torch.linalg.svdvals(jacobian(model, x)).square()
    return squares[:, 0] / squares.sum(1)
