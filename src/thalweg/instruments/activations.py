"""Activations: their scale, and the units that have stopped responding.

Axes: `B` everything but the unit axis (samples, positions), `H` units.
"""

from __future__ import annotations

import torch
from torch import Tensor

from thalweg.instruments.instrument import instrument

__all__ = ["activation_rms", "dormant_fraction"]


@instrument("activations")
def activation_rms(activations: Tensor) -> Tensor:
    """Root mean square of a layer's output, (Σ h² / count)^½.

    A healthy stack keeps it within an order of magnitude from layer to layer; a steady fall or
    rise with depth is a vanishing or exploding signal.

    Args:
        activations: any shape and floating dtype.

    Returns:
        0-d float32 (float64 for double); nan for an empty tensor.

    Example:
        >>> import torch
        >>> activation_rms(torch.tensor([3.0, -3.0]))
        tensor(3.)
    """
    h = activations.detach()
    if h.numel() == 0:
        return torch.full((), float("nan"), device=h.device)
    low = h.dtype in (torch.float16, torch.bfloat16)
    norm = torch.linalg.vector_norm(h, dtype=torch.float32 if low else None)
    return norm / h.numel() ** 0.5


@instrument("activations")
def dormant_fraction(activations: Tensor, tau: float = 0.0, *, dim: int = -1) -> Tensor:
    """Share of τ-dormant units of a layer.

        s_i = E_x|h_i(x)| / mean_j E_x|h_j(x)|,   unit i is dormant if s_i ≤ τ

    With τ = 0 these are the dead units of a ReLU layer. A layer whose units are all zero is
    wholly dormant.

    Args:
        activations: (..., H, ...) outputs after the activation function.
        tau: threshold on the normalised score, ≥ 0; 0.025 and 0.1 are used in the source.
        dim: the unit axis: -1 for dense layers and transformers, 1 for convolutions.

    Returns:
        0-d, in [0, 1]; nan for an empty or non-finite input.

    Raises:
        ValueError: if tau is negative or nan, or the input is 0-d.

    Source: Sokar, Agarwal, Castro, Evci 2023, arXiv 2302.12902; entry adamo-isometry.

    Example:
        >>> import torch
        >>> dormant_fraction(torch.tensor([[1.0, 0.0], [3.0, 0.0]]))
        tensor(0.5000)
    """
    if not tau >= 0:
        raise ValueError(f"dormant_fraction: tau must be >= 0, got {tau}")
    if activations.ndim == 0:
        raise ValueError("dormant_fraction: activations need a unit axis, got a 0-d tensor")
    h = activations.detach()
    if h.numel() == 0:
        return torch.full((), float("nan"), device=h.device)
    others = [d for d in range(h.ndim) if d != dim % h.ndim]
    low = h.dtype in (torch.float16, torch.bfloat16)
    size = h.abs()
    score = size.mean(others, dtype=torch.float32 if low else None) if others else size
    mean = score.mean()
    dormant = (score <= tau * mean).to(score.dtype).mean()
    return torch.where(torch.isfinite(mean), dormant, mean * float("nan"))
