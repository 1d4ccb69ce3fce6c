"""Truncated singular value decomposition by a randomised range finder.

Source: Halko, Martinsson, Tropp 2011, arXiv 0909.4061, algorithms 4.4 and 5.1. Axes: `m` rows,
`n` columns, `r` rank.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["SVD", "randomized_svd"]


class SVD(NamedTuple):
    """A ≈ U diag(S) Vh: U (m, r), S (r,) descending, Vh (r, n)."""

    U: Tensor
    S: Tensor
    Vh: Tensor


def randomized_svd(
    A: Tensor,
    rank: int,
    *,
    oversample: int = 10,
    power_iterations: int = 2,
    generator: torch.Generator | None = None,
) -> SVD:
    """The leading singular triplets of a matrix.

        Q = orth((AAᵀ)^q A Ω),   A ≈ Q (QᵀA)

    Args:
        A: (m, n), floating. Half precision is computed in float32.
        rank: r, 1 ≤ r ≤ min(m, n).
        oversample: columns of Ω beyond r.
        power_iterations: q; each re-orthogonalised, so that small singular values survive.
        generator: of Ω; default: one of its own with a fixed seed.

    Returns:
        SVD(U, S, Vh); exact for a matrix of rank ≤ r + oversample. No S exceeds the true one.

    Raises:
        ValueError: if A is not a finite floating matrix or an argument is out of range.

    Cost: 2(q + 1) products of A with r + oversample vectors.

    Example:
        >>> import torch
        >>> randomized_svd(torch.diag(torch.tensor([3.0, 2.0, 1.0])), 2).S
        tensor([3.0000, 2.0000])
    """
    if A.ndim != 2 or not A.is_floating_point() or not bool(torch.isfinite(A).all()):
        raise ValueError(
            "randomized_svd: expected a finite, real floating (m, n) matrix, got shape "
            f"{tuple(A.shape)}, {A.dtype}"
        )
    if not 1 <= rank <= min(A.shape) or oversample < 0 or power_iterations < 0:
        raise ValueError(
            f"randomized_svd: need 1 <= rank <= {min(A.shape)}, oversample >= 0 and "
            f"power_iterations >= 0; got {rank}, {oversample}, {power_iterations}"
        )
    work = A if A.dtype == torch.float64 else A.float()
    generator = generator or torch.Generator().manual_seed(0)
    columns = min(rank + oversample, min(A.shape))
    shape = (A.shape[1], columns)
    Omega = torch.randn(shape, generator=generator, dtype=work.dtype, device=generator.device)
    Q = torch.linalg.qr(work @ Omega.to(work.device)).Q
    for _ in range(power_iterations):
        Q = torch.linalg.qr(work @ torch.linalg.qr(work.T @ Q).Q).Q
    U, S, Vh = torch.linalg.svd(Q.T @ work, full_matrices=False)
    return SVD((Q @ U)[:, :rank].to(A.dtype), S[:rank].to(A.dtype), Vh[:rank].to(A.dtype))
