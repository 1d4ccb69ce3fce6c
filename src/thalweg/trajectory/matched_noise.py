"""The null of a change of weights: noise that as many stored weights would have felt.

Rounding alone prefers small weights, whose stored numbers lie closer together, so that a change is
judged beside noise scaled until the same number of entries crosses a rounding boundary of bfloat16.

Source: the control is ours; what it controls, H. Zhu et al. 2025, arXiv 2511.08567.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from thalweg.trajectory.update_masks import lowest

__all__ = ["Control", "matched_noise", "visible_noise_mask"]

Control = Literal["isotropic", "shuffle"]
SMALLEST = torch.finfo(torch.float32).tiny


def matched_noise(W0: Tensor, W1: Tensor, kind: Control, generator: torch.Generator) -> Tensor:
    """Noise of the Frobenius norm of a change: independent Gaussians, or its entries shuffled.

    Args:
        W0: floating, any shape.
        W1: the same shape.
        kind: "isotropic" or "shuffle".
        generator: of the draw.

    Returns:
        float32 (float64 where W0 is), the shape of W0.
    """
    wide = torch.float64 if W0.dtype == torch.float64 else torch.float32
    delta = W1.to(wide) - W0.to(wide)
    if kind == "shuffle":
        order = torch.randperm(delta.numel(), generator=generator)
        return delta.reshape(-1)[order].reshape(delta.shape)
    noise = torch.randn(delta.shape, dtype=wide, generator=generator)
    return noise.mul_(delta.norm() / noise.norm())


def visible_noise_mask(W0: Tensor, noise: Tensor, count: int) -> Tensor:
    """Which entries change in bfloat16 under s·noise, s such that ``count`` of them do.

    An entry changes once s|noise| exceeds its distance to the rounding boundary on that side, so
    the entries in order of distance over |noise| are those that change as s grows.

    Args:
        W0: floating, any shape.
        noise: the same shape.
        count: entries to change, 0 … numel.

    Returns:
        bool, the shape of W0, with exactly ``count`` entries.
    """
    stored = W0.bfloat16()
    sign = torch.where(stored == 0, noise.sign().to(stored.dtype), stored.sign())
    size, outward = stored.abs(), noise.sign() * sign.to(noise.dtype) >= 0
    # Of numbers of one sign, the next in size is the next in bits.
    bits = size.view(torch.int16)
    next_size = torch.where(outward, bits + 1, (bits - 1).clamp(min=0)).view(torch.bfloat16)
    boundary = (size.float() + next_size.float()) / 2
    distance = (boundary - W0.float() * sign.float()).abs_()
    return lowest(distance.div_(noise.float().abs().clamp(min=SMALLEST)), count)
