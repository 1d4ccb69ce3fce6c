"""Random projections of d numbers to D as explicit matrices with columns of unit length.

Source: Li, Farkhoor, Liu, Yosinski 2018, arXiv 1804.08838 (entry intrinsic-dimension); the sparse
one of P. Li, T. Hastie, K. Church, "Very sparse random projections", 2006. Drawn in float64 on the
CPU whatever the dtype wanted, so that a seed gives the same matrix everywhere. For large D there is
``fastfood``, which keeps no matrix.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["dense_projection", "sparse_projection"]

BLOCK = 1 << 22
"""Entries drawn at a time, which bounds the float64 part; another number gives other matrices."""


def dense_projection(
    D: int,
    d: int,
    seed: int,
    *,
    orthonormal: bool = False,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Gaussian columns of unit length, or their orthonormal basis.

    Args:
        D: rows.
        d: columns.
        seed: fixes the matrix.
        orthonormal: QR of the same matrix, D d² operations; needs d ≤ D.
        dtype: of the result.

    Returns:
        (D, d) on the CPU.

    Raises:
        ValueError: if a size is below 1, or d > D for orthonormal columns.

    Source: [intrinsic-dimension], section 2.

    Example:
        >>> P = dense_projection(50, 3, seed=0, orthonormal=True, dtype=torch.float64)
        >>> torch.allclose(P.T @ P, torch.eye(3).double())
        True
    """
    if min(D, d) < 1 or (orthonormal and d > D):
        wanted = "1 <= d <= D" if orthonormal else "D and d positive"
        raise ValueError(f"dense_projection: need {wanted}, got d={d}, D={D}")
    generator = torch.Generator().manual_seed(seed)
    P = torch.empty(D, d, dtype=torch.float64 if orthonormal else dtype)
    rows = max(1, BLOCK // d)
    squares = torch.zeros(d, dtype=torch.float64)
    for start in range(0, D, rows):
        part = torch.randn(min(rows, D - start), d, generator=generator, dtype=torch.float64)
        squares += part.square().sum(0)
        P[start : start + rows] = part
    if orthonormal:
        return torch.linalg.qr(P)[0].to(dtype)
    return P.mul_(squares.rsqrt())


def sparse_projection(
    D: int, d: int, seed: int, *, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor, Tensor]:
    """Entries that are ±1 with probability 1/√D and else 0, columns scaled to unit length.

    A column that comes out empty, which happens for very small D, gets one entry.

    Args:
        D: rows.
        d: columns.
        seed: fixes the matrix.
        dtype: of the values.

    Returns:
        rows, columns (int64) and values of the entries that are not 0, (about d √D,) each, sorted
        by column.

    Raises:
        ValueError: if a size is below 1.

    Cost: d √D time and memory.

    Source: [intrinsic-dimension], supplement; Li, Hastie, Church 2006.

    Example:
        >>> rows, columns, values = sparse_projection(10_000, 2, seed=0, dtype=torch.float64)
        >>> float(values[columns == 1].norm().round(decimals=9)), 150 < len(rows) < 250
        (1.0, True)
    """
    if min(D, d) < 1:
        raise ValueError(f"sparse_projection: need D and d positive, got d={d}, D={D}")
    generator = torch.Generator().manual_seed(seed)
    p = D**-0.5
    # Gaps between the entries of independent coin tosses are geometric: no toss for the zeros.
    expected = D * d * p
    at = torch.empty(0, dtype=torch.int64)
    while p < 1 and (not len(at) or at[-1] < D * d):
        more = int(expected + 6 * math.sqrt(expected)) + 8
        gaps = torch.rand(more, generator=generator, dtype=torch.float64).clamp_min(1e-300)
        steps = gaps.log().div(math.log1p(-p)).floor().long() + 1
        at = torch.cat([at, steps.cumsum(0) + (at[-1] if len(at) else -1)])
    at = torch.arange(d) if p == 1 else at[at < D * d]
    empty = (torch.bincount(at // D, minlength=d) == 0).nonzero().squeeze(1)
    filled = empty * D + torch.randint(D, (len(empty),), generator=generator)
    at = torch.cat([at, filled]).sort().values
    columns = at // D
    signs = torch.randint(2, (len(at),), generator=generator).double() * 2 - 1
    counts = torch.bincount(columns, minlength=d)
    return at % D, columns, (signs * counts[columns].double().rsqrt()).to(dtype)
