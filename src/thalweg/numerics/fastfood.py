"""Fast Walsh–Hadamard transform, and the random projection of O(D log D) cost made of it.

Source: Le, Sarlós, Smola 2013, arXiv 1408.3060; in the normalisation of Li, Farkhoor, Liu,
Yosinski 2018, arXiv 1804.08838 (entry intrinsic-dimension). Axes: `d` dimensions in, `D` out,
`Λ` = D rounded up to a power of two.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["Factors", "fastfood", "fastfood_factors", "fwht"]

Factors = tuple[Tensor, Tensor, Tensor, Tensor | float | None]
"""(B, Pi, G, S): signs (Λ,), permutation (Λ,), Gaussians (Λ,), and the scale of the output."""

BLOCK = 5
"""Levels done at once as a product with a 32 × 32 Hadamard matrix: fewer passes over memory."""


def fwht(x: Tensor, dim: int = -1, normalize: bool = False) -> Tensor:
    """Walsh–Hadamard transform along one dimension, in natural (Sylvester) order.

        y = H x,   H_{2n} = [[H_n, H_n], [H_n, −H_n]],   H Hᵀ = n I

    Linear and symmetric: the gradient is the same transform.

    Args:
        x: floating, of length n, a power of two, along ``dim``. Half precision is summed in
            float32.
        dim: which dimension.
        normalize: divide by √n, so that the transform is its own inverse.

    Returns:
        Shape, dtype and device of x.

    Raises:
        ValueError: if n is not a power of two or x is not floating.

    Example:
        >>> import torch
        >>> fwht(torch.tensor([1.0, 0, 1, 0, 0, 1, 1, 0])).tolist()
        [4.0, 2.0, 0.0, -2.0, 0.0, 2.0, 0.0, 2.0]
    """
    if not x.is_floating_point() or x.ndim == 0:
        raise ValueError(f"fwht: expected a floating tensor with a dimension, got {x.dtype}")
    n = x.shape[dim]
    if n < 1 or n & (n - 1):
        raise ValueError(f"fwht: the length must be a power of two, got {n}; pad with zeros")
    work = x.movedim(dim, -1)
    shape = work.shape
    low = x.dtype in (torch.float16, torch.bfloat16)
    work = work.float() if low else work
    done = 1
    while done < n:
        size = min(1 << BLOCK, n // done)
        work = work.reshape(-1, size, done)
        work = torch.matmul(_hadamard(size, work), work)
        done *= size
    work = work.reshape(shape)
    work = work * n**-0.5 if normalize else work
    return work.to(x.dtype).movedim(-1, dim)


def fastfood_factors(
    D: int, seed: int, *, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
) -> Factors:
    """Draws the factors of a fastfood map, on the CPU, then moves them.

    Args:
        D: output dimension.
        seed: fixes them, whatever the device.
        dtype: of the factors.
        device: of the factors.

    Returns:
        (B, Pi, G, None): with None, ``fastfood`` normalises the columns.

    Example:
        >>> [len(f) for f in fastfood_factors(5, seed=0)[:3]]
        [8, 8, 8]
    """
    if D < 1:
        raise ValueError(f"fastfood: D must be positive, got {D}")
    padded = 1 << (D - 1).bit_length()
    generator = torch.Generator().manual_seed(seed)
    B = torch.randint(2, (padded,), generator=generator).to(dtype) * 2 - 1
    Pi = torch.randperm(padded, generator=generator)
    G = torch.randn(padded, generator=generator, dtype=torch.float64).to(dtype)
    return B.to(device), Pi.to(device), G.to(device), None


def fastfood(
    x: Tensor,
    D: int,
    *,
    seed: int | None = None,
    factors: Factors | tuple[Tensor, Tensor, Tensor] | None = None,
) -> Tensor:
    """Random projection of d numbers to D, with columns of unit length.

        y = S ⊙ (H G Π H B x)[:D],   S = 1 / (√(Λ Σ_i G_i²) √(D/Λ)) = 1 / √(D Σ_i G_i²)

    Columns have norm exactly 1 if D = Λ, else in expectation.

    Args:
        x: (..., d), padded with zeros to Λ.
        D: output dimension, D ≥ d.
        seed: draws the factors, see ``fastfood_factors``.
        factors: (B, Pi, G) or (B, Pi, G, S) in place of a seed; Π gathers, z = (H B x)[Pi]; S is a
            number or (D,), None for the value above.

    Returns:
        (..., D), dtype and device of x.

    Raises:
        ValueError: if d > D, the factors do not fit, or not exactly one of seed and factors is
            given.

    Cost: 2 Λ log₂ Λ additions, 3 Λ numbers.

    Example:
        >>> import torch
        >>> round(fastfood(torch.tensor([0.0, 2.0]), 4, seed=0).norm().item(), 5)
        2.0
    """
    if (seed is None) == (factors is None):
        raise ValueError("fastfood: give a seed or the factors, one of the two")
    if x.ndim == 0 or not x.is_floating_point():
        raise ValueError(f"fastfood: expected floating (..., d), got {tuple(x.shape)}, {x.dtype}")
    d = x.shape[-1]
    if not 1 <= d <= D:
        raise ValueError(f"fastfood: need 1 <= d <= D, got d={d}, D={D}")
    if factors is None:
        assert seed is not None
        factors = fastfood_factors(D, seed, dtype=x.dtype, device=x.device)
    B, Pi, G = factors[0].to(x), factors[1].to(x.device), factors[2].to(x)
    S = factors[3] if len(factors) == 4 else None
    padded = 1 << (D - 1).bit_length()
    if not B.shape == Pi.shape == G.shape == (padded,):
        raise ValueError(
            f"fastfood: the factors for D={D} have length {padded}; got {tuple(B.shape)}, "
            f"{tuple(Pi.shape)}, {tuple(G.shape)}"
        )
    if S is None:
        S = torch.rsqrt(D * G.square().sum())
    z = fwht(torch.nn.functional.pad(x, (0, padded - d)) * B)
    y = fwht(z[..., Pi] * G)[..., :D]
    return y * (S.to(x) if isinstance(S, Tensor) else S)


def _hadamard(n: int, like: Tensor) -> Tensor:
    H = torch.ones((1, 1), dtype=like.dtype, device=like.device)
    for _ in range(int(math.log2(n))):
        H = torch.cat([torch.cat([H, H], 1), torch.cat([H, -H], 1)], 0)
    return H
