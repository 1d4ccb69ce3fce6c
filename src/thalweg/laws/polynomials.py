"""Polynomial laws: every polynomial up to a degree that the fields leave alone.

Each random point and field gives one linear equation Σ_α c_α ⟨∇θ^α, X⟩(θ) = 0 for the coefficients.
The nullspace comes from an SVD in float64, or exactly: fields of polynomial networks take integer
values at integer points, so the equations can be solved modulo a prime and the rational
coefficients reconstructed, which makes formulas that can be read.

Source: S. Marcotte, R. Gribonval, G. Peyré 2023, arXiv 2307.00144.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import torch
from torch import Tensor

from thalweg.laws.fields import Fields, generic_point
from thalweg.laws.rank import certain_rank, nullspace, row_space

__all__ = ["MAX_MONOMIALS", "Polynomials", "exact_laws", "polynomial_laws"]

#: More unknowns than this are refused: the SVD would take minutes.
MAX_MONOMIALS = 2500
PRIME = 2_147_483_629  # the largest below 2^31 - 1: products of residues fit in 63 bits
_LARGEST_INTEGER = 2**53


@dataclass(frozen=True)
class Polynomials:
    """A basis of polynomial laws.

    Attributes:
        exponents: (M, D) int64, one monomial a row; no constant.
        coefficients: (K, M) float64, one polynomial a row.
        independent: how many are functionally independent at a generic point.
        gap: in the singular values that separates the nullspace; inf if exact.
        exact: whether the coefficients are exact rational numbers.
        names: of the coordinates.
    """

    exponents: Tensor
    coefficients: Tensor
    independent: int
    gap: float
    exact: bool = False
    names: tuple[str, ...] = ()

    @property
    def nullity(self) -> int:
        """How many polynomials, dependent ones included."""
        return len(self.coefficients)

    def values(self, theta: Tensor) -> Tensor:
        """(K,) the polynomials at θ (D,)."""
        return self.coefficients.to(theta) @ _monomials(self.exponents, theta)

    def gradients(self, theta: Tensor) -> Tensor:
        """(K, D) their gradients at θ."""
        return self.coefficients.to(theta) @ _monomial_gradients(self.exponents, theta)

    def formulas(self, *, most_terms: int = 12) -> list[str]:
        """The polynomials as text, longest terms cut with ``…``."""
        return [self._formula(row, most_terms) for row in self.coefficients]

    def _formula(self, row: Tensor, most_terms: int) -> str:
        terms = []
        order = sorted(range(len(row)), key=lambda i: (-self.exponents[i].sum(), i))
        for i in order:
            c = float(row[i])
            if abs(c) < 1e-9:
                continue
            body = _monomial_text(self.exponents[i].tolist(), self.names)
            size = abs(c)
            number = "" if abs(size - 1) < 1e-9 else _number(size) + "·"
            terms.append(("- " if c < 0 else "+ ") + number + body)
        cut = terms[:most_terms] + ["…"] * (len(terms) > most_terms)
        text = " ".join(cut)
        return (
            text.removeprefix("+ ").replace("- ", "-", 1)
            if text.startswith("- ")
            else (text.removeprefix("+ "))
        )


def polynomial_laws(
    fields: Fields,
    *,
    degree: int = 2,
    tol: float = 1e-8,
    generator: torch.Generator | None = None,
) -> Polynomials:
    """All polynomial laws up to a degree, by SVD.

    Args:
        fields: the family.
        degree: largest total degree.
        tol: relative cut of the singular values.
        generator: of the points.

    Raises:
        ValueError: if there are too many monomials for the method.
        AmbiguousRank: if the nullspace is not separated.

    Example:
        f = u·v·x conserves u² − v²:

        >>> from thalweg.laws.fields import fields_from_map
        >>> laws = polynomial_laws(fields_from_map(lambda t: t[0] * t[1], 2))
        >>> laws.nullity, laws.independent
        (1, 1)
    """
    exponents = _exponents(fields.dim, degree)
    points = _points_needed(fields, len(exponents))
    rows = []
    for _ in range(points):
        theta = generic_point(fields.dim, generator=generator)
        rows.append(row_space(fields.at(theta)) @ _monomial_gradients(exponents, theta).T)
    basis, gap = nullspace(torch.cat(rows), tol=tol, what=f"polynomials of degree {degree}")
    return _finished(fields, exponents, basis, gap, exact=False, generator=generator)


def exact_laws(
    fields: Fields,
    *,
    degree: int = 2,
    generator: torch.Generator | None = None,
) -> Polynomials:
    """All polynomial laws up to a degree, with exact rational coefficients.

    Solves the equations at integer points modulo a prime, reconstructs rational coefficients and
    checks them in float64 at a fresh point.

    Args:
        fields: the family; it must take integer values at integer points.
        degree: largest total degree.
        generator: of the points.

    Raises:
        ValueError: if the fields are not integer-valued polynomials, if there are too many
            monomials, or if a coefficient cannot be reconstructed.
    """
    exponents = _exponents(fields.dim, degree)
    rows: list[np.ndarray] = []
    for _ in range(_points_needed(fields, len(exponents))):
        theta = torch.randint(-4, 5, (fields.dim,), generator=generator).double()
        values = fields.at(theta)
        rounded = values.round()
        if not torch.equal(values, rounded) or values.abs().max() >= _LARGEST_INTEGER:
            raise ValueError(
                "exact laws need fields that are integers at integer points, and these are not: "
                "use polynomial_laws (float64) for maps that are not polynomials"
            )
        monomials = _monomial_gradients(exponents, theta).numpy().astype(np.int64)
        field_rows = rounded.numpy().astype(np.int64) % PRIME
        rows.append(_matmul(field_rows, monomials.T % PRIME))
    basis = _nullspace_modulo(np.concatenate(rows))
    exact = np.array([[float(_rational(int(v))) for v in row] for row in basis])
    coefficients = torch.from_numpy(exact.reshape(len(basis), len(exponents)))
    return _finished(fields, exponents, coefficients, math.inf, exact=True, generator=generator)


def _finished(
    fields: Fields,
    exponents: Tensor,
    coefficients: Tensor,
    gap: float,
    *,
    exact: bool,
    generator: torch.Generator | None,
) -> Polynomials:
    """Checks the polynomials at a fresh point and counts the independent ones."""
    coefficients = coefficients if exact else _reduced(coefficients)
    # The first term that is printed is positive.
    degrees = exponents.sum(1)
    rank = degrees * len(degrees) - torch.arange(len(degrees))
    lead = torch.where(coefficients.abs() > 1e-9, rank, -1).argmax(1, keepdim=True)
    coefficients = coefficients * coefficients.gather(1, lead).sign()
    found = Polynomials(exponents, coefficients, 0, gap, exact, fields.names)
    if not len(coefficients):
        return found
    theta = generic_point(fields.dim, generator=generator)
    gradients, at = found.gradients(theta), fields.at(theta)
    defect = (gradients @ at.T).abs().max()
    scale = gradients.norm(dim=1).max() * at.norm(dim=1).max()
    if defect > 1e-7 * scale:
        raise ValueError(
            f"a polynomial found does not hold at a fresh point (defect {float(defect):.1e} of "
            f"{float(scale):.1e}): the fields are not deterministic or too badly scaled"
        )
    independent = certain_rank(gradients, what="independent polynomials").rank
    return Polynomials(exponents, coefficients, independent, gap, exact, fields.names)


def _reduced(basis: Tensor) -> Tensor:
    """Gauss–Jordan from the last monomial on: sparse rows instead of an orthonormal mixture."""
    rows = basis.clone()
    top = 0
    for column in range(rows.shape[1] - 1, -1, -1):
        if top == len(rows):
            break
        at = top + int(rows[top:, column].abs().argmax())
        if rows[at, column].abs() < 1e-6:
            continue
        rows[[top, at]] = rows[[at, top]]
        rows[top] /= rows[top, column].clone()
        factors = rows[:, column].clone()
        factors[top] = 0
        rows -= factors[:, None] * rows[top]
        top += 1
    rows[rows.abs() < 1e-9] = 0.0
    near = rows.round()
    return torch.where((rows - near).abs() < 1e-9, near, rows)


def _exponents(dim: int, degree: int) -> Tensor:
    """(M, D) all exponents with total degree from 1 to ``degree``."""
    number = math.comb(dim + degree, degree) - 1
    if degree < 1:
        raise ValueError(f"degree must be at least 1, got {degree}")
    if number > MAX_MONOMIALS:
        raise ValueError(
            f"{dim} parameters and degree {degree} give {number} monomials, more than "
            f"{MAX_MONOMIALS}: lower the degree, use method='linear', or known_laws(module)"
        )
    rows = []
    for total in range(1, degree + 1):
        for chosen in itertools.combinations_with_replacement(range(dim), total):
            row = [0] * dim
            for i in chosen:
                row[i] += 1
            rows.append(row)
    return torch.tensor(rows, dtype=torch.int64)


def _points_needed(fields: Fields, unknowns: int) -> int:
    # Twice as many equations as unknowns; a point gives no more than the rank of the fields there.
    rank = max(len(row_space(fields.at(generic_point(fields.dim)))), 1)
    return math.ceil(2 * unknowns / rank) + 4


def _monomials(exponents: Tensor, theta: Tensor) -> Tensor:
    return (theta[None] ** exponents.to(theta.device)).prod(1)


def _monomial_gradients(exponents: Tensor, theta: Tensor) -> Tensor:
    """(M, D) the gradient of each monomial, without dividing by coordinates that may be zero."""
    exponents = exponents.to(theta.device)
    degree = int(exponents.max())
    powers = torch.stack([theta**k for k in range(degree + 1)])  # (degree + 1, D)
    columns = torch.arange(len(theta), device=theta.device)
    factors = powers[exponents, columns]  # (M, D)
    lowered = exponents.to(theta.dtype) * powers[(exponents - 1).clamp_min(0), columns]
    # The product over all coordinates but one: of those before times of those after.
    ones = torch.ones_like(factors[:, :1])
    before = torch.cat([ones, factors[:, :-1].cumprod(1)], 1)
    after = torch.cat([factors[:, 1:].flip(1).cumprod(1).flip(1), ones], 1)
    return lowered * before * after


def _matmul(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """A @ b modulo the prime, by halves of 16 bits so that nothing overflows."""
    high, low = a >> 16, a & 0xFFFF
    total = np.zeros((a.shape[0], b.shape[1]), np.int64)
    for k in range(a.shape[1]):
        upper = high[:, k, None] * b[None, k] % PRIME
        total = (total + (upper << 16) % PRIME + low[:, k, None] * b[None, k] % PRIME) % PRIME
    return total


def _nullspace_modulo(rows: np.ndarray) -> np.ndarray:
    """Reduced basis of the nullspace modulo the prime, (nullity, M)."""
    matrix = rows.copy()
    number = matrix.shape[1]
    pivots: list[int] = []
    top = 0
    for column in range(number):
        nonzero = np.flatnonzero(matrix[top:, column])
        if not len(nonzero):
            continue
        at = top + int(nonzero[0])
        matrix[[top, at]] = matrix[[at, top]]
        matrix[top] = matrix[top] * pow(int(matrix[top, column]), -1, PRIME) % PRIME
        others = np.flatnonzero(matrix[:, column])
        others = others[others != top]
        factors = matrix[others, column][:, None]
        matrix[others] = (matrix[others] - factors * matrix[top][None] % PRIME) % PRIME
        pivots.append(column)
        top += 1
        if top == len(matrix):
            break
    free = [c for c in range(number) if c not in set(pivots)]
    basis = np.zeros((len(free), number), np.int64)
    for i, column in enumerate(free):
        basis[i, column] = 1
        basis[i, pivots] = -matrix[: len(pivots), column] % PRIME
    return basis


def _rational(residue: int) -> Fraction:
    """The fraction a/b with |a|, b ≤ √(p/2) that a residue stands for (Wang's algorithm)."""
    limit = math.isqrt(PRIME // 2)
    r0, r1, s0, s1 = PRIME, residue % PRIME, 0, 1
    while r1 > limit:
        quotient = r0 // r1
        r0, r1 = r1, r0 - quotient * r1
        s0, s1 = s1, s0 - quotient * s1
    if not 0 < abs(s1) <= limit:
        raise ValueError("a coefficient is no fraction of small numbers: use polynomial_laws")
    return Fraction(r1, s1)


def _monomial_text(powers: Sequence[int], names: Sequence[str]) -> str:
    marks = {2: "²", 3: "³", 4: "⁴"}
    parts = []
    for i, power in enumerate(powers):
        if power:
            name = names[i] if names else f"θ{i}"
            parts.append(name + ("" if power == 1 else marks.get(power, f"^{power}")))
    return "·".join(parts)


def _number(value: float) -> str:
    near = Fraction(value).limit_denominator(1000)
    return str(near) if abs(float(near) - value) < 1e-9 * max(value, 1.0) else f"{value:.4g}"
