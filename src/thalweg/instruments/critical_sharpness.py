"""Critical sharpness: curvature along the update, from forward passes alone.

Source: Kalra, Gagnon-Audet, Gromov, Mediratta, Niu, Miller, Shvartsman 2026, arXiv 2601.16979.
Departs from its binary search: the root is sought by secants of the mean slope, which is a straight
line for a quadratic loss.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from thalweg.instruments.hessian_reading import blank
from thalweg.instruments.instrument import Reading, instrument
from thalweg.numerics import untouched

__all__ = ["critical_sharpness"]

REACH = 2.0**16
"""How much longer or shorter than the update itself a critical step is looked for."""


@instrument("closure", "update", cost=3.0)
def critical_sharpness(
    closure: Callable[[], Tensor],
    params: Sequence[Tensor],
    update: Sequence[Tensor],
    *,
    lr: float = 1.0,
    tol: float = 0.02,
    max_passes: int = 40,
) -> Reading:
    """Critical sharpness 2/η_c, η_c the smallest learning rate at which the next step hurts.

        λ_c = 2 / (η s_c),   s_c = min {s > 0 : L(θ + s Δ) > L(θ)}

    On a quadratic loss and for Δ = −η∇L it is the Rayleigh quotient of the gradient, at most λ_max;
    at the edge of stability both are 2/η.

    Args:
        closure: evaluates the loss at the present weights; the same value on the same weights.
        params: the weights θ; they are swapped for others meanwhile and put back untouched.
        update: Δ, the step the optimizer took or is about to take, same order and shapes.
        lr: η, the learning rate in Δ.
        tol: relative width of the bracket of s_c at which to stop.
        max_passes: forward passes allowed.

    Returns:
        Reading; the uncertainty is half the bracket. If the update doesn't lower the loss at
        first, or lowers it as far as one looks, there is no figure and the status says so.

    Raises:
        ValueError: if the lists don't match or lr or tol is not positive.

    Cost: 5 to 10 forward passes, a copy of the weights.

    Example:
        >>> import torch
        >>> w = torch.tensor([2.0], requires_grad=True)
        >>> at = critical_sharpness(lambda: 1.5 * w.square().sum(), [w], [torch.tensor([-0.6])])
        >>> abs(at.value - 2 / (4.0 / 0.6)) < 0.01  # the loss is equal again at w = -2
        True
    """
    params, update = list(params), [u.detach() for u in update]
    if [p.shape for p in params] != [u.shape for u in update]:
        raise ValueError("critical_sharpness: params and update must match tensor by tensor")
    if not lr > 0 or not tol > 0:
        raise ValueError(f"critical_sharpness: need lr > 0 and tol > 0, got {lr}, {tol}")
    here = _loss(closure, params, update, 0.0)
    if not math.isfinite(here):
        return blank("nonfinite")
    passes = 1

    def slope(s: float) -> float:
        """(L(θ + sΔ) − L(θ))/s: negative while the step helps; inf where the loss is not finite."""
        nonlocal passes
        passes += 1
        loss = _loss(closure, params, update, s)
        return (loss - here) / s if math.isfinite(loss) else math.inf

    s, h = 1.0, slope(1.0)
    factor = 2.0 if h <= 0 else 0.5
    low = high = (s, h)
    while (h <= 0) == (factor > 1):
        low = high = (s, h)
        s *= factor
        if not 1 / REACH <= s <= REACH or passes >= max_passes:
            lost = (
                "the update does not lower the loss" if factor < 1 else "the loss falls all along"
            )
            return blank(f"unsupported:{lost}")
        h = slope(s)
    low, high = ((s, h), high) if factor < 1 else (low, (s, h))
    while high[0] - low[0] > tol * high[0] and passes < max_passes:
        s = _between(low, high, tol)
        h = slope(s)
        low, high = ((s, h), high) if h <= 0 else (low, (s, h))
    value = 1 / (lr * low[0]) + 1 / (lr * high[0])
    return Reading(value, 1 / (lr * low[0]) - 1 / (lr * high[0]))


def _between(low: tuple[float, float], high: tuple[float, float], tol: float) -> float:
    """The secant's root, moved a little past itself so that the wider side is what is cut off."""
    (a, fa), (b, fb) = low, high
    if not math.isfinite(fb) or fb - fa <= 0:
        return 0.5 * (a + b)
    root = a - fa * (b - a) / (fb - fa)
    nudge = 0.4 * tol * b
    s = root + nudge if root - a < b - root else root - nudge
    return s if a < s < b else 0.5 * (a + b)


def _loss(
    closure: Callable[[], Tensor], params: list[Tensor], update: list[Tensor], s: float
) -> float:
    """The loss at θ + sΔ. Storages are swapped, so that nothing is written to the weights."""
    kept = [p.data for p in params]
    try:
        if s:
            for p, k, u in zip(params, kept, update, strict=True):
                p.data = k + s * u.to(k)
        with untouched(params), torch.no_grad():
            return float(closure())
    finally:
        for p, k in zip(params, kept, strict=True):
            p.data = k
