"""Spectral density of a symmetric operator by stochastic Lanczos quadrature (SLQ).

Source: Lin, Saad, Yang 2016, arXiv 1308.5467; Ghorbani, Krishnan, Xiao 2019, arXiv 1901.10159.
Axes: `S` probes, `m` Lanczos steps, `G` grid points.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from thalweg.numerics.lanczos import Krylov
from thalweg.numerics.operators import LinearOperator, as_operator

__all__ = ["SpectralDensity", "spectral_density"]


@dataclass(frozen=True)
class SpectralDensity:
    """A smoothed spectral density, integrating to 1 (times p for a count of eigenvalues).

    Attributes:
        grid: (G,) abscissae.
        values: (G,) density, mean over probes.
        stderr: (G,) its standard error over probes; nan for a single probe.
        nodes: (S, m) Ritz values; nan where a Krylov space was exhausted early.
        weights: (S, m), each row sums to 1; 0 where the node is nan.
        sigma: width of the Gaussian put on each node.
    """

    grid: Tensor
    values: Tensor
    stderr: Tensor
    nodes: Tensor
    weights: Tensor
    sigma: float


def spectral_density(
    A: LinearOperator | Callable[[Tensor], Tensor] | Tensor,
    num_probes: int = 8,
    lanczos_steps: int = 60,
    sigma: float | None = None,
    *,
    dim: int | None = None,
    num_points: int = 512,
    v0: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> SpectralDensity:
    """Density of eigenvalues, each smeared by a Gaussian of width sigma.

        φ(x) = mean over probes of Σ_j τ_j² N(x; θ_j, σ²)

    θ_j and τ_j are the eigenvalues of the probe's tridiagonal matrix and the first components of
    its eigenvectors.

    Args:
        A: symmetric operator, callable with ``dim``, or dense (p, p) tensor.
        num_probes: S, random unit vectors.
        lanczos_steps: m, at most p are used.
        sigma: default a hundredth of the range of the nodes.
        dim: p, for a callable.
        num_points: G, spread evenly over the nodes and 4 sigma on either side.
        v0: (p, S) probes of one's own in place of random ones.
        generator: of the probes; default: one of its own with a fixed seed.

    Raises:
        ValueError: if an argument is out of range or A is not symmetric.
        FloatingPointError: if a product is not finite.

    Cost: S·m products, m p floats.

    Example:
        >>> import torch
        >>> phi = spectral_density(torch.eye(4), num_probes=2, lanczos_steps=4, sigma=0.1)
        >>> round(torch.trapezoid(phi.values, phi.grid).item(), 3)
        1.0
    """
    operator = as_operator(A, dim)
    if not operator.symmetric:
        raise ValueError("spectral_density: the operator must be symmetric; symmetrise it")
    if num_probes < 1 or lanczos_steps < 1 or num_points < 2 or not (sigma is None or sigma > 0):
        raise ValueError(
            "spectral_density: need num_probes >= 1, lanczos_steps >= 1, num_points >= 2 and "
            f"sigma > 0; got {num_probes}, {lanczos_steps}, {num_points}, {sigma}"
        )
    generator = generator or torch.Generator().manual_seed(0)
    if v0 is None:
        shape = (num_probes, operator.dim)
        v0 = torch.randn(shape, generator=generator, dtype=operator.dtype, device=generator.device)
        v0 = v0.to(operator.device).T
    m = min(lanczos_steps, operator.dim)
    nodes = np.full((v0.shape[1], m), np.nan)
    weights = np.zeros((v0.shape[1], m))
    for i, probe in enumerate(v0.T):
        krylov = Krylov(operator, probe)
        while not krylov.done and len(krylov.alpha) < m:
            krylov.step()
        theta, coefficients, _ = krylov.ritz()
        nodes[i, : len(theta)] = theta
        weights[i, : len(theta)] = coefficients[0] ** 2
    low, high = float(np.nanmin(nodes)), float(np.nanmax(nodes))
    sigma = sigma or max((high - low) / 100, 1e-6 * max(abs(low), abs(high)), 1e-12)
    grid = torch.linspace(low - 4 * sigma, high + 4 * sigma, num_points, dtype=torch.float64)
    theta, tau = torch.from_numpy(nodes).nan_to_num(), torch.from_numpy(weights)
    each = torch.stack([_smear(grid, t, w, sigma) for t, w in zip(theta, tau, strict=True)])
    stderr = each.std(0) / len(each) ** 0.5 if len(each) > 1 else torch.full_like(grid, math.nan)
    return SpectralDensity(grid, each.mean(0), stderr, torch.from_numpy(nodes), tau, sigma)


def _smear(grid: Tensor, theta: Tensor, tau: Tensor, sigma: float) -> Tensor:
    z = (grid[:, None] - theta) / sigma
    return torch.exp(-0.5 * z.square()) @ tau / (sigma * math.sqrt(2 * math.pi))
