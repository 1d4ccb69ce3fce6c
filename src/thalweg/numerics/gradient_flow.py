"""Gradient flow θ̇ = −∇L(θ), integrated to round-off.

Dormand–Prince 8(5,3) from scipy: conserved quantities drift by 1e-12 where float32 training loses
them at 1e-4. Source: E. Hairer, S. P. Nørsett, G. Wanner, "Solving Ordinary Differential Equations
I", 1993.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from thalweg.errors import ThalwegError

__all__ = ["gradient_flow"]


def gradient_flow(
    loss: Callable[[Tensor], Tensor],
    theta: Tensor,
    time: float,
    *,
    num_points: int = 11,
    rtol: float = 1e-12,
    atol: float = 1e-13,
) -> Tensor:
    """Follow the flow of a loss.

    Args:
        loss: ``theta (D,) -> scalar``, made of torch operations.
        theta: (D,) where it starts.
        time: how long.
        num_points: how many points of the trajectory to return, both ends included.
        rtol: relative tolerance of a step.
        atol: absolute tolerance of a step.

    Returns:
        (num_points, D) float64.

    Raises:
        ValueError: if the start or its gradient is not finite.
        ThalwegError: if the integrator gives up, as where the flow blows up.

    Example:
        L = θ²/2 from 1 decays as e^(−t):

        >>> path = gradient_flow(lambda t: (t**2).sum() / 2, torch.ones(1), 1.0)
        >>> round(path[-1].item(), 12) == round(float(np.exp(-1.0)), 12)
        True
    """
    from scipy.integrate import solve_ivp

    start = theta.detach().double()

    def downhill(_: float, y: np.ndarray) -> np.ndarray:
        point = torch.from_numpy(y.copy()).to(start.device).requires_grad_()
        (gradient,) = torch.autograd.grad(loss(point), point)
        return -gradient.cpu().numpy()

    if not np.isfinite(downhill(0.0, start.cpu().numpy())).all():
        raise ValueError("the gradient at the start of the flow is not finite")
    times = np.linspace(0.0, time, num_points)
    found = solve_ivp(
        downhill, (0.0, time), start.cpu().numpy(), "DOP853", times, rtol=rtol, atol=atol
    )
    if not found.success:
        raise ThalwegError(
            f"the gradient flow could not be followed to t = {time}: {found.message}"
        )
    return torch.from_numpy(found.y.T.copy()).to(start.device)
