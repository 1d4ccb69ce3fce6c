"""BO-REP: bilevel optimisation with normalised momentum above and rare steps below.

    m ← β m + (1 − β) h,   x ← x − η m/(‖m‖ + 10⁻¹⁰)

with h the hypergradient at the present lower variable y and ‖·‖ over all upper parameters. y is
refined once at the start, and then takes N steps every I-th step only. A step on x has length η
whatever the curvature, which suits upper losses whose smoothness grows with their gradient.

Source: J. Hao, X. Gong, M. Liu 2024, arXiv 2401.09587. Departures: refinement takes plain gradient
steps of one size, where the paper's halve it in stages and average; with one batch for the whole
Neumann series instead of a new one for each factor unless the batch is a callable. Their code also
departs from the paper (no refinement, gradients of the lower steps add up); the paper is followed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from thalweg.optim.adjoint import Method, check_settings
from thalweg.optim.bilevel_problem import BilevelProblem, evaluated
from thalweg.optim.bilevel_solver import BilevelSolver

__all__ = ["BOREP"]

#: Added to the norm, as in the authors' code: momentum of zero moves nothing.
TINY = 1e-10


class BOREP(BilevelSolver):
    """Bilevel optimisation under unbounded smoothness.

    The step never shrinks by itself, so that ‖∇Φ‖ stays at a floor of about η times the curvature:
    decay ``lr`` for more. Where the curvature is mild, tuned momentum SGD on ``hypergradient`` is
    better. Multiplying the upper loss by a constant changes nothing.

    It owns x and y: ``state_dict()`` and ``load_state_dict()`` save it. Each step reads the device
    once to see that the series has not grown; sharded tensors are refused.

    Args:
        problem: the two losses.
        x: upper variable to start from, copied; then in ``.x``.
        y: lower variable to start from, copied; then in ``.y``.
        lr: η, length of each step on x.
        beta: β, momentum.
        lower_lr: step on y, and of the Neumann series: at most 1/λ_max of the lower Hessian.
        period: I, steps on x between updates of y.
        lower_steps: N, steps on y at each update.
        refine_steps: steps on y before the first step on x.
        hypergrad: ``neumann``, ``cg``, ``exact``, ``unroll``, or ``lsgd``, whose adjoint goes on
            from the last one (the authors' code, with ``num_terms=1``).
        num_terms: of the hypergradient.
        damping: added to the lower Hessian.
        radius: y stays within this distance of where an update found it; None: anywhere.

    Raises:
        TypeError: for anything but real floating tensors in x and y.
        ValueError: for settings out of range.

    Source: Hao, Gong, Liu 2024, arXiv 2401.09587; entry bilevel-bo-rep.

    Example:
        g = ½(y − x)², f = cosh(y): the solution is 0, and steps have length lr.

        >>> problem = BilevelProblem(
        ...     lambda x, y, batch: torch.cosh(y), lambda x, y, batch: 0.5 * (y - x) ** 2
        ... )
        >>> solver = BOREP(problem, torch.tensor(9.0), torch.tensor(0.0), lr=0.5, lower_lr=1.0)
        >>> _ = solver.step()
        >>> solver.x, solver.y
        (tensor(8.5000), tensor(9.))
    """

    def __init__(
        self,
        problem: BilevelProblem,
        x: Any,
        y: Any,
        *,
        lr: float = 1e-2,
        beta: float = 0.9,
        lower_lr: float,
        period: int = 2,
        lower_steps: int = 3,
        refine_steps: int = 100,
        hypergrad: Method = "neumann",
        num_terms: int = 20,
        damping: float = 0.0,
        radius: float | None = None,
    ) -> None:
        super().__init__(problem, x, y, lr=lr, lower_lr=lower_lr)
        check_settings(hypergrad, num_terms, lower_lr, damping)
        if not 0 <= beta < 1:
            raise ValueError(f"beta must be from 0 to below 1, got {beta}")
        for name, value, least in (
            ("period", period, 1),
            ("lower_steps", lower_steps, 1),
            ("refine_steps", refine_steps, 0),
        ):
            if value < least:
                raise ValueError(f"{name} must be at least {least}, got {value}")
        if radius is not None and not radius > 0:
            raise ValueError(f"radius must be positive or None, got {radius}")
        self.beta, self.period, self.lower_steps = beta, period, lower_steps
        self.refine_steps, self.num_terms = refine_steps, num_terms
        self.damping, self.radius = damping, radius
        self.hypergrad: Method = hypergrad

    def _step(self, batch: Any, draw: Callable[[], Any]) -> Tensor:
        if self.num_steps == 0:
            for _ in range(self.refine_steps):
                self._lower_step(draw, self.lower_lr)
        elif self.num_steps % self.period == 0:
            self._update_lower(draw)
        start = self._state["z"][0] if "z" in self._state else None
        found = evaluated(
            *(self.problem, self._x, self._y, batch, self.hypergrad, self.num_terms),
            *(self.lower_lr, self.damping, start),
        )
        if self.hypergrad == "lsgd" and found.z is not None:
            self._state["z"] = [found.z]
        xs = self._x.tensors
        momentum = self._state.setdefault("momentum", [torch.zeros_like(t) for t in xs])
        torch._foreach_mul_(momentum, self.beta)
        torch._foreach_add_(momentum, found.grads, alpha=1 - self.beta)
        scale = self.lr / (norm(momentum) + TINY)
        torch._foreach_sub_(xs, torch._foreach_mul(momentum, scale))
        return found.loss

    def _update_lower(self, draw: Callable[[], Any]) -> None:
        """N steps on y, projected on the ball around where they start."""
        ys = self._y.tensors
        centre = [t.clone() for t in ys] if self.radius is not None else []
        for _ in range(self.lower_steps):
            self._lower_step(draw, self.lower_lr)
            if self.radius is not None:
                away = torch._foreach_sub(ys, centre)
                factor = (self.radius / norm(away)).clamp(max=1.0)
                inside = torch._foreach_add(centre, torch._foreach_mul(away, factor))
                torch._foreach_copy_(ys, inside)


def norm(tensors: Sequence[Tensor]) -> Tensor:
    """Euclidean norm of them all together, 0-d, in float32 at least."""
    norms = torch._foreach_norm(list(tensors))
    return torch.stack([n.to(torch.promote_types(n.dtype, torch.float32)) for n in norms]).norm()
