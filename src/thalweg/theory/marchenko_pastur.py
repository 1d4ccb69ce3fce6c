"""The Marchenko–Pastur law: eigenvalues of the second moments of random inputs.

X has N rows and P columns of independent entries with variance 1/N. As N and P grow with α = P/N
fixed, the eigenvalues of X Xᵀ (N of them) follow

    ρ(λ) = √((λ₊ − λ)(λ − λ₋))/(2πλ) on λ± = (√α ± 1)²,   and for α < 1 an atom of 1 − α at 0,

so that ∫ρ = min(1, α), ∫λρ = α and ∫λ²ρ = α² + α.

Source: V. A. Marchenko, L. A. Pastur, Math. USSR Sbornik 1, 1967; with this scaling M. S. Advani,
A. M. Saxe 2017, arXiv 1710.03667.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import torch
from torch import Tensor

__all__ = ["mp_density", "mp_quadrature", "mp_support"]


def mp_support(alpha: float) -> tuple[float, float]:
    """The edges λ₋ and λ₊ of the continuous part.

    Args:
        alpha: P/N, samples per dimension, above 0.

    Raises:
        ValueError: if alpha is not a positive number.

    Source: Marchenko, Pastur 1967.

    Example:
        >>> mp_support(4.0)
        (1.0, 9.0)
    """
    root = math.sqrt(_checked(alpha))
    return (root - 1) ** 2, (root + 1) ** 2


def mp_density(lam: Tensor, alpha: float) -> Tensor:
    """The continuous part of the density; its integral is min(1, α).

    Args:
        lam: any shape, floating.
        alpha: P/N, samples per dimension, above 0.

    Returns:
        Like ``lam``: 0 outside the open support (the atom at 0 is not a density), nan for nan.

    Raises:
        ValueError: if alpha is not a positive number.

    Source: Marchenko, Pastur 1967.

    Example:
        At α = 1 it is √(4/λ − 1)/(2π), at λ = 2 so 1/(2π):

        >>> mp_density(torch.tensor([2.0, 5.0]), 1.0) * 2 * math.pi
        tensor([1., 0.])
    """
    low, high = mp_support(alpha)
    inside = (lam > low) & (lam < high)
    safe = torch.where(inside, lam, torch.full_like(lam, (low + high) / 2))
    density = ((high - safe) * (safe - low)).clamp(min=0).sqrt() / (2 * math.pi * safe)
    return torch.where(inside, density, torch.where(lam.isnan(), lam, torch.zeros_like(lam)))


def mp_quadrature(alpha: float, n: int = 400) -> tuple[Tensor, Tensor, float]:
    """Nodes and weights for integrals over the law: ∫ρ f ≈ Σ weights·f(nodes) + atom·f(0).

    Gauss–Legendre in u, with λ = λ₋ + (λ₊ − λ₋) sin²(θ/2) and θ = πu³. The angle takes away the
    square roots at the edges; the cube crowds nodes at the lower one, where e^(−λt) and 1/λ are
    sharp near α = 1, so that 400 nodes give t = 1e10 to 1e-7.

    Args:
        alpha: P/N, samples per dimension, above 0.
        n: nodes.

    Returns:
        nodes (n,) ascending, weights (n,), float64, and the atom max(0, 1 − α) at 0.

    Raises:
        ValueError: if alpha is not a positive number or n is below 1.

    Source: Marchenko, Pastur 1967; the substitution is ours.

    Example:
        >>> nodes, weights, atom = mp_quadrature(0.5)
        >>> round(weights.sum().item(), 12), round((weights * nodes).sum().item(), 12), atom
        (0.5, 0.5, 0.5)
    """
    low, high = mp_support(alpha)
    if n < 1:
        raise ValueError(f"mp_quadrature needs at least 1 node, got {n}")
    x, w = _gauss_legendre(n)
    u = (1 + x) / 2
    theta = math.pi * u**3
    nodes = low + (high - low) * (theta / 2).sin().square()
    jacobian = w / 2 * 3 * math.pi * u**2
    # ρ dλ = ((λ₊ − λ₋)/2)² sin²θ dθ/(2πλ)
    weights = jacobian * ((high - low) / 2 * theta.sin()).square() / (2 * math.pi * nodes)
    return nodes, weights, max(0.0, 1.0 - alpha)


@cache
def _gauss_legendre(n: int) -> tuple[Tensor, Tensor]:
    x, w = np.polynomial.legendre.leggauss(n)
    return torch.from_numpy(x), torch.from_numpy(w)


def _checked(alpha: float) -> float:
    if not 0 < alpha < math.inf:
        raise ValueError(f"alpha = P/N, samples per dimension, must be above 0, got {alpha}")
    return float(alpha)
