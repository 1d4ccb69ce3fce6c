"""Find the continuous symmetries of a function from its gradients.

Every matrix A with ∇f(x)·Ax = 0 at all samples generates a symmetry: they are the null space of the
rows ∇f(x)⊗x. Source: LieSD, 2024, arXiv 2410.09841. Departures: directions in which f or the
samples never vary allow any A, and these are told apart from symmetries that say something; what
is found is checked to close under brackets, and the metric that it preserves is named.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from thalweg.laws.rank import AmbiguousRank
from thalweg.numerics.untouched import untouched

__all__ = ["SymmetryReport", "discover_symmetries"]

#: Least ratio between the smallest kept and the largest dropped singular value.
MIN_GAP = 10.0
#: Relative cut: round-off of a gradient by its dtype, with a margin of 10³ and more.
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4}


@dataclass(frozen=True)
class SymmetryReport:
    """The symmetries of a function, and how sure they are.

    With ``affine``, e = d + 1 and the last column of a matrix is a translation; else e = d.

    Attributes:
        dim: number of independent generators, those that say nothing included.
        basis: (dim, d, e) orthonormal generators (orthonormal together with ``out_basis``), those
            that say something first.
        out_basis: (dim, m, m) what each does to the output; zero for an invariant one.
        informative: how many say something: the rest moves dead or unseen directions only.
        singular_values: (unknowns,) ascending, root mean square over the samples.
        gap: first singular value above the cut ÷ last below it; inf if that is zero or there is
            none on one side.
        dead: (k, d) orthonormal directions in which f does not vary.
        unseen: (q, e) orthonormal directions in which the samples do not vary.
        bracket_defect: largest part of a bracket of two informative generators that lies outside
            the span of all, relative to the bracket; 0 for a Lie algebra.
        form: (d, d) the symmetric form that all informative generators preserve, of largest
            eigenvalue ±1, or None if there is none or more than one.
    """

    dim: int
    basis: Tensor
    out_basis: Tensor
    informative: int
    singular_values: Tensor
    gap: float
    dead: Tensor
    unseen: Tensor
    bracket_defect: float
    form: Tensor | None

    @property
    def signature(self) -> tuple[int, int] | None:
        """Positive and negative eigenvalues of ``form``, the larger first: (3, 1) for so(1,3)."""
        if self.form is None:
            return None
        values = torch.linalg.eigvalsh(self.form)
        counts = int((values > 1e-3).sum()), int((values < -1e-3).sum())
        return max(counts), min(counts)


def discover_symmetries(
    f: Callable[[Tensor], Tensor],
    x: Tensor,
    *,
    output: Literal["invariant", "equivariant"] | None = None,
    affine: bool = False,
    dim: int | None = None,
    tol: float | None = None,
) -> SymmetryReport:
    """All matrices that generate a symmetry of a function.

        invariant: ∇f(x)·Ax = 0,    equivariant: B f(x) − Df(x) A x = 0   for all samples x

    Args:
        f: differentiable, (N, d) to (N,) or (N, m), one sample independent of the others. Left as
            it was.
        x: (N, d) generic samples, at least twice as many equations (N·m) as unknowns (d·e, and m²
            for B). Use float64 for exact functions; float32 limits the gap to about 1e4.
        output: whether the output is unchanged, or changes by a matrix B of its own. By default
            invariant for one number per sample, equivariant for several.
        affine: A may also translate.
        dim: take that many generators whatever the gap, for a trained network: read it off a jump
            in ``singular_values``.
        tol: singular values up to ``tol`` × the largest count as zero; by default 1e-9 in float64,
            1e-4 in float32. Dead and unseen directions are told by the same.

    Returns:
        A SymmetryReport in the dtype of x.

    Raises:
        ValueError: for too few samples, shapes that do not fit, or values that are not finite.
        AmbiguousRank: if the gap at the cut is below 10; not if ``dim`` is given.

    Cost:
        m gradients over all samples, one SVD of (N·m, unknowns).

    Source:
        LieSD 2024, arXiv 2410.09841.

    Example:
        >>> x = torch.randn(100, 3, dtype=torch.float64)
        >>> report = discover_symmetries(lambda x: x.square().sum(1), x)
        >>> report.dim, report.signature
        (3, (3, 0))
        >>> report = discover_symmetries(lambda x: x[:, 0] ** 2 + x[:, 1] ** 2, x)
        >>> report.dim, report.informative, len(report.dead)
        (4, 1, 1)
    """
    if x.ndim != 2 or not x.is_floating_point() or not len(x):
        raise ValueError(f"x must be floating (N, d), got shape {tuple(x.shape)} of {x.dtype}")
    if output not in (None, "invariant", "equivariant"):
        raise ValueError(f"output must be 'invariant' or 'equivariant', got {output!r}")
    y, jacobian = _values_and_jacobian(f, x)
    if output is None:
        output = "invariant" if y.shape[1] == 1 else "equivariant"
    tol = TOLERANCE.get(x.dtype, 1e-4) if tol is None else tol
    seen = torch.cat([x, x.new_ones(len(x), 1)], 1) if affine else x
    (n, d), e, m = x.shape, seen.shape[1], y.shape[1]
    rows = torch.einsum("nai,nj->naij", jacobian, seen).reshape(n * m, d * e)
    if output == "equivariant":
        eye = torch.eye(m, dtype=x.dtype, device=x.device)
        right = torch.einsum("ab,nc->nabc", eye, y).reshape(n * m, m * m)
        rows = torch.cat([-rows, right], 1)
    unknowns = rows.shape[1]
    if len(rows) < 2 * unknowns:
        raise ValueError(
            f"{n} samples give {len(rows)} equations for {unknowns} unknowns; give at least "
            f"{math.ceil(2 * unknowns / m)} samples"
        )
    if not torch.isfinite(rows).all():
        raise ValueError("f or its gradient is not finite at some samples; leave those out")
    # The R of a QR has the singular values of the whole at the price of a square matrix.
    _, values, vh = torch.linalg.svd(torch.linalg.qr(rows / math.sqrt(n), mode="r")[1])
    values, vectors = values.flip(0), vh.flip(0)
    found, gap = _cut(values, dim, tol)
    null = vectors[:found]
    dead = _still(jacobian.reshape(-1, d), tol)
    unseen = _still(seen, tol)
    null, informative = _informative_first(null, _idle(dead, unseen, d, e))
    basis = null[:, : d * e].reshape(found, d, e)
    out_basis = x.new_zeros(found, m, m)
    if output == "equivariant":
        out_basis = null[:, d * e :].reshape(found, m, m)
    telling = basis[:informative]
    return SymmetryReport(
        dim=found,
        basis=basis,
        out_basis=out_basis,
        informative=informative,
        singular_values=values,
        gap=gap,
        dead=dead,
        unseen=unseen,
        bracket_defect=_bracket_defect(telling, basis),
        form=_form(telling, 1e-6 if dim is None else 0.1),
    )


def _values_and_jacobian(f: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    """f(x) as (N, m) and its Jacobian (N, m, d)."""
    points = x.detach().clone().requires_grad_()
    params = list(f.parameters()) if isinstance(f, nn.Module) else []
    with untouched(params), torch.enable_grad():
        y = f(points)
        if y.ndim not in (1, 2) or len(y) != len(x):
            raise ValueError(
                f"f must map (N, d) to (N,) or (N, m), {tuple(x.shape)} gave {tuple(y.shape)}"
            )
        y = y.reshape(len(x), -1)
        columns = []
        for column in y.unbind(1):
            (gradient,) = (
                torch.autograd.grad(column.sum(), points, retain_graph=True, allow_unused=True)
                if column.requires_grad
                else (None,)
            )
            columns.append(torch.zeros_like(x) if gradient is None else gradient)
    return y.detach(), torch.stack(columns, 1)


def _cut(values: Tensor, dim: int | None, tol: float) -> tuple[int, float]:
    """How many of the ascending singular values are zero, and the gap there."""
    top = float(values[-1])
    if dim is not None and not 0 <= dim <= len(values):
        raise ValueError(f"dim must be from 0 to {len(values)}, got {dim}")
    found = int((values <= tol * top).sum()) if dim is None else dim
    gap = math.inf
    if 0 < found < len(values) and float(values[found - 1]) > 0:
        gap = float(values[found] / values[found - 1])
    if dim is None and gap < MIN_GAP:
        raise AmbiguousRank(
            f"symmetries: singular values {float(values[found - 1]):.1e} and "
            f"{float(values[found]):.1e} lie on both sides of the cut, only a factor {gap:.1f} "
            f"apart (at least {MIN_GAP:.0f} needed). Give another tol, or dim= for a network that "
            "has a symmetry only roughly"
        )
    return found, gap


def _still(rows: Tensor, tol: float) -> Tensor:
    """Orthonormal directions that are orthogonal to all rows."""
    _, values, vh = torch.linalg.svd(torch.linalg.qr(rows, mode="r")[1], full_matrices=True)
    zero = torch.ones(len(vh), dtype=torch.bool, device=rows.device)
    zero[: len(values)] = values <= tol * values.max()
    return vh[zero]


def _idle(dead: Tensor, unseen: Tensor, d: int, e: int) -> Tensor:
    """Spanning set (s, d, e) of the matrices that any function of that kind allows."""
    eye_d, eye_e = torch.eye(d).to(dead), torch.eye(e).to(dead)
    into_dead = torch.einsum("ki,aj->kaij", dead, eye_e).reshape(-1, d, e)
    from_unseen = torch.einsum("ai,qj->aqij", eye_d, unseen).reshape(-1, d, e)
    return torch.cat([into_dead, from_unseen])


def _informative_first(null: Tensor, idle: Tensor) -> tuple[Tensor, int]:
    """Turn an orthonormal null space so that what is orthogonal to the idle matrices comes first.

    Args:
        null: (k, unknowns).
        idle: (s, d, e).

    Returns:
        The turned basis, and how many come first.
    """
    if not len(idle) or not len(null):
        return null, len(null)
    flat = torch.zeros(len(idle), null.shape[1]).to(null)
    flat[:, : idle[0].numel()] = idle.flatten(1)
    _, values, vh = torch.linalg.svd(flat, full_matrices=False)
    within = null @ vh[values > 1e-6 * values.max()].T
    # Singular values are cosines to the idle space: 1 within it, 0 orthogonal to it.
    u, cosines, _ = torch.linalg.svd(within, full_matrices=True)
    cosine = torch.zeros(len(null)).to(null)
    cosine[: len(cosines)] = cosines
    return (u.T @ null).flip(0), int((cosine < 0.5).sum())


def _bracket_defect(telling: Tensor, basis: Tensor) -> float:
    """How far brackets of some generators leave the span of all."""
    d, e = basis.shape[1:]
    # A translation is the last column of a square matrix whose last row is zero.
    square = torch.nn.functional.pad(telling, (0, 0, 0, e - d))
    # Not all A need be independent where the output has a B of its own: the SVD sorts it out.
    u, values, _ = torch.linalg.svd(basis.flatten(1).T, full_matrices=False)
    span = u[:, values > 1e-6]
    worst = 0.0
    for i in range(len(square)):
        for j in range(i):
            bracket = (square[i] @ square[j] - square[j] @ square[i])[:d].flatten()
            size = float(bracket.norm())
            if size > 1e-6:
                worst = max(worst, float((bracket - span @ (span.T @ bracket)).norm()) / size)
    return worst


def _form(telling: Tensor, tol: float) -> Tensor | None:
    """The symmetric η with Aᵀη + ηA = 0 for every linear part A, if it is the only one."""
    d = telling.shape[1]
    if not len(telling):
        return None
    i, j = torch.triu_indices(d, d)
    basis = torch.zeros(len(i), d, d).to(telling)
    basis[torch.arange(len(i)), i, j] = 1.0
    basis[torch.arange(len(i)), j, i] = 1.0
    basis = basis / basis.flatten(1).norm(dim=1)[:, None, None]
    a = telling[:, :, :d]
    half = torch.einsum("uab,gbc->ugac", basis, a)
    moved = (half + half.transpose(2, 3)).reshape(len(basis), -1)
    u, values, _ = torch.linalg.svd(moved)
    values = torch.cat([values, values.new_zeros(len(basis) - len(values))])
    if int((values <= tol * values.max()).sum()) != 1:
        return None
    form = torch.einsum("u,uab->ab", u[:, -1], basis)
    eigenvalues = torch.linalg.eigvalsh(form)
    return form / eigenvalues[eigenvalues.abs().argmax()].abs()
