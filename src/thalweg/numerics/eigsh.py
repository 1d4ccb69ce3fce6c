"""Extreme eigenvalues of a symmetric operator, and how sure one may be of them.

A small residual only says that *some* eigenvalue is near. That none lies further out is a statement
about the random start, and it is made here from what the run itself has seen (``tail_mass``).
Departs from Kuczyński & Woźniakowski 1992 (SIAM J. Matrix Anal. Appl. 13(4)), whose bound
1.648 √p exp(−√ε(2m−1)) on the chance of a bad start takes the worst spectrum for granted, about 200
products for ε = 1e-3: here the polynomial is the best one for the spectrum at hand, and since the
start is drawn once, the bound holds at whatever step one chooses to stop.

Axes: `p` rows of the operator, `k` wanted eigenvalues.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from thalweg.numerics.lanczos import Krylov, tail_mass
from thalweg.numerics.operators import LinearOperator, as_operator

__all__ = ["Eigenpairs", "eigsh"]

SIGNS = {"LA": (1,), "SA": (-1,), "LM": (1, -1)}
"""The ends of the spectrum at which a missed eigenvalue could lie."""


@dataclass(frozen=True)
class Eigenpairs:
    """Extreme eigenpairs with what is known of their accuracy.

    Attributes:
        values: (k,), best first; fewer if the products ran out.
        vectors: (p, k), unit columns.
        residuals: ‖A v − λ v‖ of the products as they came, not of T, (k,): an eigenvalue lies
            within that distance.
        probability: lower bound on the probability, over the random start, that no eigenvalue
            beyond the last of ``values`` was missed by more than the tolerance.
        num_matvecs: products spent.
        converged: all k are there, every residual is within the tolerance, and
            probability ≥ confidence.
    """

    values: Tensor
    vectors: Tensor
    residuals: Tensor
    probability: float
    num_matvecs: int
    converged: bool


def eigsh(
    A: LinearOperator | Callable[[Tensor], Tensor] | Tensor,
    k: int = 1,
    which: str = "LA",
    *,
    dim: int | None = None,
    tol: float = 1e-3,
    confidence: float = 0.99,
    max_matvecs: int = 200,
    v0: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Eigenpairs:
    """Extreme eigenvalues, with residuals and the probability that none was missed.

        P[an eigenvalue > μ exists] ≤ √(2 p c / π),   μ = θ_k + tol |θ_k|,   c = tail_mass(μ)

    If one existed, a random unit start would hold more than c of its eigenvector but for that
    probability; and the run shows that it holds at most c.

    Args:
        A: symmetric operator, callable with ``dim``, or dense (p, p) tensor.
        k: how many. A run sees one copy of a multiple eigenvalue: k > 1 spends at least one more
            run, from a start of its own, in the complement of what was found.
        which: ``LA`` largest, ``SA`` smallest, ``LM`` largest in magnitude.
        dim: p, for a callable.
        tol: accuracy relative to each |θ|, but never finer than the round-off of A.
        confidence: probability asked for.
        max_matvecs: products allowed, hence also vectors of length p held.
        v0: (p,) or (p, j) guesses, say of an earlier call; a random vector is always added.
        generator: of the random start; default: one of its own with a fixed seed.

    Raises:
        ValueError: if an argument is out of range or A is not symmetric.
        FloatingPointError: if a product is not finite.

    Example:
        >>> import torch
        >>> top = eigsh(torch.diag(torch.tensor([1.0, 4.0, 2.0])))
        >>> round(top.values.item(), 4), top.converged
        (4.0, True)
    """
    operator = as_operator(A, dim)
    p = operator.dim
    _check(operator, k, which, tol, confidence, max_matvecs)
    generator = generator or torch.Generator().manual_seed(0)
    begin = operator.num_matvecs
    # The residual of a single pair comes with its run; others take a product each.
    last = begin + max_matvecs - (k if k > 1 else 0)
    values, vectors = np.empty(0), _rows(operator)
    failure, scale = 1.0, 0.0
    single: tuple[float, float] | None = None
    while operator.num_matvecs < last and failure > 1 - confidence:
        start, stretch = _random_start(operator, v0 if len(values) == 0 else None, generator)
        krylov = Krylov(operator, start, vectors)
        if krylov.done:  # nothing is left outside what was found
            failure = 0.0
            break
        while True:
            krylov.step()
            m = len(krylov.alpha)
            full = krylov.done or operator.num_matvecs >= last
            if m % max(1, m // 8) and not full:
                continue
            theta, coefficients, residuals = krylov.ritz()
            scale = max(scale, float(np.abs(theta).max()))
            merged = np.concatenate([values, theta])
            order = _order(merged, which)[:k]
            new = order[order >= len(values)] - len(values)
            slack = tol * np.abs(theta[new]) + _floor(operator, scale)
            settled = bool((residuals[new] <= slack).all()) and len(order) == k
            failure, elsewhere = 1.0, True
            if len(order) == k:
                edge = float(merged[order[-1]])
                mu = tol * abs(edge) + _floor(operator, scale)
                failure, elsewhere = _failure(krylov, theta, which, edge, mu, stretch, p)
            if full or (settled and (elsewhere or failure <= 1 - confidence)):
                break
        new_rows = torch.from_numpy(coefficients[:, new].T.copy()).to(start) @ krylov.basis
        single = krylov.residual(coefficients[:, new[0]]) if k == 1 and not krylov.locked else None
        last = begin + max_matvecs - k
        fresh = torch.from_numpy(order >= len(values)).to(start.device)
        stacked = start.new_empty((len(order), p))
        stacked[fresh] = new_rows
        stacked[~fresh] = vectors[torch.from_numpy(order[order < len(values)]).to(start.device)]
        vectors = _orthonormal(stacked)
        values = merged[order]
    if single is None:
        values, residuals = _rayleigh(operator, vectors)
    else:
        values, residuals = (vectors.new_tensor([x]) for x in single)
    # twice: the residual carries the round-off of one more product
    met = bool((residuals <= tol * values.abs() + 2 * _floor(operator, scale)).all())
    converged = met and len(values) == k and failure <= 1 - confidence
    spent = operator.num_matvecs - begin
    return Eigenpairs(values, vectors.T, residuals, 1.0 - failure, spent, converged)


def _failure(
    krylov: Krylov, theta: np.ndarray, which: str, edge: float, slack: float, stretch: float, p: int
) -> tuple[float, bool]:
    """Chance that an eigenvalue beyond the edge was missed; whether this run can't tell."""
    free = p - krylov.locked
    total = 0.0
    for sign in SIGNS[which]:
        mu = (abs(edge) if which == "LM" else sign * edge) + slack
        if (sign * theta).max() > mu:
            return 1.0, True
        # The start is only known to its own round-off.
        c = max(tail_mass([sign * a for a in krylov.alpha], krylov.beta, mu), krylov.eps**2)
        total += math.sqrt(2 * free * c / math.pi) * stretch
    return min(1.0, total), False


def _random_start(
    operator: LinearOperator, v0: Tensor | None, generator: torch.Generator
) -> tuple[Tensor, float]:
    """A random unit vector plus the guess, and what the guess costs in probability.

    A fixed shift can't make it likelier that a component is small, the density of a component of a
    random unit vector in p ≥ 3 dimensions being greatest at 0; the longer vector costs its length.
    """
    p, device = operator.dim, generator.device
    g = torch.randn(p, generator=generator, dtype=operator.dtype, device=device)
    g = g.to(operator.device)
    g = g / torch.linalg.vector_norm(g)
    if v0 is None or p < 3:
        return g, 1.0
    guess = v0.detach().reshape(p, -1).sum(1).to(g)
    norm = float(torch.linalg.vector_norm(guess))
    if not 0 < norm < math.inf:
        return g, 1.0
    return g + guess / norm, 2.0


def _order(values: np.ndarray, which: str) -> np.ndarray:
    key = {"LA": -values, "SA": values, "LM": -np.abs(values)}[which]
    return np.argsort(key, kind="stable")


def _floor(operator: LinearOperator, scale: float) -> float:
    return 32 * torch.finfo(operator.dtype).eps * scale


def _rows(operator: LinearOperator) -> Tensor:
    return torch.empty((0, operator.dim), dtype=operator.dtype, device=operator.device)


def _orthonormal(rows: Tensor) -> Tensor:
    """Rows that are orthonormal up to round-off made so again; order kept."""
    return torch.linalg.qr(rows.T).Q.T if len(rows) > 1 else rows / torch.linalg.vector_norm(rows)


def _rayleigh(operator: LinearOperator, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Rayleigh quotients and residuals of unit rows, by one more product each."""
    product = operator.matmat(rows.T).to(rows)
    values = (rows.T * product).sum(0)
    return values, torch.linalg.vector_norm(product - values * rows.T, dim=0)


def _check(
    operator: LinearOperator, k: int, which: str, tol: float, confidence: float, max_matvecs: int
) -> None:
    if not operator.symmetric:
        raise ValueError("eigsh: the operator must be symmetric; symmetrise it, (A + Aᵀ)/2")
    if which not in SIGNS:
        raise ValueError(f"eigsh: which must be 'LA', 'SA' or 'LM', got {which!r}")
    if not 1 <= k <= operator.dim:
        raise ValueError(f"eigsh: need 1 <= k <= p = {operator.dim}, got k={k}")
    if not tol > 0 or not 0 < confidence < 1 or max_matvecs <= k:
        raise ValueError(
            "eigsh: need tol > 0, 0 < confidence < 1 and max_matvecs > k; got "
            f"{tol}, {confidence}, {max_matvecs}"
        )
