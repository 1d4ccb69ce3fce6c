"""The test error against the number of samples: its peak at α = 1, and that stopping removes it.

Source: M. S. Advani, A. M. Saxe, H. Sompolinsky 2017, arXiv 1710.03667.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from thalweg.theory.linear_dynamics import LinearDynamics

__all__ = ["double_descent"]


def double_descent(
    alphas: Sequence[float] | Tensor,
    t: float | Literal["t*"] = math.inf,
    *,
    snr: float | None = None,
    sigma_w: float | None = None,
    sigma_eps: float | None = None,
    sigma_0: float = 0.0,
) -> Tensor:
    """Test error against the number of samples, without or with early stopping, N → ∞.

    Args:
        alphas: P/N, each above 0.
        t: time, inf for the end of training, ``t*`` for the best time of each alpha.
        snr: as for ``LinearDynamics``, and so are the others.
        sigma_w: of the teacher.
        sigma_eps: of the label noise.
        sigma_0: of the initial weights.

    Returns:
        (len(alphas),) float64; inf at α = 1, t = ∞ with noise.

    Raises:
        ValueError: as ``LinearDynamics``.

    Source: Advani, Saxe, Sompolinsky 2017, arXiv 1710.03667.

    Example:
        >>> double_descent([0.5, 1.0, 2.0], sigma_eps=math.sqrt(0.5))
        tensor([1.5000,    inf, 1.0000], dtype=torch.float64)
    """
    if isinstance(t, str) and t != "t*":
        raise ValueError(f"t must be a time, inf or 't*', got {t!r}")
    errors = []
    for alpha in torch.as_tensor(alphas, dtype=torch.float64).tolist():
        theory = LinearDynamics(
            alpha, snr=snr, sigma_w=sigma_w, sigma_eps=sigma_eps, sigma_0=sigma_0
        )
        stopped = isinstance(t, str)
        errors.append(theory.optimal_stopping().error if stopped else theory.test_error(t).item())
    return torch.tensor(errors, dtype=torch.float64)
