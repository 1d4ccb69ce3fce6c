"""What noise looks like: explained fractions of a random walk in many dimensions.

A walk whose every step is fresh noise looks low-dimensional: its leading component alone explains
six tenths of it, and along it the walk draws half a cosine. Only what goes beyond is evidence.

Source: J. Antognini, J. Sohl-Dickstein 2018, arXiv 1806.08805, in the limit; exact in T here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["WalkNull", "line_through_walk", "random_walk_null", "walk_gram"]


def walk_gram(steps: Sequence[int], *, base_step: int = 0) -> Tensor:
    """Expected inner products of a walk seen at these steps, (T, T) float64: min(t_i, t_j).

    Args:
        steps: ascending, after the base.
        base_step: where the walk starts.
    """
    t = torch.tensor(list(steps), dtype=torch.float64) - base_step
    return torch.minimum(t[:, None], t[None, :])


def random_walk_null(n: int, center: bool = True, *, steps: Sequence[int] | None = None) -> Tensor:
    """Explained fractions of a Gaussian random walk in d ≫ n dimensions.

    In the limit of large n: 6/(π²k²) centred, 8/(π²(2k−1)²) uncentred, k = 1, 2, …

    Args:
        n: points seen, evenly spaced, after the start, which is not among them.
        center: subtract the mean over time first.
        steps: where the points are seen, if not evenly; n of them.

    Returns:
        (n,) float64, descending, sum 1 (the last is 0 when centred).

    Raises:
        ValueError: if n < 2 or steps are not n ascending positive numbers.

    Example:
        >>> random_walk_null(200)[:3].round(decimals=2)
        tensor([0.6100, 0.1500, 0.0700], dtype=torch.float64)
    """
    steps = list(range(1, n + 1)) if steps is None else list(steps)
    if n < 2 or len(steps) != n or steps[0] < 1 or sorted(set(steps)) != steps:
        raise ValueError(
            f"random_walk_null: need n >= 2 ascending positive steps, got {n}: {steps}"
        )
    G = walk_gram(steps)
    if center:
        G = G - G.mean(0) - G.mean(1)[:, None] + G.mean()
    values = torch.linalg.eigvalsh(G).flip(0).clamp(min=0)
    return values / values.sum()


class WalkNull(NamedTuple):
    """What a random walk of equal length gives, uncentred.

    Attributes:
        explained: share of its first direction.
        r2: R² of a straight line through the coefficient of that direction.
    """

    explained: float
    r2: float


def line_through_walk(steps: Sequence[int], *, base_step: int = 0) -> WalkNull:
    """The first direction of a walk seen at these steps, and how straight it looks.

    Evenly spaced and many, .8106 and .9584: (4/π² − 1/π)²·12/(1/2 − 4/π²).

    Args:
        steps: ascending, after the base; at least 2.
        base_step: where the walk starts.
    """
    values, vectors = torch.linalg.eigh(walk_gram(steps, base_step=base_step))
    t = torch.tensor(list(steps), dtype=torch.float64)
    c, t = vectors[:, -1] - vectors[:, -1].mean(), t - t.mean()
    r2 = (c @ t).square() / (c.square().sum() * t.square().sum())
    return WalkNull(float(values[-1] / values.sum()), float(r2))
