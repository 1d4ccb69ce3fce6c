"""Units that must be scaled together: a union-find in which each link has an exponent.

Scaling unit u by s means its activation, and the row of the weight that makes it, times s^{x_u}.
The network's function stays the same under a family of such scalings; every operation asks
something of the exponents: that two are equal, that one is minus the other, that one is zero.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

__all__ = ["FIXED", "UnitClasses"]

#: The unit whose exponent is zero: what cannot be scaled.
FIXED = 0


class UnitClasses:
    """Exponents of units, up to what operations tie: x_u = ratio · x_root."""

    def __init__(self) -> None:
        self.parent: list[int] = [FIXED]
        self.ratio: list[float] = [1.0]
        self.dead: set[int] = {FIXED}

    def new(self, number: int) -> Tensor:
        """(number,) int64 fresh units, free of each other."""
        start = len(self.parent)
        self.parent.extend(range(start, start + number))
        self.ratio.extend([1.0] * number)
        return torch.arange(start, start + number)

    def find(self, unit: int) -> tuple[int, float]:
        """Root and exponent relative to it."""
        path = []
        while self.parent[unit] != unit:
            path.append(unit)
            unit = self.parent[unit]
        total = 1.0
        for u in reversed(path):
            total *= self.ratio[u]
            self.parent[u], self.ratio[u] = unit, total
        return unit, total

    def stop(self, units: Tensor) -> None:
        """Asks that the exponents be zero."""
        for u in np.unique(units.numpy()).tolist():
            self.dead.add(self.find(u)[0])

    def tie(self, left: Tensor, right: Tensor, ratio: float = 1.0) -> None:
        """Asks that x_left = ratio · x_right, element by element.

        Args:
            left: int64, any shape.
            right: same shape.
            ratio: not zero.
        """
        pairs = np.stack([left.reshape(-1).numpy(), right.reshape(-1).numpy()])
        for u, v in np.unique(pairs, axis=1).T.tolist():
            (a, p), (b, q) = self.find(u), self.find(v)
            if a == b:
                if abs(p - ratio * q) > 1e-12:
                    self.dead.add(a)
                continue
            if FIXED in (a, b):
                self.dead.update((a, b))
                continue
            # x_u = p x_a and x_v = q x_b, so x_a = ratio q / p x_b.
            self.parent[a], self.ratio[a] = b, ratio * q / p
            if a in self.dead:
                self.dead.add(b)

    def alive(self, unit: int) -> bool:
        """Whether the unit can be scaled at all."""
        return self.find(unit)[0] not in self.dead
