"""A path's directions in its own T × T numbers, their course over time, and where it leads.

Everything is a mixture of the T observed changes: w holds how much of each, and a prediction, its
error and the fit to predictions that were added (autoregression) need the Gram matrix alone.
Axes: `T` observed checkpoints, `r` directions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

__all__ = ["Course", "Fit", "directions", "fitted", "line_weights", "r_squared"]

Fit = Literal["linear", "polynomial", "sinusoid"]
NEGLIGIBLE = 1e-6  # σ_k/σ_1 below which a direction is round-off


@dataclass(frozen=True)
class Course:
    """How the coefficients of the leading directions are carried on.

    Attributes:
        rank: r, directions.
        fit: over time: a line, a parabola, or a sine of free frequency around a mean.
        window: only so many last points are fitted; None: all.
        refit_every: predict so many points at the last spacing, add them, drop as many of the
            oldest, and start again, until the target is reached; None: at once.
        center: directions of the path around its mean, not from the base.

    Raises:
        ValueError: if an argument is out of range.
    """

    rank: int = 1
    fit: Fit = "linear"
    window: int | None = None
    refit_every: int | None = None
    center: bool = False

    def __post_init__(self) -> None:
        if self.fit not in ("linear", "polynomial", "sinusoid"):
            raise ValueError(f"fit must be linear, polynomial or sinusoid, got {self.fit!r}")
        least = {"linear": 2, "polynomial": 3, "sinusoid": 4}[self.fit]
        window = least if self.window is None else self.window
        every = 1 if self.refit_every is None else self.refit_every
        if self.rank < 1 or window < least or every < 1:
            raise ValueError(
                f"need rank >= 1, window >= {least} for fit={self.fit!r} and refit_every >= 1; got "
                f"{self.rank}, {self.window}, {self.refit_every}"
            )

    def weights(self, G: Tensor, times: Tensor, target: float) -> Tensor:
        """The prediction at a time as a mixture of observed changes.

        Args:
            G: (T, T) inner products of the changes.
            times: (T,) of the observed.
            target: time of the prediction.

        Returns:
            w, (T,) float64; zeros if the tensor never moved.
        """
        A, G, times = torch.eye(len(G), dtype=torch.float64), G.double(), times.double()
        if self.refit_every is not None and target > times[-1]:
            spacing = times[-1] - times[-2]
            while target > times[-1] + self.refit_every * spacing:
                ahead = times[-1] + spacing * torch.arange(1, self.refit_every + 1)
                new = torch.stack([self._mix(A @ G @ A.T, times, t) @ A for t in ahead])
                A = torch.cat([A, new])[self.refit_every :]
                times = torch.cat([times, ahead])[self.refit_every :]
        return self._mix(A @ G @ A.T, times, torch.tensor(target, dtype=torch.float64)) @ A

    def _mix(self, G: Tensor, times: Tensor, target: Tensor) -> Tensor:
        U, S = directions(G, self.rank, center=self.center)
        last = slice(-min(self.window or len(times), len(times)), None)
        ahead = fitted(times[last], (U * S)[last], target[None], self.fit)[0]
        w = U @ torch.where(S > 0, ahead / S.clamp(min=torch.finfo(S.dtype).tiny), 0.0)
        return w + 1 / len(G) if self.center else w


def directions(G: Tensor, rank: int, *, center: bool = False) -> tuple[Tensor, Tensor]:
    """Leading eigenvectors U (T, r) and singular values S (r,) of M, from M Mᵀ; 0 where round-off.

    Signs are fixed so that each column of U sums to no less than 0.
    """
    if center:
        G = G - G.mean(0) - G.mean(1)[:, None] + G.mean()
    values, vectors = torch.linalg.eigh(G.double())
    S = values.flip(0).clamp(min=0).sqrt()[:rank]
    U = vectors.flip(1)[:, :rank]
    U = U * torch.where(U.sum(0) < 0, -1.0, 1.0)
    return U, torch.where(S > NEGLIGIBLE * S[:1], S, 0.0)


def line_weights(times: Tensor, target: float) -> Tensor:
    """A straight line through every coordinate, as a mixture of the observed changes, (T,)."""
    return fitted(times, torch.eye(len(times), dtype=torch.float64), _at(target), "linear")[0]


def fitted(times: Tensor, C: Tensor, at: Tensor, fit: Fit) -> Tensor:
    """Least-squares fits of the columns of C over time, read off at other times.

    Args:
        times: (T,).
        C: (T, r).
        at: (n,).
        fit: which.

    Returns:
        (n, r).
    """
    origin, unit = times.mean(), (times[-1] - times[0]).abs().clamp(min=1e-300)
    t, at = (times - origin) / unit, (at - origin) / unit
    if fit == "sinusoid":
        return torch.cat([_sinusoid(t, column[:, None], at) for column in C.T], 1)
    degree = 1 if fit == "linear" else 2
    powers = torch.arange(min(degree, len(t) - 1) + 1)
    solved = torch.linalg.lstsq(t[:, None] ** powers, C.double()).solution
    return (at[:, None] ** powers) @ solved


def r_squared(times: Tensor, c: Tensor, fit: Fit) -> float:
    """Share of the variance of c (T,) that its fit over time explains; 1 for a constant."""
    left = (fitted(times, c[:, None], times, fit)[:, 0] - c).square().sum()
    spread = (c - c.mean()).square().sum()
    return float(1 - left / spread) if spread > 0 else 1.0


def _sinusoid(t: Tensor, c: Tensor, at: Tensor) -> Tensor:
    """A + b sin ωt + d cos ωt: linear for a given ω, which a grid and a bisection find."""

    def solve(omega: Tensor) -> tuple[Tensor, Tensor]:
        X = torch.stack([torch.ones_like(omega * t), (omega * t).sin(), (omega * t).cos()], -1)
        solved = torch.linalg.lstsq(X, c.expand(len(omega), -1, -1), driver="gelsd").solution
        return (X @ solved - c).square().sum((1, 2)), solved

    # From an eighth of a period in the window, where a sine is all but a parabola, to two points a
    # period.
    grid = torch.logspace(-0.9, 0, 64 * len(t), dtype=torch.float64)[:, None]
    grid = grid / grid.max() * torch.pi * max(len(t) - 1, 1)
    grid = torch.cat(
        [torch.linspace(0.8, float(grid.min()), 64, dtype=torch.float64)[:, None], grid]
    )
    best = int(solve(grid)[0].argmin())
    low, high = float(grid[max(best - 1, 0)]), float(grid[min(best + 1, len(grid) - 1)])
    for _ in range(40):
        third = (high - low) / 3
        pair = torch.tensor([[low + third], [high - third]], dtype=torch.float64)
        errors = solve(pair)[0]
        low, high = (low, high - third) if errors[0] < errors[1] else (low + third, high)
    omega = torch.tensor([[(low + high) / 2]], dtype=torch.float64)
    a, b, d = solve(omega)[1][0, :, 0]
    return (a + b * (omega[0] * at).sin() + d * (omega[0] * at).cos())[:, None]


def _at(target: float) -> Tensor:
    return torch.tensor([target], dtype=torch.float64)
