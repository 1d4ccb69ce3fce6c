"""The polar factor of a matrix, exact, smoothed, or by a few matrix products.

M = UΣVᵀ has the polar factor UVᵀ, the steepest ascent direction in the spectral norm. Smoothed by ε
it is O_ε(M) = U diag(σ/√(σ² + ε²)) Vᵀ, the gradient of the smoothed nuclear norm
K_ε(M) = Σ(√(σ² + ε²) − ε). Odd polynomials in M approximate it without a decomposition.

Source: K. Jordan et al. 2024 (github.com/KellerJordan/Muon) for the Newton–Schulz coefficients;
N. Amsel, D. Persson, C. Musco, R. Gower 2025, arXiv 2505.16932, for Polar Express; the smoothing:
Mustafi, Mukherjee, Sriperumbudur 2026, arXiv 2605.23871. Departs from the official code in running
in float32 or float64 rather than bfloat16, which is slow on CPUs and leaves two digits.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor

from thalweg.errors import unknown_name

__all__ = ["JORDAN", "orthogonalize", "smoothed_nuclear"]

Method = Literal["svd", "ns", "polar_express", "regularized"]
METHODS = ("svd", "ns", "polar_express", "regularized")

#: Coefficients of Newton–Schulz, the same at every step: steep at zero rather than convergent.
JORDAN = (3.4445, -4.7750, 2.0315)

#: Coefficients of Polar Express, one triple a step, then the last for ever (arXiv 2505.16932).
POLAR_EXPRESS = (
    (8.28721201814563, -23.595886519098837, 17.300387312530933),
    (4.107059111542203, -2.9478499167379106, 0.5448431082926601),
    (3.9486908534822946, -2.908902115962949, 0.5518191394370137),
    (3.3184196573706015, -2.488488024314874, 0.51004894012372),
    (2.300652019954817, -1.6689039845747493, 0.4188073119525673),
    (1.891301407787398, -1.2679958271945868, 0.37680408948524835),
    (1.8750014808534479, -1.2500016453999487, 0.3750001645474248),
    (1.875, -1.25, 0.375),
)
# Room for round-off: singular values a little above one must not diverge.
SAFETY = 1.01
# Added to the Frobenius norm, so that zero stays zero.
TINY_NORM = 1e-7


def orthogonalize(
    G: Tensor,
    method: Method = "svd",
    *,
    steps: int = 5,
    eps: float = 0.0,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """The polar factor UVᵀ of a matrix, or an approximation of it.

    Args:
        G: (..., m, n) one matrix or a stack; each is treated by itself.
        method: ``svd`` exact, zero along singular values that are zero to rounding;
            ``regularized`` σ/√(σ² + ε²); ``ns`` Newton–Schulz with Jordan's coefficients, whose
            singular values end between 0.68 and 1.13; ``polar_express``, which converges.
        steps: polynomial steps of ``ns`` and ``polar_express``.
        eps: ε of ``regularized``; what ``ns`` and ``polar_express`` add to the norm, 0 for 1e-7.
        dtype: in which it is computed; by default that of ``G``, but at least float32.

    Returns:
        The shape and dtype of ``G``. A matrix with a value that is not finite gives nan
        throughout under ``ns`` and ``polar_express``; decompositions raise.

    Raises:
        ValueError: for an unknown method, fewer than two dimensions, ``steps`` below 1 or an
            ``eps`` that is negative or that ``svd`` has no use for.
        TypeError: if ``G`` is not a dense real floating-point tensor.

    Example:
        >>> orthogonalize(torch.diag(torch.tensor([3.0, 4.0])), "regularized", eps=3.0).diagonal()
        tensor([0.7071, 0.8000])
        >>> one = torch.ones(1, 1, dtype=torch.float64)
        >>> round(orthogonalize(one, "ns", steps=1).item(), 6)  # 3.4445 − 4.7750 + 2.0315
        0.701
    """
    if method not in METHODS:
        raise ValueError(str(unknown_name("method", method, METHODS)))
    if not (G.is_floating_point() and G.layout == torch.strided):
        raise TypeError(f"orthogonalize takes a dense real tensor, got {G.dtype}, {G.layout}")
    if G.ndim < 2:
        raise ValueError(f"orthogonalize takes matrices, got shape {tuple(G.shape)}; reshape it")
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    if eps < 0 or (eps and method == "svd"):
        raise ValueError(f"eps must be 0 for svd and ≥ 0 otherwise, got {eps} for {method}")
    if not G.numel():
        return G.clone()
    work = G.to(dtype or torch.promote_types(G.dtype, torch.float32))
    if method == "ns":
        out = polynomial(work, itertools.repeat(JORDAN, steps), eps or TINY_NORM)
    elif method == "polar_express":
        out = polynomial(work, polar_express_steps(steps), eps or TINY_NORM, SAFETY)
    else:
        out = _by_svd(work, eps)
    return out.to(G.dtype)


def smoothed_nuclear(P: Tensor, eps: float) -> Tensor:
    """The smoothed nuclear norm K_ε(P) = Σ_i (√(σ_i² + ε²) − ε), whose gradient is O_ε(P).

    It lies below the nuclear norm by at most kε for k singular values.

    Args:
        P: (..., m, n).
        eps: ε ≥ 0; 0 gives the nuclear norm.

    Returns:
        (...) of the dtype of ``P``, differentiable where ε > 0 or no singular value is zero.

    Raises:
        ValueError: if ``eps`` is negative or ``P`` is no matrix.

    Example:
        >>> smoothed_nuclear(torch.diag(torch.tensor([3.0, 0.0])), 4.0)
        tensor(1.)
    """
    if eps < 0 or P.ndim < 2:
        raise ValueError(f"expected matrices and eps ≥ 0, got shape {tuple(P.shape)}, eps {eps}")
    sigma = torch.linalg.svdvals(P.to(torch.promote_types(P.dtype, torch.float32)))
    return (torch.hypot(sigma, torch.full_like(sigma, eps)) - eps).sum(-1).to(P.dtype)


def polynomial(
    G: Tensor,
    coefficients: Iterator[tuple[float, float, float]],
    tiny: float,
    safety: float = 1.0,
) -> Tensor:
    """X ← aX + (bA + cA²)X with A = XXᵀ, from X = G over its Frobenius norm.

    Args:
        G: (..., m, n); the products are taken on the shorter side.
        coefficients: (a, b, c) of each step.
        tiny: added to the norm.
        safety: factor on the norm.
    """
    tall = G.shape[-2] > G.shape[-1]
    X = G.mT if tall else G
    X = X / (safety * torch.linalg.matrix_norm(X, keepdim=True) + tiny)
    stack = X.reshape(-1, *X.shape[-2:])
    for a, b, c in coefficients:
        gram = stack @ stack.mT
        gram = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        stack = torch.baddbmm(stack, gram, stack, beta=a)
    X = stack.reshape(X.shape)
    return X.mT if tall else X


def polar_express_steps(steps: int) -> Iterator[tuple[float, float, float]]:
    """The triples of Polar Express; all but the limiting one are slowed by the safety factor."""
    for step in range(steps):
        a, b, c = POLAR_EXPRESS[min(step, len(POLAR_EXPRESS) - 1)]
        s = SAFETY if step < len(POLAR_EXPRESS) - 1 else 1.0
        yield a / s, b / s**3, c / s**5


def _by_svd(G: Tensor, eps: float) -> Tensor:
    U, sigma, Vh = torch.linalg.svd(G, full_matrices=False)
    if eps:
        gain = sigma / torch.hypot(sigma, torch.full_like(sigma, eps))
    else:
        # Below this a singular value is round-off, and its direction is arbitrary.
        least = max(G.shape[-2:]) * torch.finfo(G.dtype).eps * sigma[..., :1]
        gain = (sigma > least).to(G.dtype)
    return (U * gain.unsqueeze(-2)) @ Vh
