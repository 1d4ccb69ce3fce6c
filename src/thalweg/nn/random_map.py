"""Fixed random linear maps of d numbers to D, as modules whose constants are drawn from a seed.

Constants are no buffers: a seed is enough to have them again, so nothing saves them, and DDP does
not send them around at every step. They move with the module and keep their dtype.

Source: Li, Farkhoor, Liu, Yosinski 2018, arXiv 1804.08838 (entry intrinsic-dimension).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from thalweg.numerics import (
    dense_projection,
    fastfood_factors,
    reduced_factors,
    reduced_fastfood,
    sparse_projection,
)

__all__ = ["Projection", "RandomMap"]

Projection = Literal["fastfood", "dense", "sparse", "orthonormal"]


class RandomMap(nn.Module):
    """d numbers to D by a random matrix with columns of about unit length.

    Args:
        projection: ``fastfood`` (O(D log D) time, O(D) memory), ``dense`` (O(d D)), ``sparse``
            (O(d √D)) or ``orthonormal`` (dense, by QR).
        D: numbers out.
        d: numbers in; may exceed D, except for ``orthonormal``.
        seed: fixes the matrix.
        max_bytes: refuse a matrix that takes more.

    Raises:
        ValueError: for an unknown projection, a matrix above ``max_bytes``, or d > D where columns
            are to be orthonormal.

    Source: Li et al. 2018, arXiv 1804.08838.

    Example:
        >>> P = RandomMap("dense", 100, 2, seed=0, max_bytes=10**6)
        >>> P.draw(torch.float64, "cpu")
        >>> round(float(P(torch.tensor([3.0, 0.0]).double()).norm()), 9)
        3.0
    """

    def __init__(
        self, projection: Projection, D: int, d: int, *, seed: int, max_bytes: int
    ) -> None:
        super().__init__()
        if projection not in get_args(Projection):
            raise ValueError(
                f"projection must be one of {', '.join(get_args(Projection))}; got {projection!r}"
            )
        if projection == "orthonormal" and d > D:
            raise ValueError(
                f"{d} columns of length {D} cannot be orthonormal: use projection='dense', a "
                "smaller d, or granularity='model'"
            )
        entries = {"dense": 8 * D * d, "orthonormal": 8 * D * d, "sparse": 24 * d * math.sqrt(D)}
        wanted = entries.get(projection, 0)
        if wanted > max_bytes:
            raise ValueError(
                f"a {projection} projection of {d} to {D} numbers takes {wanted / 2**20:,.0f} MiB, "
                f"above max_bytes={max_bytes:,}: use projection='fastfood', which keeps no matrix"
            )
        self.projection, self.D, self.d, self.seed = projection, D, d, seed
        self.constants: dict[str, Tensor] = {}

    def draw(self, dtype: torch.dtype, device: torch.device | str) -> None:
        """Draws the constants anew from the seed.

        Args:
            dtype: of the constants and of what comes in: float32 or float64.
            device: theirs.
        """
        if self.projection == "fastfood":
            reach = max(self.D, self.d)
            factors = fastfood_factors(reach, self.seed, dtype=torch.float64)
            names = ("signs", "index", "gains")
            constants = dict(zip(names, reduced_factors(factors, self.d, self.D), strict=True))
        elif self.projection == "sparse":
            drawn = sparse_projection(self.D, self.d, self.seed, dtype=torch.float64)
            constants = dict(zip(("rows", "columns", "values"), drawn, strict=True))
        else:
            orthonormal = self.projection == "orthonormal"
            matrix = dense_projection(
                self.D, self.d, self.seed, orthonormal=orthonormal, dtype=dtype
            )
            constants = {"matrix": matrix}
        self.constants = {
            name: value.to(device, dtype if value.is_floating_point() else None)
            for name, value in constants.items()
        }

    def forward(self, x: Tensor) -> Tensor:
        """P x: (d,) to (D,)."""
        known = self.constants
        if self.projection == "fastfood":
            return reduced_fastfood(x, self.D, known["signs"], known["index"], known["gains"])
        if self.projection == "sparse":
            spread = known["values"] * x.index_select(0, known["columns"])
            return x.new_zeros(self.D).index_add(0, known["rows"], spread)
        return known["matrix"] @ x

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> RandomMap:
        """Follows to another device; whoever needs another dtype draws again."""
        super()._apply(fn, recurse)
        for name, value in self.constants.items():
            self.constants[name] = value.to(fn(value[:0]).device)
        return self

    def extra_repr(self) -> str:
        """Shown by ``repr``."""
        return f"{self.projection}, {self.d} -> {self.D}, seed={self.seed}"
