"""Numerical rank that refuses to guess: a rank without a gap in the singular values is an error."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = [
    "MIN_GAP",
    "AmbiguousRank",
    "Rank",
    "certain_rank",
    "nullspace",
    "row_space",
    "unit_rows",
]

#: Least ratio of the smallest kept singular value to the largest dropped one.
MIN_GAP = 1e3


class AmbiguousRank(ValueError):
    """The singular values have no gap: which of them are zero cannot be told."""


@dataclass(frozen=True)
class Rank:
    """A rank and how sure it is.

    Attributes:
        rank: number of singular values that are not zero.
        gap: smallest kept ÷ largest dropped singular value; inf if none is dropped or it is 0.
        singular_values: (min(rows, columns),) descending.
    """

    rank: int
    gap: float
    singular_values: Tensor


def certain_rank(
    matrix: Tensor, *, tol: float = 1e-8, what: str = "rank", normalise: bool = True
) -> Rank:
    """Rank of a matrix of row vectors.

    Args:
        matrix: (n, D).
        tol: singular values below ``tol`` × the largest count as zero.
        what: said in the error.
        normalise: scale every row to length one first (zero rows stay).

    Raises:
        AmbiguousRank: if the gap at the cut is below ``MIN_GAP``.
        ValueError: if the matrix is not finite.

    Example:
        >>> certain_rank(torch.tensor([[1.0, 0.0], [2.0, 0.0]]).double()).rank
        1
    """
    if not torch.isfinite(matrix).all():
        raise ValueError(f"{what}: the vectors are not finite; choose another theta")
    rows = unit_rows(matrix) if normalise else matrix
    values = torch.linalg.svdvals(rows)
    top = float(values[0]) if len(values) else 0.0
    rank = int((values > tol * top).sum()) if top > 0 else 0
    gap = math.inf
    if 0 < rank < len(values) and float(values[rank]) > 0:
        gap = float(values[rank - 1] / values[rank])
    if gap < MIN_GAP:
        raise AmbiguousRank(
            f"{what}: singular values {float(values[rank - 1]):.1e} and {float(values[rank]):.1e} "
            f"lie on both sides of the cut, only a factor {gap:.0f} apart (at least {MIN_GAP:.0f} "
            "needed): the rank cannot be told. Choose another generic theta, float64, or a "
            "better-scaled family"
        )
    return Rank(rank, gap, values)


def unit_rows(matrix: Tensor) -> Tensor:
    """Rows scaled to length one; one that is round-off next to the others becomes zero.

    Args:
        matrix: (n, D).
    """
    norms = matrix.norm(dim=1, keepdim=True)
    tiny = torch.finfo(matrix.dtype).tiny
    real = norms > 1e-11 * norms.max().clamp_min(tiny)
    return torch.where(real, matrix / norms.clamp_min(tiny), 0.0)


def row_space(matrix: Tensor, *, tol: float = 1e-8) -> Tensor:
    """An orthonormal basis of the span of the rows, so that all directions weigh the same.

    Args:
        matrix: (n, D), rows of any scale.
        tol: relative cut of the singular values.

    Returns:
        (rank, D).
    """
    _, values, vh = torch.linalg.svd(unit_rows(matrix), full_matrices=False)
    return vh[values > tol * values[0].clamp_min(torch.finfo(matrix.dtype).tiny)]


def nullspace(
    matrix: Tensor, *, tol: float = 1e-8, what: str = "nullspace", normalise: bool = True
) -> tuple[Tensor, float]:
    """An orthonormal basis of {c : matrix · c = 0} and the gap that separates it.

    Args:
        matrix: (n, M), rows of any scale.
        tol: relative cut.
        what: said in the error.
        normalise: scale every row to length one first.

    Returns:
        (nullity, M) basis in rows, and the gap.

    Raises:
        AmbiguousRank: if the gap is too small.
    """
    norms = matrix.norm(dim=1, keepdim=True).clamp_min(torch.finfo(matrix.dtype).tiny)
    rows = matrix / norms if normalise else matrix
    # The R of a QR has the singular values of the whole at the price of a square matrix.
    square = torch.linalg.qr(rows, mode="r")[1] if len(rows) > rows.shape[1] else rows
    _, values, vh = torch.linalg.svd(square, full_matrices=True)
    found = _cut(values, matrix.shape[1], tol, what)
    return vh[found[0] :], found[1]


def _cut(values: Tensor, columns: int, tol: float, what: str) -> tuple[int, float]:
    top = float(values[0]) if len(values) else 0.0
    rank = int((values > tol * top).sum()) if top > 0 else 0
    gap = math.inf
    if 0 < rank < len(values) and float(values[rank]) > 0:
        gap = float(values[rank - 1] / values[rank])
    if gap < MIN_GAP:
        raise AmbiguousRank(
            f"{what}: no gap in the singular values ({gap:.0f}, at least {MIN_GAP:.0f} needed)"
        )
    assert rank <= columns
    return rank, gap
