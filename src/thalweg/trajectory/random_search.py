"""What random search around a point finds: the best of n Gaussian draws, and theory's gain.

To first order L(θ + σz) ≈ L + σ g·z, and the best of n draws gains σ‖g‖E[max of n normals], about
σ‖g‖√(2 ln n), whatever the number of weights. Curvature adds ½σ²zᵀHz, of mean ½σ²tr H and spread
σ²‖H‖_F/√2: that, not the dimension, is the limit.

Source: I. Piontkovskaia, S. Nikolenko 2026, arXiv 2606.10929; derivation ours. Axes: `P` weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from thalweg.numerics.displaced import displaced
from thalweg.numerics.untouched import untouched

__all__ = ["SearchResult", "random_search", "random_search_gain"]

LossFn = Callable[[nn.Module, Any], Tensor]


def random_search_gain(
    sigma: float, grad_norm: float, n: int, *, trace_h: float = 0.0, fro_h: float = 0.0
) -> float:
    """Expected fall of the loss at the best of n Gaussian draws.

        E[max_n]·√(σ²‖g‖² + ½σ⁴‖H‖_F²) − ½σ²tr H

    Exact without curvature. With it the fall of one draw is taken as normal, of the right mean and
    variance: good while no few directions carry ‖H‖_F, and while σ²‖H‖_F is below σ‖g‖.

    Args:
        sigma: σ > 0, spread of every weight.
        grad_norm: ‖g‖.
        n: draws.
        trace_h: tr H at the point.
        fro_h: ‖H‖_F at the point.

    Returns:
        In units of the loss; negative where curvature makes even the best draw a loss.

    Raises:
        ValueError: if σ is not positive, n < 1, or a norm is negative.

    Source: arXiv 2606.10929; entry local-linear-structure.

    Example:
        >>> round(random_search_gain(1.0, 1.0, 2) * math.pi**0.5, 9)
        1.0
    """
    if not sigma > 0 or n < 1 or grad_norm < 0 or fro_h < 0:
        raise ValueError(
            "random_search_gain: need sigma > 0, n >= 1 and norms >= 0, got "
            f"sigma={sigma}, n={n}, grad_norm={grad_norm}, fro_h={fro_h}"
        )
    spread = math.hypot(sigma * grad_norm, sigma**2 * fro_h / math.sqrt(2))
    return expected_maximum(n) * spread - 0.5 * sigma**2 * trace_h


def expected_maximum(n: int) -> float:
    """E[max of n standard normals] = ∫ x n φ(x) Φ(x)^{n−1} dx, to about 1e-12."""
    x = torch.linspace(-40.0, 40.0, 80_001, dtype=torch.float64)
    log_density = -0.5 * x.square() - 0.5 * math.log(2 * math.pi) + math.log(n)
    weight = (log_density + (n - 1) * torch.special.log_ndtr(x)).exp()
    # The integrand vanishes at both ends, so that the plain sum converges exponentially.
    return float((x * weight).sum() * (x[1] - x[0])) if n > 1 else 0.0


@dataclass(frozen=True)
class SearchResult:
    """The best of n draws.

    Attributes:
        update: σz of the best draw, tensor by tensor as the trainable parameters.
        losses: (n,) float64.
        start: loss at the point itself.
        gain: start less the least loss; negative if no draw helped.
        expected: gain to first order, σ‖g‖E[max_n].
        grad_norm: ‖g‖.
    """

    update: tuple[Tensor, ...]
    losses: Tensor
    start: float
    gain: float
    expected: float
    grad_norm: float


def random_search(
    model: nn.Module,
    loss_fn: LossFn,
    batch: Any,
    *,
    sigma: float,
    n: int,
    generator: torch.Generator | None = None,
) -> SearchResult:
    """The best of n Gaussian draws around the weights, beside what the gradient leads to expect.

    The model is left as it is: add ``update`` to its trainable parameters to go there. Dropout is
    off.

    Args:
        model: any module with trainable parameters.
        loss_fn: (model, batch) → scalar.
        batch: of all draws.
        sigma: σ > 0, spread of every weight.
        n: draws.
        generator: of the draws, on the CPU; default: the global one, which moves on.

    Raises:
        ValueError: if σ is not positive, n < 1, nothing is trainable, the loss at the point is not
            finite, or none of the draws' is.

    Cost: n + 1 forward passes, a backward pass, two copies of the weights.

    Source: arXiv 2606.10929; entry local-linear-structure.

    Example:
        >>> model = torch.nn.Linear(100, 1, bias=False)
        >>> g = torch.Generator().manual_seed(0)
        >>> loss = lambda model, x: model(x).sum()
        >>> found = random_search(model, loss, torch.ones(1, 100), sigma=0.1, n=50, generator=g)
        >>> round(found.grad_norm, 4), round(found.gain / found.expected, 1)
        (10.0, 1.2)
    """
    params = [p for p in model.parameters() if p.requires_grad]
    if not sigma > 0 or n < 1 or not params:
        raise ValueError(
            "random_search: need sigma > 0, n >= 1 and a trainable parameter, got "
            f"sigma={sigma}, n={n}, {len(params)} parameters"
        )
    training = [(module, module.training) for module in model.modules()]
    losses = torch.empty(n, dtype=torch.float64)
    best, update = math.inf, list[Tensor]()
    try:
        model.eval()
        with untouched(params):
            start = loss_fn(model, batch)
            found = torch.autograd.grad(start, params, allow_unused=True)
            start = start.detach()
        if not bool(torch.isfinite(start)):
            raise ValueError(f"random_search: the loss at the point is {float(start)}")
        for i in range(n):
            step = [
                sigma * torch.randn(p.shape, generator=generator).to(p.device, p.dtype)
                for p in params
            ]
            with displaced(params, step), untouched(params), torch.no_grad():
                losses[i] = loss_fn(model, batch).double()
            if float(losses[i]) < best:
                best, update = float(losses[i]), step
    finally:
        for module, mode in training:
            module.training = mode
    if not update:
        raise ValueError("random_search: the loss is not finite at any draw; lower sigma")
    grad_norm = math.sqrt(sum(float(g.double().square().sum()) for g in found if g is not None))
    return SearchResult(
        update=tuple(update),
        losses=losses,
        start=float(start),
        gain=float(start) - best,
        expected=random_search_gain(sigma, grad_norm, n),
        grad_norm=grad_norm,
    )
