"""Mean-square stability of linearised SGD: the largest step size at which E‖δ‖² stays bounded.

Near a minimum that fits every sample, a step of SGD with batch S multiplies the distance δ from it
by I − (η/B) Σ_{i∈S} A_i, A_i = Σ_c g_ic g_icᵀ. Its second moment M = E δδᵀ goes by the linear map

    T(M) = M − η(HM + MH) + η²[(1 − p) HMH + (p/n) Σ_i A_i M A_i],   H = (1/n) Σ_i A_i

with p = (n − B)/(B(n − 1)) for batches without replacement and 1/B with. T keeps the cone of
positive matrices, so its spectral radius is its largest eigenvalue.

Source: Wu & Su 2023, arXiv 2305.17490; the exact threshold as in Mulayoff & Michaeli 2024,
arXiv 2306.07850. Axes: `n` samples, `k` outputs, `d` parameters, `r` rank of H.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from thalweg.numerics import LinearOperator, eigsh

__all__ = ["ms_threshold", "second_moment_radius"]


def ms_threshold(G: Tensor, batch_size: int, replacement: bool = False) -> float:
    """Largest step size at which linearised SGD is stable in mean square, exactly.

        η* = 2/λ_max(C⁻¹D),   C(M) = ½(HM + MH),   D(M) = (1 − p) HMH + (p/n) Σ_i A_i M A_i

    Never above 2/λ_max(H); equal to it for full batches; 2/tr H for single samples of equal norm.

    Args:
        G: gradients of the outputs, (n, d), or (n, k, d) for k outputs of a sample; for another
            loss than squared error, times the root of its second derivative in the outputs.
        batch_size: B, 1 ≤ B ≤ n.
        replacement: whether a sample may come twice in a batch.

    Returns:
        η*; inf if every gradient is 0, nan if one is not finite.

    Raises:
        ValueError: if G or batch_size is out of range.

    Cost: some 30 products of 2 n k r² multiply–adds, r ≤ min(n·k, d).

    Source: entry sgd-dynamical-stability.

    Example:
        Single samples with orthogonal gradients √n e_i see the whole trace, full batches one λ.

        >>> G = 2 * torch.eye(4)
        >>> round(ms_threshold(G, 1), 6), round(ms_threshold(G, 4), 6)
        (0.5, 2.0)
    """
    rows, p = _prepared(G, batch_size, replacement, "ms_threshold")
    if not bool(torch.isfinite(rows).all()):
        return float("nan")
    coordinates, spectrum = _range(rows)
    if not len(spectrum):
        return float("inf")
    if p == 0:
        return 2.0 / float(spectrum.max())
    mean = (spectrum[:, None] + spectrum) / 2  # C in the eigenbasis of H
    root = mean.rsqrt()
    noise = _noise(coordinates, spectrum, p)
    return 2.0 / _largest(lambda M: root * noise(root * M), len(spectrum))


def second_moment_radius(
    G: Tensor, batch_size: int, lr: float, *, replacement: bool = False
) -> float:
    """Factor by which a step of linearised SGD multiplies E δδᵀ in the long run, ρ(T).

    Args:
        G: as for ``ms_threshold``.
        batch_size: B, 1 ≤ B ≤ n.
        lr: η > 0.
        replacement: whether a sample may come twice in a batch.

    Returns:
        ρ(T) on the range of H; 1 at ``ms_threshold``, more above it.

    Raises:
        ValueError: if an argument is out of range.

    Source: entry sgd-dynamical-stability.

    Example:
        One sample of slope 1: δ is multiplied by 1 − η, its square by (1 − η)².

        >>> round(second_moment_radius(torch.ones(1, 1), 1, 0.5), 6)
        0.25
    """
    if not 0 < lr < float("inf"):
        raise ValueError(f"second_moment_radius: lr must be positive and finite, got {lr}")
    rows, p = _prepared(G, batch_size, replacement, "second_moment_radius")
    if not bool(torch.isfinite(rows).all()):
        return float("nan")
    coordinates, spectrum = _range(rows)
    if not len(spectrum):
        return 1.0
    kept = 1 - lr * (spectrum[:, None] + spectrum)
    noise = _noise(coordinates, spectrum, p)
    return _largest(lambda M: kept * M + lr**2 * noise(M), len(spectrum))


def _prepared(G: Tensor, batch_size: int, replacement: bool, who: str) -> tuple[Tensor, float]:
    """Rows as (n, k, d) in float64, and the share p of the noise."""
    if G.ndim not in (2, 3) or 0 in G.shape or not G.is_floating_point():
        raise ValueError(
            f"{who}: expected floating gradients (n, d) or (n, k, d), none of them 0; got "
            f"{tuple(G.shape)} of {G.dtype}"
        )
    n = len(G)
    if batch_size != int(batch_size) or not 1 <= batch_size <= n:
        raise ValueError(f"{who}: batch_size must be in [1, {n}], got {batch_size}")
    rows = G.detach().double()
    return rows if G.ndim == 3 else rows[:, None], noise_share(n, int(batch_size), replacement)


def noise_share(n: int, batch_size: int, replacement: bool = False) -> float:
    """The share p of single-sample noise that a batch keeps: 1 for B = 1, 0 for the full batch."""
    if replacement:
        return 1.0 / batch_size
    return (n - batch_size) / (batch_size * (n - 1)) if n > 1 else 0.0


def _range(rows: Tensor) -> tuple[Tensor, Tensor]:
    """The rows in the eigenbasis of H on its range, (n, k, r), and H's eigenvalues there, (r,)."""
    n, k, d = rows.shape
    flat = rows.reshape(n * k, d)
    U, s, _ = torch.linalg.svd(flat, full_matrices=False)
    kept = s > max(n * k, d) * torch.finfo(s.dtype).eps * s.max()
    return (U[:, kept] * s[kept]).reshape(n, k, -1), s[kept].square() / n


def _noise(coordinates: Tensor, spectrum: Tensor, p: float) -> Callable[[Tensor], Tensor]:
    """D(M), with H diagonal."""
    n, k, r = coordinates.shape
    flat = coordinates.reshape(n * k, r)

    def D(M: Tensor) -> Tensor:
        inner = torch.einsum("nkr,nlr->nkl", (flat @ M).reshape(n, k, r), coordinates)
        outer = flat.T @ torch.bmm(inner, coordinates).reshape(n * k, r)
        return (1 - p) * spectrum[:, None] * M * spectrum + (p / n) * outer

    return D


def _largest(apply: Callable[[Tensor], Tensor], r: int) -> float:
    """Largest eigenvalue of a self-adjoint map of r × r matrices that keeps the positive cone."""

    def matvec(v: Tensor) -> Tensor:
        M = v.reshape(r, r)
        out = apply((M + M.T) / 2)  # antisymmetric matrices are no second moments
        return ((out + out.T) / 2).reshape(-1)

    A = LinearOperator(matvec, r * r, dtype=torch.float64)
    # the identity is inside the cone, so it has a part of the eigenvector, which lies in it
    start = torch.eye(r, dtype=torch.float64).reshape(-1)
    return float(eigsh(A, tol=1e-10, max_matvecs=min(300, 2 * r * r + 2), v0=start).values[0])
