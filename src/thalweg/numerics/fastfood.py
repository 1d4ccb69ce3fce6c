"""Fast Walsh–Hadamard transform, and the random projection of O(D log D) cost made of it.

Source: Le, Sarlós, Smola 2013, arXiv 1408.3060; in the normalisation of Li, Farkhoor, Liu,
Yosinski 2018, arXiv 1804.08838 (entry intrinsic-dimension). Axes: `d` dimensions in, `D` out,
`Λ` = D rounded up to a power of two.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = [
    "Factors",
    "fastfood",
    "fastfood_factors",
    "fwht",
    "reduced_factors",
    "reduced_fastfood",
]

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
    done = min(1 << BLOCK, n)
    # The first levels act within rows of 32: one product, not many with a single column each.
    H = _hadamard(done, work)
    work = work.reshape(-1, done) @ H
    while done < n:
        size = min(1 << BLOCK, n // done)
        work = work.reshape(-1, size, done)
        work = torch.matmul(H if len(H) == size else _hadamard(size, work), work)
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
    padded = _power(D)
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

    Cost: one transform of length Λ and one of length d, each in products with 32 × 32 matrices; 3 Λ
        numbers.

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
    work = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
    if factors is None:
        assert seed is not None
        factors = fastfood_factors(D, seed, dtype=work.dtype, device=x.device)
    padded = _power(D)
    if not factors[0].shape == factors[1].shape == factors[2].shape == (padded,):
        raise ValueError(
            f"fastfood: the factors for D={D} have length {padded}; got "
            f"{', '.join(str(tuple(f.shape)) for f in factors[:3])}"
        )
    S = factors[3] if len(factors) == 4 else None
    if S is None:
        return reduced_fastfood(work, D, *reduced_factors(factors, d, D)).to(x.dtype)
    y = reduced_fastfood(work, D, *reduced_factors((*factors[:3], 1.0), d, D))
    return (y * (S.to(y) if isinstance(S, Tensor) else S)).to(x.dtype)


def reduced_factors(
    factors: Factors | tuple[Tensor, Tensor, Tensor], d: int, D: int
) -> tuple[Tensor, Tensor, Tensor]:
    """What is needed of the factors for inputs of one length: made once, used at every step.

    H x of an x that is zero from n on repeats with period n. So the first transform has the length
    n = d rounded up to a power of two, and the permutation gathers from n numbers.

    Args:
        factors: (B, Pi, G) or (B, Pi, G, S) of length Λ ≥ max(d, D), S a number or None.
        d: input dimension.
        D: output dimension.

    Returns:
        (B[:d], Pi mod n, G S): signs (d,), indices (Λ,) int32 and gains (Λ,).

    Raises:
        ValueError: if d or D is beyond Λ.

    Example:
        >>> [tuple(f.shape) for f in reduced_factors(fastfood_factors(5, seed=0), 2, 5)]
        [(2,), (8,), (8,)]
    """
    B, Pi, G = factors[:3]
    if not 1 <= max(d, D) <= len(G):
        raise ValueError(f"factors of length {len(G)} do not reach d={d}, D={D}")
    S = factors[3] if len(factors) == 4 and factors[3] is not None else None
    gains = G * torch.rsqrt(D * G.square().sum()) if S is None else G * S
    return B[:d], (Pi & (_power(d) - 1)).int(), gains


def reduced_fastfood(x: Tensor, D: int, signs: Tensor, index: Tensor, gains: Tensor) -> Tensor:
    """``fastfood`` with ``reduced_factors``: (..., d) to (..., D), unchecked.

    Args:
        x: float32 or float64.
        D: output dimension.
        signs: (d,).
        index: (Λ,).
        gains: (Λ,).

    Example:
        >>> import torch
        >>> x, factors = torch.ones(2), fastfood_factors(5, seed=0)
        >>> y = reduced_fastfood(x, 5, *reduced_factors(factors, 2, 5))
        >>> torch.equal(y, fastfood(x, 5, seed=0))
        True
    """
    d = x.shape[-1]
    short = fwht(torch.nn.functional.pad(x * signs.to(x), (0, _power(d) - d)))
    return fwht(short.index_select(-1, index.to(x.device)) * gains.to(x))[..., :D]


def _power(n: int) -> int:
    """The smallest power of two from n on."""
    return 1 << (n - 1).bit_length()


def _hadamard(n: int, like: Tensor) -> Tensor:
    H = torch.ones((1, 1), dtype=like.dtype, device=like.device)
    for _ in range(int(math.log2(n))):
        H = torch.cat([torch.cat([H, H], 1), torch.cat([H, -H], 1)], 0)
    return H
