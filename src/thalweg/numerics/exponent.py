"""The exponent of a power law, from a straight line through logarithms.

    y ≈ e^a · x^b:   (a, b) by least squares of log y on log x inside a stated window

The uncertainty is that of ordinary least squares: it takes the scatter about the line as
independent from point to point, and knows nothing of a curve that is no power law, for which R² and
a second window are the check. Repeated measurements at one x (seeds) are simply further points.

Source: ordinary least squares, as in A. Clauset, C. Shalizi, M. Newman 2009, arXiv 0706.1062, which
also says what it is not good for: the tail of a distribution.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["ExponentFit", "fit_exponent"]


@dataclass(frozen=True)
class ExponentFit:
    """A power law y = e^intercept · x^exponent.

    Attributes:
        exponent: slope of log y on log x.
        stderr: its standard error; nan with two points, which leave nothing to judge it by.
        intercept: natural logarithm of y at x = 1.
        r2: share of the variance of log y that the line explains; 1 if y is constant and fitted.
        window: smallest and largest x that took part.
        num_points: how many took part.
    """

    exponent: float
    stderr: float
    intercept: float
    r2: float
    window: tuple[float, float]
    num_points: int

    def __call__(self, x: float) -> float:
        """The fitted y at an x."""
        return math.exp(self.intercept + self.exponent * math.log(x))


def fit_exponent(
    x: Tensor | Sequence[float],
    y: Tensor | Sequence[float],
    *,
    window: tuple[float, float] | None = None,
) -> ExponentFit:
    """Exponent of a power law, with its uncertainty and the window it was taken from.

        b = Σ (u − ū)(v − v̄) / Σ (u − ū)²,   u = log x,  v = log y

    Args:
        x: (N,) positive.
        y: (N,) positive, in float64 from here on.
        window: smallest and largest x that take part, both included; default: all.

    Returns:
        The fit; ``stderr`` is nan with two points.

    Raises:
        ValueError: for shapes that differ, values in the window that are not positive and finite,
            or fewer than two distinct x in it.

    Source:
        Ordinary least squares; see the module.

    Example:
        >>> fit = fit_exponent([1, 2, 4, 8], [3, 12, 48, 192])
        >>> round(fit.exponent, 12), round(fit(3), 9), fit.window
        (2.0, 27.0, (1.0, 8.0))
        >>> round(fit_exponent([1, 2, 4, 8], [9, 1, 1, 1], window=(2, 8)).exponent, 12)
        0.0
    """
    u, v = (torch.as_tensor(t, dtype=torch.float64).detach().cpu() for t in (x, y))
    if u.ndim != 1 or u.shape != v.shape:
        raise ValueError(
            f"x and y must be of one shape (N,), got {tuple(u.shape)} and {tuple(v.shape)}"
        )
    if window is not None:
        inside = (u >= window[0]) & (u <= window[1])
        u, v = u[inside], v[inside]
    for name, t in (("x", u), ("y", v)):
        if not bool(((t > 0) & t.isfinite()).all()):
            raise ValueError(
                f"{name} must be positive and finite, got {t.tolist()}; a window leaves points out"
            )
    if len(u.unique()) < 2:
        raise ValueError(f"an exponent needs two distinct x in the window, got {u.tolist()}")
    low, high = u.min().item(), u.max().item()
    u, v = u.log(), v.log()
    du, dv = u - u.mean(), v - v.mean()
    spread = du.square().sum()
    slope = (du * dv).sum() / spread
    rest, total = (dv - slope * du).square().sum(), dv.square().sum()
    n = len(u)
    # of a constant y both sums are round-off
    constant = total <= n * (torch.finfo(v.dtype).eps * v.abs().max()) ** 2
    return ExponentFit(
        exponent=slope.item(),
        stderr=(rest / (n - 2) / spread).sqrt().item() if n > 2 else math.nan,
        intercept=(v.mean() - slope * u.mean()).item(),
        r2=1.0 if constant else (1 - rest / total).item(),
        window=(low, high),
        num_points=n,
    )
