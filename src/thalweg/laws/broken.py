"""How a law breaks, exactly: step size, weight decay and momentum, step by step.

A law q(θ, θ) of gradient flow means q(θ, g) = 0 for every gradient g. Discrete training moves it,
by an amount that is known. For ``torch.optim.SGD`` with d = g + λθ (decay in the gradient),
v⁺ = βv + (1 − τ)d, u = v⁺ (Nesterov: u = d + βv⁺) and θ⁺ = θ − ηu, writing c = q(θ, v):

    q(θ, d) = λh,   q(θ, v⁺) = βc + (1 − τ)λh
    h⁺ = h − 2η q(θ, u) + η² q(u, u)
    c⁺ = q(θ⁺, v⁺) = q(θ, v⁺) − η q(u, v⁺)

q(u, u) and q(u, v⁺) are read from the optimizer; h and c follow from the recursion alone. A law of
degree one is a linear functional that vanishes on gradients, and obeys the same lines with c = its
value on v and without the quadratic terms.

Source: D. Kunin et al. 2020, arXiv 2012.04728, and Q. Zhao et al. 2022, arXiv 2210.17216, for the
continuous limit; the discrete recursions are derived here and in ``docs/mathematics.md``.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

__all__ = ["Hyper", "LawState", "advance"]


@dataclass(frozen=True)
class Hyper:
    """The numbers of one step of SGD.

    Attributes:
        lr: η.
        momentum: β.
        dampening: τ; 0 at the first step, whose velocity is d itself.
        weight_decay: λ.
        nesterov: whether u = d + βv⁺.
        decoupled: whether decay acts on the weights, θ ← (1 − ηλ)θ before the step, not in d.
    """

    lr: float
    momentum: float = 0.0
    dampening: float = 0.0
    weight_decay: float = 0.0
    nesterov: bool = False
    decoupled: bool = False


@dataclass(frozen=True)
class LawState:
    """What the recursion carries.

    Attributes:
        h: (K,) the predicted values of the law.
        c: (K,) q(θ, v); for a law of degree one its value on v.
    """

    h: Tensor
    c: Tensor


def advance(
    state: LawState,
    hyper: Hyper,
    uu: Tensor | float,
    uv: Tensor | float,
    *,
    order: int = 2,
    extra: Tensor | float = 0.0,
) -> LawState:
    """The next state of a law, one step of SGD later.

    Args:
        state: before the step.
        hyper: of the step.
        uu: (K,) q(u, u) of the step's direction; ignored for a law of degree one.
        uv: (K,) q(u, v⁺) with the new velocity; equal to ``uu`` without Nesterov momentum.
        order: degree of the law, 1 or 2.
        extra: (K,) what decay beyond ``hyper.weight_decay`` adds to q(θ, d): Σ (λ_p − λ) h_p over
            pieces of the law in param groups with another decay.

    Returns:
        The state after it.

    Example:
        Plain SGD on L = (ab − 1)²/2 from a = 2, b = 1: h = a² − b² = 3, g = (1, 2):

        >>> import torch
        >>> zero = torch.zeros(1)
        >>> g = torch.tensor([1.0, 2.0])
        >>> gg = (g[0] ** 2 - g[1] ** 2).reshape(1)
        >>> round(advance(LawState(zero + 3, zero), Hyper(0.1), gg, gg).h.item(), 6)
        2.97
        >>> (2 - 0.1) ** 2 - (1 - 0.2) ** 2
        2.9699999999999998
    """
    lr, beta = hyper.lr, hyper.momentum
    h, c = state.h, state.c
    if hyper.decoupled:
        shrink = 1.0 - lr * hyper.weight_decay
        h, c = (shrink**2 * h, shrink * c) if order == 2 else (shrink * h, c)
        theta_d = 0.0 * h + extra
    else:
        theta_d = hyper.weight_decay * h + extra if _any(extra) else hyper.weight_decay * h
    fresh = theta_d * (1.0 - hyper.dampening) if hyper.dampening and beta else theta_d
    theta_v = fresh.add(c, alpha=beta) if beta else theta_d
    theta_u = theta_d.add(theta_v, alpha=beta) if hyper.nesterov else theta_v
    moved = h.add(theta_u, alpha=-lr if order == 1 else -2 * lr)
    if order == 1:
        return LawState(moved, theta_v)
    if isinstance(uu, Tensor) and isinstance(uv, Tensor):
        return LawState(moved.add_(uu, alpha=lr**2), theta_v.sub(uv, alpha=lr))
    return LawState(moved + lr**2 * uu, theta_v - lr * uv)


def _any(extra: Tensor | float) -> bool:
    return isinstance(extra, Tensor) or extra != 0.0
