"""Linear symmetries: all matrices M with ⟨Mθ, X_i(θ)⟩ = 0 for every field and every θ.

Symmetric elements are quadratic laws θᵀMθ/2; antisymmetric ones only give ⟨Mθ, θ̇⟩ = 0 at each
moment (a nonholonomic constraint, no function of the weights); elements that are neither are
symmetries without a law. It is the cheap way, and reaches a hundred parameters.

Source: Q. Zhao et al. 2022, arXiv 2210.17216; derivation in ``docs/mathematics.md``.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from thalweg.laws.fields import Fields, generic_point
from thalweg.laws.rank import certain_rank, nullspace, row_space

__all__ = ["MAX_DIM", "LinearSymmetries", "linear_symmetries"]

#: D² unknowns: beyond this the SVD takes minutes.
MAX_DIM = 64


@dataclass(frozen=True)
class LinearSymmetries:
    """The matrices M, by kind.

    Attributes:
        nullity: how many there are.
        symmetric: (S, D, D) orthonormal basis of the symmetric ones: quadratic laws.
        antisymmetric: (A, D, D) orthonormal basis of the antisymmetric ones: identities.
        independent: how many of the quadratic laws are functionally independent.
        gap: in the singular values.
    """

    nullity: int
    symmetric: Tensor
    antisymmetric: Tensor
    independent: int
    gap: float

    @property
    def counts(self) -> tuple[int, int, int]:
        """Nullity, symmetric and antisymmetric elements."""
        return self.nullity, len(self.symmetric), len(self.antisymmetric)


def linear_symmetries(
    fields: Fields, *, tol: float = 1e-8, generator: torch.Generator | None = None
) -> LinearSymmetries:
    """All linear symmetries of a family of fields.

    Args:
        fields: the family.
        tol: relative cut of the singular values.
        generator: of the points.

    Raises:
        ValueError: if there are more than ``MAX_DIM`` parameters.
        AmbiguousRank: if the nullspace is not separated.

    Example:
        >>> from thalweg.laws.fields import fields_from_map
        >>> linear_symmetries(fields_from_map(lambda t: t[0] * t[1], 2)).counts
        (1, 1, 0)
    """
    d = fields.dim
    if d > MAX_DIM:
        raise ValueError(
            f"{d} parameters give {d * d} unknowns, more than {MAX_DIM}² can be solved for: use "
            "known_laws(module), or a smaller model of the same architecture"
        )
    square: Tensor | None = None
    # Twice as many equations as unknowns; a point gives no more than the rank of the fields there.
    rank = max(len(row_space(fields.at(generic_point(d, generator=generator)))), 1)
    points = -(-2 * d * d // rank) + 4
    block: list[Tensor] = []
    for i in range(points):
        theta = generic_point(d, generator=generator)
        at = row_space(fields.at(theta))
        block.append((at[:, :, None] * (theta / theta.norm())[None, None]).reshape(-1, d * d))
        # QR as we go: the R of all rows so far has their singular values in D² rows.
        if sum(map(len, block)) >= 2 * d * d or i == points - 1:
            rows = torch.cat([square, *block] if square is not None else block)
            square = torch.linalg.qr(rows, mode="r")[1] if len(rows) > d * d else rows
            block = []
    assert square is not None
    basis, gap = nullspace(square, tol=tol, what="linear symmetries", normalise=False)
    matrices = basis.reshape(-1, d, d)
    symmetric = _part(matrices, 1.0)
    antisymmetric = _part(matrices, -1.0)
    theta = generic_point(d, generator=generator)
    gradients = symmetric @ theta
    independent = certain_rank(gradients, what="independent laws").rank if len(symmetric) else 0
    return LinearSymmetries(len(matrices), symmetric, antisymmetric, independent, gap)


def _part(matrices: Tensor, sign: float) -> Tensor:
    """Orthonormal basis of the (anti)symmetric matrices in the span."""
    if not len(matrices):
        return matrices
    wrong = (matrices - sign * matrices.transpose(1, 2)) / 2
    # Combinations whose wrong part vanishes.
    mixes = _left_nullspace(wrong.reshape(len(matrices), -1))
    return torch.einsum("ki,iab->kab", mixes, matrices)


def _left_nullspace(rows: Tensor) -> Tensor:
    u, values, _ = torch.linalg.svd(rows, full_matrices=True)
    zero = torch.ones(len(rows), dtype=torch.bool)
    zero[: len(values)] = values < 1e-7
    return u.T[zero]
