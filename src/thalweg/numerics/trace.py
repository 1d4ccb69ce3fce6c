"""Trace of an operator from a few products, with a standard error.

Three estimators: Hutchinson's, best where the spectrum is flat; Hutch++ and XTrace, which project
out the large eigenvalues and are best where it decays, as a Hessian's does. Axes: `p` rows of the
operator, `N` probes, as columns.

Source: Hutchinson 1990; Meyer et al. 2021, arXiv 2010.09649; Epperly et al. 2024, arXiv 2301.07825.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from thalweg.numerics.operators import LinearOperator, as_operator

__all__ = ["TraceEstimate", "hutchinson", "hutchpp", "trace", "xtrace"]


class TraceEstimate(NamedTuple):
    """A trace and one standard error of it (nan where a single probe gives none)."""

    value: float
    stderr: float


def hutchinson(A: LinearOperator, Omega: Tensor) -> Tensor:
    """One estimate ωᵀAω per probe, (N,). N products.

    Source: Hutchinson 1990, Commun. Stat. Simul. Comput. 19(2).
    """
    return (Omega * A.matmat(Omega)).sum(0)


def hutchpp(A: LinearOperator, S: Tensor, G: Tensor) -> Tensor:
    """One estimate tr(QᵀAQ) + gᵀ(I−QQᵀ)A(I−QQᵀ)g per probe in G, (N,); Q = orth(AS).

    2 N_S + N_G products. Source: Meyer, Musco, Musco, Woodruff 2021, arXiv 2010.09649.
    """
    Q = torch.linalg.qr(A.matmat(S)).Q
    G = G - Q @ (Q.T @ G)
    return (Q * A.matmat(Q)).sum() + hutchinson(A, G)


def xtrace(A: LinearOperator, Omega: Tensor) -> Tensor:
    """One estimate per probe, each with the others as sketch, (N,); one entry if AΩ has less rank.

        tr(Q_iᵀ A Q_i) + ω_iᵀ (I − Q_i Q_iᵀ) A (I − Q_i Q_iᵀ) ω_i,   Q_i = orth(AΩ without column i)

    2N products. If AΩ is rank-deficient, Q spans the range of A and tr(QᵀAQ) is the trace.

    Source: Epperly, Tropp, Webber 2024, arXiv 2301.07825, section 2; without its normalisation.
    """
    Y = A.matmat(Omega)
    Q, R = torch.linalg.qr(Y)
    return _leave_one_out(*_small(Omega, Y, Q, R, A.matmat(Q)))


def trace(
    A: LinearOperator | Callable[[Tensor], Tensor] | Tensor,
    method: str = "xtrace",
    num_matvecs: int | None = None,
    generator: torch.Generator | None = None,
    *,
    dim: int | None = None,
    rel_stderr: float = 0.05,
    max_matvecs: int = 200,
) -> TraceEstimate:
    """Trace of a square operator, by random signs.

    Args:
        A: operator, callable with ``dim``, or dense (p, p) tensor.
        method: ``hutchinson``, ``hutch++`` or ``xtrace``.
        num_matvecs: products to spend: a multiple of 3 for Hutch++ and of 2 for XTrace, or p and
            more, where the diagonal is read off exactly. Default: until ``rel_stderr`` is met.
        generator: of the probes; default: one of its own with a fixed seed.
        dim: p, for a callable.
        rel_stderr: standard error over |trace| at which to stop.
        max_matvecs: where to stop if it is not met.

    Returns:
        (value, stderr). The operator's ``num_matvecs`` says what was spent. XTrace's estimates
        share their sketches, which its stderr takes into account (it errs on the large side).

    Raises:
        ValueError: if an argument is out of range.
        FloatingPointError: if a product is not finite.

    Example:
        One probe is enough for a diagonal matrix.

        >>> import torch
        >>> A = torch.diag(torch.tensor([1.0, 2.0, 3.0, 4.0]))
        >>> trace(A, "hutchinson", 2)
        TraceEstimate(value=10.0, stderr=0.0)
    """
    operator = as_operator(A, dim)
    unit = {"hutchinson": 1, "hutch++": 3, "xtrace": 2}.get(method)
    if unit is None:
        raise ValueError(
            f"trace: method must be 'hutchinson', 'hutch++' or 'xtrace', got {method!r}"
        )
    exact = num_matvecs is not None and num_matvecs >= operator.dim
    if num_matvecs is not None and not exact and (num_matvecs < 1 or num_matvecs % unit):
        raise ValueError(
            f"trace: {method} spends its products {unit} at a time; num_matvecs={num_matvecs} is "
            f"not a positive multiple of {unit}"
        )
    if not rel_stderr > 0 or max_matvecs < unit:
        raise ValueError(
            f"trace: need rel_stderr > 0 and max_matvecs >= {unit}; got {rel_stderr}, {max_matvecs}"
        )
    generator = generator or torch.Generator().manual_seed(0)
    if exact:
        return _exact(operator)
    if num_matvecs is not None:
        return _fixed(operator, method, num_matvecs // unit, generator)
    if operator.dim <= 16:
        return _exact(operator)
    cap = min(max_matvecs, operator.dim)
    return _adaptive(operator, method, rel_stderr, cap, generator)


def _fixed(A: LinearOperator, method: str, N: int, generator: torch.Generator) -> TraceEstimate:
    if method == "hutchinson":
        return _summary(hutchinson(A, _signs(A, N, generator)))
    if method == "hutch++":
        return _summary(hutchpp(A, _signs(A, N, generator), _signs(A, N, generator)))
    Omega = _signs(A, N, generator)
    Y = A.matmat(Omega)
    Q, R = torch.linalg.qr(Y)
    return _xtrace_summary(*_small(Omega, Y, Q, R, A.matmat(Q)))


def _adaptive(
    A: LinearOperator, method: str, rel_stderr: float, cap: int, generator: torch.Generator
) -> TraceEstimate:
    """Adds probes until the standard error is met; what was multiplied is not multiplied again.

    Eight probes at least: of fewer, the spread may be small by chance.
    """
    begin = A.num_matvecs
    empty = torch.empty((A.dim, 0), dtype=A.dtype, device=A.device)
    Omega, Y, Q, Z = empty, empty, empty, empty
    if method == "hutch++":  # a third of the budget that the goal is thought to need
        Q = torch.linalg.qr(A.matmat(_signs(A, 8, generator))).Q
        Z = A.matmat(Q)
    price = 2 if method == "xtrace" else 1
    estimate = TraceEstimate(float("nan"), float("nan"))
    while True:
        room = (cap - (A.num_matvecs - begin)) // price
        count = min(8 if Omega.shape[1] == 0 else max(4, Omega.shape[1] // 4), room)
        if count <= 0:
            return estimate
        fresh = _signs(A, count, generator)
        if method == "hutch++":
            fresh = fresh - Q @ (Q.T @ fresh)
        Omega, Y = torch.cat([Omega, fresh], 1), torch.cat([Y, A.matmat(fresh)], 1)
        if method == "xtrace":
            Q, R = _extended(Q, Y)
            Z = torch.cat([Z, A.matmat(Q[:, Z.shape[1] :])], 1)
            estimate = _xtrace_summary(*_small(Omega, Y, Q, R, Z))
        else:
            estimate = _summary((Q * Z).sum() + (Omega * Y).sum(0))
        if estimate.stderr <= rel_stderr * abs(estimate.value):
            return estimate


def _extended(Q: Tensor, Y: Tensor) -> tuple[Tensor, Tensor]:
    """QR of Y, (p, N), whose first columns are those of Q, so that AQ need only be extended."""
    new = Y[:, Q.shape[1] :]
    for _ in range(2):
        new = new - Q @ (Q.T @ new)
    Q = torch.cat([Q, torch.linalg.qr(new).Q], 1)
    return Q, torch.triu(Q.T @ Y)


def _small(
    Omega: Tensor, Y: Tensor, Q: Tensor, R: Tensor, Z: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """All that XTrace needs, in the N coordinates of Q: R, QᵀAQ, QᵀΩ, (AQ)ᵀΩ + QᵀY, diag(ΩᵀY)."""
    return R, Q.T @ Z, Q.T @ Omega, Z.T @ Omega + Q.T @ Y, (Omega * Y).sum(0)


def _leave_one_out(R: Tensor, H: Tensor, X: Tensor, W: Tensor, diagonal: Tensor) -> Tensor:
    size = R.diagonal().abs()
    if size.min() <= 50 * torch.finfo(R.dtype).eps * size.max():
        return H.trace().reshape(1)
    eye = torch.eye(len(R), dtype=R.dtype, device=R.device)
    S = torch.linalg.solve_triangular(R, eye, upper=True).T
    S = S / torch.linalg.vector_norm(S, dim=0)  # column i: what Q loses without probe i
    X = X - S * (S * X).sum(0)
    inside = H.trace() - (S * (H @ S)).sum(0)
    outside = diagonal - (X * W).sum(0) + (X * (H @ X)).sum(0)
    return inside + outside


def _jackknife(R: Tensor, H: Tensor, X: Tensor, W: Tensor, diagonal: Tensor) -> Tensor:
    """XTrace anew without each probe in turn, (N,); no product, only N × N matrices."""
    N = len(R)
    without = []
    for j in range(N):
        kept = [i for i in range(N) if i != j]
        U, R_kept = torch.linalg.qr(R[:, kept])
        small = (U.T @ H @ U, U.T @ X[:, kept], U.T @ W[:, kept], diagonal[kept])
        without.append(_leave_one_out(R_kept, *small).mean())
    return torch.stack(without)


def _xtrace_summary(R: Tensor, H: Tensor, X: Tensor, W: Tensor, diagonal: Tensor) -> TraceEstimate:
    """Mean and standard error of estimates that depend on each other through their sketches.

    Split the variance into A, of single probes, and B, of pairs. The spread of the estimates shows
    A + B/2, the jackknife A + 2B (Efron & Stein 1981), so that two parts of the first and one of
    the second make 3 (A + B); what triples add, and that the jackknife's sketches are smaller,
    makes it larger.
    """
    samples = _leave_one_out(R, H, X, W, diagonal)
    estimate = _summary(samples)
    N = samples.numel()
    if N == 1 and len(R) > 1:
        return estimate._replace(stderr=0.0)  # AΩ has less rank: Q spans the range of A
    if N < 3:
        return estimate
    without = _jackknife(R, H, X, W, diagonal).double()
    jackknife = (N - 1) / N * float((without - without.mean()).square().sum())
    return estimate._replace(stderr=((2 * estimate.stderr**2 + jackknife) / 3) ** 0.5)


def _summary(samples: Tensor) -> TraceEstimate:
    samples = samples.double()
    value, N = float(samples.mean()), samples.numel()
    if not math.isfinite(value):
        raise FloatingPointError("trace: the operator returned a non-finite product")
    return TraceEstimate(value, float(samples.std()) / N**0.5 if N > 1 else float("nan"))


def _exact(A: LinearOperator) -> TraceEstimate:
    total = 0.0
    for i in range(A.dim):
        unit = torch.zeros(A.dim, dtype=A.dtype, device=A.device)
        unit[i] = 1.0
        total += float(A.matvec(unit)[i])
    if not math.isfinite(total):
        raise FloatingPointError("trace: the operator returned a non-finite product")
    return TraceEstimate(total, 0.0)


def _signs(A: LinearOperator, N: int, generator: torch.Generator) -> Tensor:
    """Independent random signs, (p, N)."""
    rows = torch.empty((N, A.dim), dtype=A.dtype, device=generator.device)
    rows.bernoulli_(0.5, generator=generator).mul_(2).sub_(1)
    return rows.to(A.device).T
