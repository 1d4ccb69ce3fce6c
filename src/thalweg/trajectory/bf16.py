"""What bfloat16 can hold: the spacing of stored weights, and which changes reach the store.

A weight kept in bfloat16 changes only when its float32 master crosses the middle between two stored
numbers, so that a small step leaves most weights as they were.

Source: H. Zhu, Z. Zhang, H. Huang et al. 2025, arXiv 2511.08567.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["bf16_ulp", "bf16_visible"]

BITS = 7  # of the mantissa, without the leading one
LOWEST = -126  # exponent of the smallest normal number; below it the spacing stays


def bf16_ulp(w: Tensor) -> Tensor:
    """Distance from each number to the next larger one in size that bfloat16 holds.

        2^(⌊log2 |w|⌋ − 7)

    Args:
        w: floating, any shape.

    Returns:
        As w, in at least float32; below 2^−126 the spacing of subnormal numbers, nan for what is
        not finite.

    Raises:
        TypeError: if w is not real and floating.

    Source: arXiv 2511.08567, section on precision; entry rlvr-off-principals.

    Example:
        >>> import torch
        >>> bf16_ulp(torch.tensor([1.0, 0.02])) * 2**13
        tensor([64.,  1.])
    """
    _floating("bf16_ulp", w)
    wide = w if w.dtype == torch.float64 else w.float()
    exponent = torch.frexp(wide.abs()).exponent - 1  # frexp: |w| = m 2^e with m in [1/2, 1)
    exponent = torch.where(wide == 0, LOWEST, exponent).clamp(min=LOWEST)
    ulp = torch.ldexp(torch.ones_like(wide), exponent - BITS)
    return torch.where(wide.isfinite(), ulp, torch.nan)


def bf16_visible(w0: Tensor, w1: Tensor, eta: float = 1e-3) -> Tensor:
    """Where two sets of weights differ once both are stored in bfloat16.

        |ŵ1 − ŵ0| > η max(|ŵ0|, |ŵ1|),   ŵ = w in bfloat16

    Args:
        w0: floating, any shape.
        w1: the same shape.
        eta: η; below 2^−9 this is "different bfloat16 numbers" exactly.

    Returns:
        bool, the same shape; False where both are 0, True where one is nan.

    Raises:
        TypeError: if one is not real and floating.
        ValueError: if the shapes differ or η is not in [0, 1).

    Source: arXiv 2511.08567; entry rlvr-off-principals.

    Example:
        Half a spacing is a tie and rounds back to 1.

        >>> import torch
        >>> bf16_visible(torch.ones(2), torch.tensor([1 + 2**-8, 1 + 1.01 * 2**-8]))
        tensor([False,  True])
    """
    _floating("bf16_visible", w0, w1)
    if w0.shape != w1.shape:
        raise ValueError(
            f"bf16_visible: expected weights of one shape, got {tuple(w0.shape)} and "
            f"{tuple(w1.shape)}"
        )
    if not 0 <= eta < 1:
        raise ValueError(f"bf16_visible: expected 0 <= eta < 1, got {eta}")
    a, b = w0.bfloat16(), w1.bfloat16()
    if eta < 2**-9:
        return a != b
    a, b = a.float(), b.float()
    return ~((b - a).abs() <= eta * torch.maximum(a.abs(), b.abs()))


def _floating(who: str, *weights: Tensor) -> None:
    for w in weights:
        if not isinstance(w, Tensor) or not w.is_floating_point():
            kind = w.dtype if isinstance(w, Tensor) else type(w).__name__
            raise TypeError(f"{who}: expected real floating tensors, got {kind}")
