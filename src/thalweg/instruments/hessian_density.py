"""Spectral density of the Hessian: how its eigenvalues are spread, bulk and outliers.

Source: Ghorbani, Krishnan, Xiao 2019, arXiv 1901.10159.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from thalweg.instruments.hessian_reading import hessian_reading
from thalweg.instruments.instrument import instrument
from thalweg.numerics import CurvatureOperator, SpectralDensity, spectral_density

__all__ = ["HessianDensity", "hessian_density"]


@dataclass(frozen=True)
class HessianDensity:
    """A density and whether there is one.

    Attributes:
        density: integrates to 1, with its standard error; None without a figure.
        status: ``ok``, ``nonfinite`` or ``unsupported:why``.
    """

    density: SpectralDensity | None
    status: str = "ok"


@instrument("closure", cost=500.0)
def hessian_density(
    closure: Callable[[], Tensor],
    params: Iterable[Tensor],
    *,
    num_probes: int = 8,
    lanczos_steps: int = 60,
    sigma: float | None = None,
    generator: torch.Generator | None = None,
) -> HessianDensity:
    """Density of the eigenvalues of the Hessian of a loss, by stochastic Lanczos quadrature.

    Args:
        closure: evaluates the loss at the present weights, ``lambda: loss_fn(model, batch)``.
        params: the weights.
        num_probes: random starts, over which the standard error is taken.
        lanczos_steps: Hessian-vector products each.
        sigma: width of the smoothing; default a hundredth of the range.
        generator: of the starts; default: one of its own with a fixed seed.

    Raises:
        ValueError: if an argument is out of range or the loss is not a differentiable scalar.

    Cost: num_probes · lanczos_steps products, lanczos_steps vectors of length P.

    Example:
        >>> import torch
        >>> w = torch.ones(2, requires_grad=True)
        >>> found = hessian_density(lambda: (w**2).sum(), [w]).density
        >>> round(found.nodes.nanmean().item(), 4)
        2.0
    """

    def measure(H: CurvatureOperator) -> HessianDensity:
        return HessianDensity(
            spectral_density(H, num_probes, lanczos_steps, sigma, generator=generator)
        )

    return hessian_reading(closure, params, measure, lambda status: HessianDensity(None, status))
