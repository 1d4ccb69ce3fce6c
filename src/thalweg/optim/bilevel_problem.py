"""A problem of two levels, and the gradient of its upper loss through the lower solution.

    min_x Φ(x) = f(x, y*(x)),   y*(x) = argmin_y g(x, y)
    ∇Φ = ∇_x f − ∂_x ⟨∇_y g, z⟩,   ∇²_yy g · z = ∇_y f

with g strongly convex in y. At an approximate y the same formula is used. z, the adjoint, is found
by one of four solvers; the fifth way differentiates through steps on g.

Source: the formula is the implicit function theorem, as in F. Pedregosa 2016, arXiv 1602.02355;
unrolling: L. Franceschi et al. 2017, arXiv 1703.01785; the solvers: ``thalweg.optim.adjoint``.

Axes: `D` numbers in the lower variable, over all its tensors.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from thalweg.numerics.untouched import untouched
from thalweg.optim.adjoint import (
    LowerHessian,
    Method,
    check_settings,
    cross_term,
    warn_if_none,
)
from thalweg.optim.leaves import Leaves, filled, scalar

__all__ = ["BilevelProblem", "Evaluation", "as_draw", "evaluated", "hypergradient"]


@dataclass(frozen=True)
class BilevelProblem:
    """Upper and lower loss, each ``(x, y, batch) -> scalar``.

    x and y are tensors, or dicts, lists and tuples of them (for a module, take the dict of its
    parameters and ``torch.func.functional_call``). Losses must be twice differentiable, the lower
    one strongly convex in y. cuDNN's recurrent layers are not
    (``torch.backends.cudnn.enabled = False``); attention takes its plain kernel. Where a loss is
    differentiated twice, the running statistics of batch norm and the random state stay.

    Attributes:
        upper_loss: f.
        lower_loss: g.
    """

    upper_loss: Callable[[Any, Any, Any], Tensor]
    lower_loss: Callable[[Any, Any, Any], Tensor]


def hypergradient(
    problem: BilevelProblem,
    x: Any,
    y: Any,
    *,
    batch: Any = None,
    method: Method = "neumann",
    num_terms: int = 20,
    lr: float | None = None,
    damping: float = 0.0,
) -> Any:
    """Gradient of the upper loss in x, through the lower solution near y.

    Args:
        problem: the two losses.
        x: upper variable.
        y: lower variable, best at its solution for this x.
        batch: handed to both losses. A callable is called for a new one at each use: then every
            factor of the series has its own, as the theory of the stochastic method wants.
        method: ``neumann``: lr Σ_{q<Q} (I − lr H)^q ∇_y f; ``cg``: conjugate gradients;
            ``exact``: dense H; ``lsgd``: Q steps z ← z − lr (Hz − ∇_y f) from 0; ``unroll``:
            through Q gradient steps on g that start at y, taken as constant (as in MAML).
        num_terms: Q, or conjugate gradient steps at most.
        lr: of the series or the steps, at most 1/λ_max(H); default just that, found by Lanczos.
            Not used by ``cg`` and ``exact``.
        damping: added to the diagonal of H, for a lower loss that is not convex enough.

    Returns:
        A nest like x. Where x does not influence the lower loss: a warning, and ∇_x f alone.

    Raises:
        TypeError: for anything but real floating tensors in x and y.
        ValueError: for settings out of range; if the series grows (lr above 2/λ_max, or H not
            positive); if conjugate gradients meet negative curvature.

    Cost: about four gradients, and two a product with H (Q − 1 for the series).

    Source: entry bilevel-bo-rep; Pedregosa 2016, arXiv 1602.02355.

    Example:
        g = ½(y − x)², f = ½y²: the solution is y = x, so Φ = ½x².

        >>> problem = BilevelProblem(
        ...     lambda x, y, batch: 0.5 * y**2, lambda x, y, batch: 0.5 * (y - x) ** 2
        ... )
        >>> hypergradient(problem, torch.tensor(3.0), torch.tensor(3.0))
        tensor(3.)
    """
    xs, ys = Leaves(x, "x"), Leaves(y, "y")
    return xs.build(evaluated(problem, xs, ys, batch, method, num_terms, lr, damping).grads)


@dataclass(frozen=True)
class Evaluation:
    """Upper loss; hypergradient, a list like the tensors of x; adjoint (D,), None if unrolled."""

    loss: Tensor
    grads: list[Tensor]
    z: Tensor | None


def evaluated(
    problem: BilevelProblem,
    x: Leaves,
    y: Leaves,
    batch: Any,
    method: Method,
    num_terms: int,
    lr: float | None,
    damping: float,
    start: Tensor | None = None,
) -> Evaluation:
    """``hypergradient`` with what it found on the way; ``start`` (D,) warm starts ``lsgd``."""
    check_settings(method, num_terms, lr, damping)
    draw = as_draw(batch)
    if method == "unroll":
        return _unrolled(problem, x, y, draw, num_terms, lr)
    xs, ys = x.tracked(), y.tracked()
    with torch.enable_grad():
        loss = scalar(problem.upper_loss(x.build(xs), y.build(ys), draw()), "upper_loss")
    slopes = torch.autograd.grad(loss, [*xs, *ys], allow_unused=True, materialize_grads=True)
    direct, into_y = slopes[: len(xs)], slopes[len(xs) :]
    with LowerHessian(
        problem.lower_loss, x, y, draw, damping=damping, fresh=callable(batch)
    ) as hessian:
        z = hessian.solve(into_y, method, num_terms, lr, start)
    cross = cross_term(problem.lower_loss, x, y, draw(), z)
    return Evaluation(loss.detach(), [d - c for d, c in zip(direct, cross, strict=True)], z)


def _unrolled(
    problem: BilevelProblem,
    x: Leaves,
    y: Leaves,
    draw: Callable[[], Any],
    num_terms: int,
    lr: float | None,
) -> Evaluation:
    if lr is None:
        with LowerHessian(problem.lower_loss, x, y, draw) as hessian:
            lr = 1 / hessian.largest()
    xs, ys = x.tracked(), y.tracked()
    with untouched(ys):
        for _ in range(num_terms):
            lower = scalar(problem.lower_loss(x.build(xs), y.build(ys), draw()), "lower_loss")
            slopes = torch.autograd.grad(
                lower, ys, create_graph=True, allow_unused=True, materialize_grads=True
            )
            ys = [t - lr * s for t, s in zip(ys, slopes, strict=True)]
        loss = scalar(problem.upper_loss(x.build(xs), y.build(ys), draw()), "upper_loss")
    found = torch.autograd.grad(loss, xs, allow_unused=True)
    warn_if_none(found)
    return Evaluation(loss.detach(), filled(found, xs), None)


def as_draw(batch: Any) -> Callable[[], Any]:
    """What gives a batch: the callable, or one that always gives the same."""
    return batch if callable(batch) else lambda: batch
