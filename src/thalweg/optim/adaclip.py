"""A gradient against its own past: clipped at the running maximum, rescaled to the running norm.

The two halves of what ``StableSPAM`` does before Adam, as plain functions with their state.

Source: T. Huang et al. 2025, arXiv 2502.17055.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["ClipState", "NormState", "adaclip", "adagn", "wide"]


@dataclass(frozen=True)
class ClipState:
    """What ``adaclip`` remembers of a tensor.

    Attributes:
        maximum: 0-d average of max |g|, not corrected for its start at 0.
        num_steps: gradients so far.
    """

    maximum: Tensor
    num_steps: int


@dataclass(frozen=True)
class NormState:
    """What ``adagn`` remembers of a tensor.

    Attributes:
        norm: 0-d average of ‖g‖, not corrected for its start at 0.
        square: 0-d average of ‖g‖², likewise.
        num_steps: gradients so far.
    """

    norm: Tensor
    square: Tensor
    num_steps: int


def adaclip(
    g: Tensor, state: ClipState | None = None, *, gamma3: float = 0.999
) -> tuple[Tensor, ClipState]:
    """Clip entries at the running maximum.

        T ← γ₃T + (1 − γ₃) max|g|,  T̂ = T/(1 − γ₃ᵗ),  g ← g T̂/max|g| where |g| > T̂

    All entries above T̂ are scaled alike, so that the largest ends at T̂ and the others keep their
    ratios to it (and may end below entries that were not clipped).

    Args:
        g: gradient, any shape.
        state: from the step before; None at first.
        gamma3: γ₃, in [0, 1).

    Returns:
        The clipped gradient (a new tensor) and the state.

    Source:
        Huang et al. 2025, arXiv 2502.17055; entry stable-spam.

    Example:
        >>> _, state = adaclip(torch.tensor([1.0, 2.0]), gamma3=0.5)
        >>> adaclip(torch.tensor([1.0, 8.0]), state, gamma3=0.5)[0]
        tensor([1., 6.])
    """
    largest = g.abs().amax().to(wide(g))
    before = ClipState(torch.zeros_like(largest), 0) if state is None else state
    now = ClipState(before.maximum.lerp(largest, 1 - gamma3), before.num_steps + 1)
    limit = now.maximum / (1 - gamma3**now.num_steps)
    return torch.where(g.abs() > limit, g * (limit / largest), g), now


def adagn(
    g: Tensor,
    state: NormState | None = None,
    *,
    gamma1: float = 0.7,
    gamma2: float = 0.9,
    eps: float = 1e-8,
) -> tuple[Tensor, NormState]:
    """Give the gradient the norm that it had on average, over the root mean square of that norm.

        n₁ ← γ₁n₁ + (1 − γ₁)‖g‖,  n₂ ← γ₂n₂ + (1 − γ₂)‖g‖²,  g ← g/‖g‖ · n̂₁/(√n̂₂ + ε)

    Args:
        g: gradient, any shape; zero stays zero.
        state: from the step before; None at first.
        gamma1: γ₁, in [0, 1).
        gamma2: γ₂, in [0, 1).
        eps: ε.

    Returns:
        The rescaled gradient (a new tensor), of norm about 1, and the state.

    Source:
        Huang et al. 2025, arXiv 2502.17055; entry stable-spam.

    Example:
        A constant gradient leaves with norm 1.

        >>> adagn(torch.tensor([3.0, 4.0]))[0]
        tensor([0.6000, 0.8000])
    """
    size = torch.linalg.vector_norm(g, dtype=wide(g))
    zero = torch.zeros_like(size)
    before = NormState(zero, zero, 0) if state is None else state
    now = NormState(
        before.norm.lerp(size, 1 - gamma1),
        before.square.lerp(size.square(), 1 - gamma2),
        before.num_steps + 1,
    )
    mean = now.norm / (1 - gamma1**now.num_steps)
    root = (now.square / (1 - gamma2**now.num_steps)).sqrt()
    return g * torch.where(size > 0, mean / (root + eps) / size, 1.0), now


def wide(g: Tensor) -> torch.dtype:
    """Dtype of running statistics: at least float32."""
    return torch.promote_types(g.dtype, torch.float32)
