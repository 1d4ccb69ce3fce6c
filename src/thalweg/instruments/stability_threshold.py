"""The sharpness beyond which an optimizer is unstable on the quadratic model of the loss.

Each formula is the condition that θ_t = (−1)^t u repeats itself under the optimizer's own update,
which is where a heavy-ball-like recursion first loses stability. Axes: `P` parameters.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.optim import SGD, Adam, AdamW, Optimizer, RMSprop

from thalweg.instruments.instrument import instrument

__all__ = ["StabilityThreshold", "stability_threshold"]


@dataclass(frozen=True)
class StabilityThreshold:
    """Where an optimizer loses stability.

    Attributes:
        threshold: largest stable eigenvalue; nan if unknown.
        kind: ``gd``, ``momentum``, ``nesterov``, ``adam`` or ``rmsprop``; ``""`` if unknown.
        preconditioner: D, one tensor per parameter in the order of the param groups: compare the
            threshold with ``sharpness(closure, params, preconditioner=D)``; None: with the plain.
        status: ``ok`` or ``unsupported:why``.
    """

    threshold: float
    kind: str
    preconditioner: tuple[Tensor, ...] | None = field(default=None, repr=False, compare=False)
    status: str = "ok"


@instrument("optimizer")
def stability_threshold(optimizer: Optimizer) -> StabilityThreshold:
    """Largest Hessian eigenvalue at which an optimizer is stable, as its settings stand.

        GD 2/η;   momentum (2 + 2β)/((1 − τ)η);   Nesterov (2/η)(1 + β)/(1 + 2β);
        Adam (2 − ηw)(1 + β₁)/((1 − β₁)η) on D^-½ H D^-½, D = diag(√v̂ + ε);   RMSprop as momentum

    τ is the dampening, w AdamW's weight decay. SGD's own (coupled) weight decay adds to H and is
    subtracted from the threshold. Groups that differ in η alone are brought to the first's by
    D ∝ 1/η. D is taken as constant: it changes slowly against the oscillation.

    Args:
        optimizer: torch's SGD, Adam, AdamW or RMSprop.

    Returns:
        StabilityThreshold; its status says why there is none.

    Source: Cohen et al. 2021, arXiv 2103.00065; for Adam Cohen et al. 2022, arXiv 2207.14484;
        entry sgd-dynamical-stability.

    Example:
        >>> import torch
        >>> w = torch.nn.Parameter(torch.zeros(2))
        >>> round(stability_threshold(torch.optim.SGD([w], lr=0.1, momentum=0.9)).threshold, 4)
        38.0
    """
    groups = optimizer.param_groups
    lr = float(groups[0]["lr"])
    if lr <= 0 or any(float(g["lr"]) <= 0 for g in groups):
        return _none("learning rate is 0")
    if any(g.get("maximize") for g in groups):
        return _none("maximize")
    settings = [{k: v for k, v in g.items() if k in _RELEVANT} for g in groups]
    if any(s != settings[0] for s in settings[1:]):
        return _none("param groups differ in more than the learning rate")
    if type(optimizer) is SGD:
        found = _sgd(groups[0], lr)
    elif type(optimizer) is RMSprop:
        found = StabilityThreshold((2 + 2 * groups[0]["momentum"]) / lr, "rmsprop")
    elif type(optimizer) in (Adam, AdamW):
        found = _adam(groups[0], lr, type(optimizer) is AdamW)
    else:
        return _none(f"no formula for {type(optimizer).__name__}")
    if found.kind in ("adam", "rmsprop") and groups[0]["weight_decay"] and found.status == "ok":
        decoupled = type(optimizer) is AdamW or groups[0].get("decoupled_weight_decay", False)
        if not decoupled:
            return _none("coupled weight decay: add (w/2)‖θ‖² to the closure and set it to 0")
    diagonal = list(_diagonal(optimizer, found.kind))
    if any(d is None for d in diagonal):
        return _none("the optimizer has not taken a step")
    uneven = any(float(g["lr"]) != lr for g in groups)
    if found.kind not in ("adam", "rmsprop") and not uneven:
        return found
    if uneven and groups[0]["weight_decay"]:
        return _none("weight decay with unequal learning rates")
    rates = [lr / float(g["lr"]) for g in groups for _ in g["params"]]
    scaled = tuple(d * r for d, r in zip(diagonal, rates, strict=True) if d is not None)
    return StabilityThreshold(found.threshold, found.kind, scaled)


_RELEVANT = ("momentum", "dampening", "nesterov", "betas", "weight_decay", "eps", "alpha")


def _sgd(group: dict, lr: float) -> StabilityThreshold:
    beta, tau, decay = group["momentum"], group["dampening"], group["weight_decay"]
    if not beta:
        return StabilityThreshold(2 / lr - decay, "gd")
    if group["nesterov"]:
        return StabilityThreshold(2 / lr * (1 + beta) / (1 + 2 * beta) - decay, "nesterov")
    return StabilityThreshold((2 + 2 * beta) / ((1 - tau) * lr) - decay, "momentum")


def _adam(group: dict, lr: float, decoupled: bool) -> StabilityThreshold:
    beta = float(group["betas"][0])
    decoupled = decoupled or bool(group.get("decoupled_weight_decay", False))
    decay = float(group["weight_decay"]) if decoupled else 0.0
    return StabilityThreshold((2 - lr * decay) * (1 + beta) / ((1 - beta) * lr), "adam")


def _diagonal(optimizer: Optimizer, kind: str) -> Iterator[Tensor | None]:
    """D of each parameter; ones without adaptive scaling, None where there is no state yet."""
    for group in optimizer.param_groups:
        for p in group["params"]:
            if kind not in ("adam", "rmsprop"):
                yield torch.ones_like(p)
                continue
            state = optimizer.state.get(p, {})
            square = "square_avg" if kind == "rmsprop" else "exp_avg_sq"
            square = "max_exp_avg_sq" if group.get("amsgrad") else square
            if square not in state:
                yield None
                continue
            v = state[square].detach()
            if kind == "adam":
                v = v / (1 - float(group["betas"][1]) ** float(state["step"]))
            elif group["centered"]:
                v = v - state["grad_avg"].detach() ** 2
            yield v.clamp(min=0).sqrt() + group["eps"]


def _none(why: str) -> StabilityThreshold:
    return StabilityThreshold(float("nan"), "", None, f"unsupported:{why}")
