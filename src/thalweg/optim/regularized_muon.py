"""Muon with a smoothed polar factor: a damped Hamiltonian flow, one step at a time.

Smoothing makes the factor the gradient of K_ε, the smoothed nuclear norm, so that training is
motion with kinetic energy K_ε(P): the energy J(W) + K_ε(P) falls along the flow although J need
not. ``thalweg.laws.MuonEnergyMonitor`` follows it.

Source: Mustafi, Mukherjee, Sriperumbudur 2026, arXiv 2605.23871. The paper's scaling of ε is not
public; here ε is in the units of the momentum P, O_ε = U diag(σ/√(σ² + ε²)) Vᵀ.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.optim.optimizer import Optimizer, ParamsT

from thalweg.optim.muon import require_finite, require_matrices, stacks
from thalweg.optim.orthogonalize import orthogonalize

__all__ = ["RegularizedMuon"]


class RegularizedMuon(Optimizer):
    """Steps of W' = O_ε(P), P' = −∇J(W) − γP.

        P ← (1 − γh)P − h∇J(W),  W ← (1 − hλ)W + h O_ε(P)

    Unlike Muon it is not blind to the scale of the gradient: unscale before the step.

    Args:
        params: parameters of at least two dimensions, flattened to (out, rest) from three on.
        lr: h, the time a step takes.
        friction: γ; γh ≤ 1. Muon's momentum is 1 − γh.
        eps: ε > 0, in units of P: singular values below it are followed rather than normalised.
        weight_decay: λ, decoupled.
        foreach: False for one matrix at a time; by default those of one shape are stacked.

    Raises:
        ValueError: for values out of range, or a parameter with fewer than two dimensions; in a
            step, if a gradient on the CPU is not finite.
        TypeError: for complex parameters or sparse gradients.

    Example:
        From rest along G = 3: P = −0.3, and W moves by 0.1 · 0.3/√(0.09 + 0.16) = 0.06.

        >>> W = torch.nn.Parameter(torch.zeros(1, 1))
        >>> W.grad = torch.full((1, 1), 3.0)
        >>> RegularizedMuon([W], lr=0.1, friction=1.0, eps=0.4).step()
        >>> round(W.item(), 6)
        -0.06
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float,
        friction: float,
        eps: float,
        weight_decay: float = 0.0,
        *,
        foreach: bool | None = None,
    ) -> None:
        if not lr >= 0 or not weight_decay >= 0:
            raise ValueError(f"lr and weight_decay must be ≥ 0, got {lr} and {weight_decay}")
        if not 0 <= friction * lr <= 1:
            raise ValueError(
                f"friction × lr must be in [0, 1], got {friction} × {lr}; Muon's momentum is 1 "
                "less that product"
            )
        if not eps > 0:
            raise ValueError(f"eps must be > 0, got {eps}; for eps = 0 use Muon(backend='svd')")
        defaults = {
            "lr": lr,
            "friction": friction,
            "eps": eps,
            "weight_decay": weight_decay,
            "foreach": foreach,
        }
        super().__init__(params, defaults)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group; its parameters must have at least two dimensions."""
        super().add_param_group(param_group)
        require_matrices("RegularizedMuon", self.param_groups[-1]["params"])

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Take one step.

        Args:
            closure: evaluates the loss with its gradients, and returns it.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            require_finite("RegularizedMuon", [p.grad for p in params])
            for p in params:
                if "momentum" not in self.state[p]:
                    self.state[p]["momentum"] = torch.zeros_like(p.grad)
            h = group["lr"]
            for some in stacks(params, foreach=group["foreach"]):
                moved = [params[i] for i in some]
                momenta = [self.state[p]["momentum"] for p in moved]
                torch._foreach_mul_(momenta, 1 - group["friction"] * h)
                torch._foreach_add_(momenta, [p.grad for p in moved], alpha=-h)
                stack = torch.stack([m.reshape(len(m), -1) for m in momenta])
                velocity = orthogonalize(stack, "regularized", eps=group["eps"])
                if group["weight_decay"]:
                    torch._foreach_mul_(moved, 1 - h * group["weight_decay"])
                steps = [v.view_as(p) for v, p in zip(velocity, moved, strict=True)]
                torch._foreach_add_(moved, steps, alpha=h)
        return loss
