"""How many laws, which, and how sure: brackets from above, polynomials from below.

    independent polynomial laws  ≤  number of laws  ≤  D − dim Lie(F)(θ)

Equality makes the list complete. A rank that the singular values do not separate is an error, never
a number.

Source: S. Marcotte, R. Gribonval, G. Peyré 2023, arXiv 2307.00144; Galley, Shahverdi, Flinth 2026,
arXiv 2606.10913.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from thalweg.laws.brackets import lie_rank, orbit_rank
from thalweg.laws.fields import Fields, generic_point
from thalweg.laws.linear_symmetry import LinearSymmetries, linear_symmetries
from thalweg.laws.polynomials import Polynomials, exact_laws, polynomial_laws
from thalweg.numerics.group import Isotype

__all__ = ["MAX_EXACT_DIM", "LawReport", "conservation_laws"]

Method = Literal["auto", "brackets", "poly", "exact", "linear", "orbit"]

#: Brackets grow as 2^depth and polynomials as D²: beyond this many parameters they are refused.
MAX_EXACT_DIM = 40


@dataclass(frozen=True)
class LawReport:
    """What a family of fields conserves, and how sure that is.

    Attributes:
        dim: D, number of parameters.
        method: how it was counted.
        n_laws: number of independent laws; with ``lower`` < ``upper`` the upper bound, or the
            lower one if brackets were not taken.
        lower: independent laws that were found; None if none was looked for.
        upper: D − Lie rank; None if brackets were not taken.
        complete: whether lower and upper bound agree.
        lie_dim: dim Lie(F)(θ); None if brackets were not taken.
        history: its growth with the depth of the brackets.
        gap: smallest gap in singular values that any rank was read from.
        polynomials: the laws as polynomials; None if not looked for.
        symmetries: linear symmetries; None if not looked for.
        note: what should be known about the count, empty if nothing.
        n_extra: laws beyond the architecture's own, if data symmetry was asked about.
        isotypes: the parts of the input representation that give them.
    """

    dim: int
    method: str
    n_laws: int
    lower: int | None
    upper: int | None
    complete: bool
    lie_dim: int | None
    history: tuple[int, ...]
    gap: float
    polynomials: Polynomials | None = None
    symmetries: LinearSymmetries | None = None
    note: str = ""
    n_extra: int | None = None
    isotypes: tuple[Isotype, ...] = ()

    @property
    def formulas(self) -> list[str]:
        """The polynomial laws as text."""
        return self.polynomials.formulas() if self.polynomials is not None else []


def conservation_laws(
    fields: Fields | Sequence[Callable[[Tensor], Tensor]],
    theta: Tensor | None = None,
    *,
    method: Method = "auto",
    degree: int = 2,
    tol: float = 1e-8,
    generator: torch.Generator | None = None,
) -> LawReport:
    """Count and find the laws of a family of vector fields.

    Args:
        fields: a family from ``fields_from_map`` or ``fields_from_model``, or callables
            ``theta (D,) -> (D,)``.
        theta: (D,) generic point at which ranks are taken; by default a random one. Never the
            initialisation of a network: zeros and ties lower the rank.
        method: ``linear``: quadratic laws from linear symmetries (the cheap one, to D ≈ 64).
            ``brackets``: Lie rank, an upper bound on any law. ``poly``: polynomials by SVD.
            ``exact``: polynomials with rational coefficients. ``orbit``: a cross-check only.
            ``auto``: brackets and polynomials up to D = 40, linear above.
        degree: of the polynomials.
        tol: relative cut of singular values; a gap of 10³ is asked for as well.
        generator: of the random points and combinations.

    Returns:
        The report.

    Raises:
        TypeError: if θ is not floating point.
        ValueError: if θ is not generic or of the wrong shape, or D is too large for the method.
        AmbiguousRank: if a rank cannot be told.

    Example:
        Two weights in a row, f = u·v·x, conserve u² − v²:

        >>> from thalweg.laws import fields_from_map
        >>> report = conservation_laws(fields_from_map(lambda t: t[0] * t[1], 2, names=("u", "v")))
        >>> report.n_laws, report.complete, report.formulas
        (1, True, ['u² - v²'])
    """
    if theta is None:
        if not isinstance(fields, Fields):
            raise ValueError("theta is needed with explicit fields: it says how many parameters")
        theta = generic_point(fields.dim, generator=generator)
    theta = _checked(theta)
    family = Fields.of(fields, len(theta))
    generator = generator or torch.Generator().manual_seed(0)
    if method == "auto":
        method = "brackets" if family.dim <= MAX_EXACT_DIM else "linear"
        both = method == "brackets"
    else:
        both = False
    if method == "brackets":
        if both and family.kink:
            found = polynomial_laws(family, degree=degree, tol=tol, generator=generator)
            return _below(family, "poly", found.independent, found.gap, polynomials=found)
        return _by_brackets(family, theta, both, degree, tol, generator)
    if method in ("poly", "exact"):
        find = exact_laws if method == "exact" else polynomial_laws
        keywords = {} if method == "exact" else {"tol": tol}
        found = find(family, degree=degree, generator=generator, **keywords)
        return _below(family, method, found.independent, found.gap, polynomials=found)
    if method == "linear":
        found = linear_symmetries(family, tol=tol, generator=generator)
        return _below(family, method, found.independent, found.gap, symmetries=found)
    if method == "orbit":
        rank = orbit_rank(family, theta, generator=generator)
        note = "the orbit rank can be too low: a cross-check only"
        laws = family.dim - rank
        return LawReport(
            family.dim, method, laws, None, None, False, rank, (), float("nan"), note=note
        )
    raise ValueError(f"method must be auto, brackets, poly, exact, linear or orbit, got {method!r}")


def _by_brackets(
    family: Fields,
    theta: Tensor,
    both: bool,
    degree: int,
    tol: float,
    generator: torch.Generator,
) -> LawReport:
    if family.dim > MAX_EXACT_DIM:
        raise ValueError(
            f"{family.dim} parameters are too many for brackets (at most {MAX_EXACT_DIM}): use "
            "method='linear' (to 64), known_laws(module), or a smaller model of the same "
            "architecture"
        )
    lie = lie_rank(family, theta, tol=tol, generator=generator)
    # A second point tells a special theta from a generic one.
    again = lie_rank(family, generic_point(family.dim, generator=generator), tol=tol,
                     generator=generator)  # fmt: skip
    if again.rank > lie.rank:
        raise ValueError(
            f"theta is not generic: the Lie rank there is {lie.rank}, at a random point "
            f"{again.rank}. Leave theta out, or draw another"
        )
    upper, gap = family.dim - lie.rank, min(lie.gap, again.gap)
    note = "" if lie.closed else "brackets were cut off: fewer laws are possible"
    if not family.whole:
        note = "more samples would add fields: fewer laws are possible"
    polynomials, lower = None, None
    if both:
        polynomials = polynomial_laws(family, degree=degree, tol=tol, generator=generator)
        lower, gap = polynomials.independent, min(gap, polynomials.gap)
    if lie.rank <= 1 and upper > 0:
        note = "a single field: all admissible data give one trajectory, so the laws are trivial"
    return LawReport(
        dim=family.dim,
        method="brackets and polynomials" if both else "brackets",
        n_laws=upper,
        lower=lower,
        upper=upper,
        complete=lower == upper,
        lie_dim=lie.rank,
        history=lie.history,
        gap=gap,
        polynomials=polynomials,
        note=note,
    )


def _below(
    family: Fields,
    method: str,
    lower: int,
    gap: float,
    *,
    polynomials: Polynomials | None = None,
    symmetries: LinearSymmetries | None = None,
) -> LawReport:
    return LawReport(
        dim=family.dim,
        method=method,
        n_laws=lower,
        lower=lower,
        upper=None,
        complete=False,
        lie_dim=None,
        history=(),
        gap=gap,
        polynomials=polynomials,
        symmetries=symmetries,
        note="a lower bound: laws of another form were not looked for",
    )


def _checked(theta: Tensor) -> Tensor:
    if not isinstance(theta, Tensor) or not theta.is_floating_point():
        kind = getattr(theta, "dtype", type(theta).__name__)
        raise TypeError(f"theta must be a floating-point tensor, got {kind}")
    if theta.ndim != 1 or not len(theta):
        raise ValueError(f"theta must have shape (D,), got {tuple(theta.shape)}")
    theta = theta.detach().double()
    if not torch.isfinite(theta).all():
        raise ValueError("theta is not finite")
    if (theta == 0).any() or len(theta.abs().unique()) < len(theta):
        raise ValueError(
            "theta is not generic: it has zeros or coordinates of equal size, which lower ranks. "
            "Leave it out, or use generic_point(dim)"
        )
    return theta
