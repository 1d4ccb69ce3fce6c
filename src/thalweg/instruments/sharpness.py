"""Sharpness: the largest eigenvalue of the Hessian of the loss, and how sure one may be of it.

Source: Cohen, Kaur, Li, Kolter, Talwalkar 2021, arXiv 2103.00065; entry sgd-dynamical-stability.
Axes: `P` parameters in all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from thalweg.instruments.hessian_reading import hessian_reading
from thalweg.instruments.instrument import Reading, instrument
from thalweg.numerics import CurvatureOperator, LinearOperator, eigsh

__all__ = ["Sharpness", "sharpness"]


@dataclass(frozen=True)
class Sharpness(Reading):
    """A reading of λ_max.

    Attributes:
        value: the Ritz value.
        uncertainty: its residual: an eigenvalue lies within that distance of the value.
        status: ``ok`` only if the residual is within tol·|value| and the probability is as asked.
        probability: lower bound on the probability that no eigenvalue exceeds value + tol·|value|.
        num_matvecs: Hessian-vector products spent.
        vector: (P,) unit Ritz vector, a guess for the next call; None without a figure.
    """

    probability: float = float("nan")
    num_matvecs: int = 0
    vector: Tensor | None = field(default=None, repr=False, compare=False)


@instrument("closure", cost=25.0)
def sharpness(
    closure: Callable[[], Tensor],
    params: Iterable[Tensor],
    *,
    tol: float = 1e-3,
    confidence: float = 0.99,
    max_matvecs: int = 200,
    preconditioner: Sequence[Tensor] | None = None,
    v0: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Sharpness:
    """Largest Hessian eigenvalue λ_max by Lanczos, from a random start on every call.

    Gradient descent with step η is unstable along its eigenvector once it exceeds 2/η; see
    ``stability_threshold`` for other optimizers.

    Args:
        closure: evaluates the loss at the present weights, ``lambda: loss_fn(model, batch)``.
        params: the weights.
        tol: accuracy relative to λ_max.
        confidence: probability asked for that nothing larger was missed.
        max_matvecs: products allowed, and vectors of length P held.
        preconditioner: D > 0, one tensor per weight: measures D^-½ H D^-½ instead.
        v0: (P,) a guess, say the last reading's ``vector``; never used alone.
        generator: of the random start; default: one of its own with a fixed seed.

    Returns:
        Sharpness; if it didn't converge the value is a lower bound up to round-off and the status
        says so.

    Raises:
        ValueError: if an argument is out of range or the loss is not a differentiable scalar.

    Cost: 10 to 30 Hessian-vector products, as many vectors of length P, the graph of one gradient.

    Example:
        >>> import torch
        >>> w = torch.ones(2, requires_grad=True)
        >>> top = sharpness(lambda: w[0] ** 2 + 3 * w[1] ** 2, [w])
        >>> round(top.value, 4), top.status
        (6.0, 'ok')
    """
    params = list(params)
    scale = None if preconditioner is None else inverse_root(preconditioner, params)

    def measure(H: CurvatureOperator) -> Sharpness:
        operator = H if scale is None else preconditioned(H, scale)
        top = eigsh(
            operator,
            tol=tol,
            confidence=confidence,
            max_matvecs=max_matvecs,
            v0=v0,
            generator=generator,
        )
        residual = float(top.residuals[0])
        status = "ok"
        if not top.converged:
            status = (
                f"unsupported:not converged (residual {residual:.2g}, probability "
                f"{top.probability:.3f})"
            )
        return Sharpness(
            float(top.values[0]),
            residual,
            status,
            top.probability,
            top.num_matvecs,
            top.vectors[:, 0],
        )

    nan = float("nan")
    return hessian_reading(closure, params, measure, lambda status: Sharpness(nan, nan, status))


def preconditioned(H: LinearOperator, scale: Tensor) -> LinearOperator:
    """S H S for the diagonal S = ``scale``, (P,)."""

    def matvec(v: Tensor) -> Tensor:
        return scale * H.matvec(scale * v)

    return LinearOperator(matvec, H.dim, dtype=H.dtype, device=H.device)


def inverse_root(preconditioner: Sequence[Tensor], params: Sequence[Tensor]) -> Tensor:
    """D^-½ of the parameters that require grad, (P,)."""
    pairs = list(zip(preconditioner, params, strict=False))
    if len(preconditioner) != len(params) or any(d.shape != p.shape for d, p in pairs):
        raise ValueError("sharpness: the preconditioner must match the parameters tensor by tensor")
    diagonal = torch.cat([d.detach().reshape(-1) for d, p in pairs if p.requires_grad])
    if not bool((diagonal > 0).all()):
        raise ValueError("sharpness: the preconditioner must be positive")
    return diagonal.rsqrt()
