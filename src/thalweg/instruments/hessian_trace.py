"""Trace of the Hessian: the sum of all curvatures, which single-sample SGD keeps below 2/η.

Source: Wu & Su 2023, arXiv 2305.17490; entry sgd-dynamical-stability.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from thalweg.instruments.hessian_reading import blank, hessian_reading
from thalweg.instruments.instrument import Reading, instrument
from thalweg.numerics import CurvatureOperator, trace

__all__ = ["hessian_trace"]


@instrument("closure", cost=40.0)
def hessian_trace(
    closure: Callable[[], Tensor],
    params: Iterable[Tensor],
    *,
    rel_stderr: float = 0.05,
    method: str = "xtrace",
    num_matvecs: int | None = None,
    max_matvecs: int = 100,
    generator: torch.Generator | None = None,
) -> Reading:
    """Trace of the Hessian of a loss, with its standard error.

        tr H = Σ_i ∂²L/∂θ_i²

    Args:
        closure: evaluates the loss at the present weights, ``lambda: loss_fn(model, batch)``.
        params: the weights.
        rel_stderr: standard error over |trace| at which to stop. Early in training, with positive
            and negative curvatures that nearly cancel, it may take more than ``max_matvecs``.
        method: as in ``thalweg.numerics.trace``.
        num_matvecs: products to spend, whatever the error; default until ``rel_stderr`` is met.
        max_matvecs: where to stop if it is not met.
        generator: of the probes; default: one of its own with a fixed seed.

    Returns:
        Reading; the uncertainty is one standard error, whether or not it met ``rel_stderr``.

    Raises:
        ValueError: if an argument is out of range or the loss is not a differentiable scalar.

    Cost: 16 Hessian-vector products or more (24 at 5 % on a trained network), and 2 vectors of
    length P for each.

    Example:
        >>> import torch
        >>> w = torch.ones(2, requires_grad=True)
        >>> hessian_trace(lambda: w[0] ** 2 + 3 * w[1] ** 2, [w]).value
        8.0
    """

    def measure(H: CurvatureOperator) -> Reading:
        return Reading(
            *trace(
                H,
                method,
                num_matvecs,
                generator,
                rel_stderr=rel_stderr,
                max_matvecs=max_matvecs,
            )
        )

    return hessian_reading(closure, params, measure, blank)
