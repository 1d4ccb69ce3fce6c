"""Random linear maps to few dimensions that keep lengths: CountSketch and SRHT.

Each is fixed by its seed alone, so that sketches of one run can be compared with those of another
and nothing but the seed need be stored. Axes: `dim` of the input, `size` of the sketch.
"""

from __future__ import annotations

import torch
from torch import Tensor

from thalweg.numerics.fastfood import fwht

__all__ = ["SRHT", "CountSketch"]


class CountSketch:
    """Adds each coordinate, with a random sign, to one random bucket.

        (Sx)_b = Σ_{i : h(i) = b} s_i x_i,   E‖Sx‖² = ‖x‖²,   Var‖Sx‖² ≤ 2‖x‖⁴ / size

    Args:
        dim: length of the input.
        size: number of buckets.
        seed: fixes h and s.

    Raises:
        ValueError: if dim or size is not positive.

    Cost: one read of x, 9 dim bytes of tables.

    Source: Charikar, Chen, Farach-Colton 2002; Clarkson & Woodruff 2013, arXiv 1207.6365.

    Example:
        >>> import torch
        >>> CountSketch(5, 1, seed=0).apply(torch.ones(5)).shape
        torch.Size([1])
    """

    def __init__(self, dim: int, size: int, *, seed: int = 0) -> None:
        _check("CountSketch", dim, size)
        self.dim, self.size, self.seed = dim, size, seed
        generator = torch.Generator().manual_seed(seed)
        self._bucket = torch.randint(size, (dim,), generator=generator)
        self._sign = _signs(dim, generator)

    def apply(self, x: Tensor) -> Tensor:
        """Sx, (..., size), for x (..., dim); dtype and device of x."""
        _check_input("CountSketch", x, self.dim)
        out = x.new_zeros((*x.shape[:-1], self.size))
        return out.index_add_(-1, self._bucket.to(x.device), x * self._sign.to(x))

    def transpose(self, y: Tensor) -> Tensor:
        """Sᵀy, (..., dim), for y (..., size)."""
        _check_input("CountSketch.transpose", y, self.size)
        return y[..., self._bucket.to(y.device)] * self._sign.to(y)


class SRHT:
    """Subsampled randomised Hadamard transform: mixes all coordinates, then keeps a few.

        Sx = √(1/size) R H D x,   D random signs, H the ±1 Hadamard matrix, R rows without repeats

    Args:
        dim: length of the input, padded with zeros to a power of two.
        size: coordinates kept, at most that power of two.
        seed: fixes D and R.

    Raises:
        ValueError: if dim or size is not positive, or size exceeds the padded length.

    Cost: dim log dim additions; dim + 8 size bytes of tables.

    Source: Ailon & Chazelle 2006; Tropp 2011, arXiv 1011.1595.

    Example:
        >>> import torch
        >>> SRHT(4, 4, seed=0).apply(torch.tensor([1.0, 2.0, 2.0, 0.0])).norm()  # orthogonal
        tensor(3.)
    """

    def __init__(self, dim: int, size: int, *, seed: int = 0) -> None:
        _check("SRHT", dim, size)
        self.dim, self.size, self.seed = dim, size, seed
        self._padded = 1 << (dim - 1).bit_length()
        if size > self._padded:
            raise ValueError(f"SRHT: size {size} exceeds the padded length {self._padded}")
        generator = torch.Generator().manual_seed(seed)
        self._sign = _signs(dim, generator)
        self._row = torch.randperm(self._padded, generator=generator)[:size].clone()

    def apply(self, x: Tensor) -> Tensor:
        """Sx, (..., size), for x (..., dim); dtype and device of x."""
        _check_input("SRHT", x, self.dim)
        padded = torch.nn.functional.pad(x * self._sign.to(x), (0, self._padded - self.dim))
        return fwht(padded)[..., self._row.to(x.device)] * self.size**-0.5

    def transpose(self, y: Tensor) -> Tensor:
        """Sᵀy, (..., dim), for y (..., size)."""
        _check_input("SRHT.transpose", y, self.size)
        spread = y.new_zeros((*y.shape[:-1], self._padded))
        spread[..., self._row.to(y.device)] = y * self.size**-0.5
        return fwht(spread)[..., : self.dim] * self._sign.to(y)


def _signs(dim: int, generator: torch.Generator) -> Tensor:
    return torch.randint(2, (dim,), generator=generator, dtype=torch.int8) * 2 - 1


def _check(who: str, dim: int, size: int) -> None:
    if dim < 1 or size < 1:
        raise ValueError(f"{who}: dim and size must be positive, got {dim}, {size}")


def _check_input(who: str, x: Tensor, length: int) -> None:
    if x.ndim == 0 or x.shape[-1] != length or not x.is_floating_point():
        raise ValueError(
            f"{who}: expected floating (..., {length}), got {tuple(x.shape)} of {x.dtype}"
        )
