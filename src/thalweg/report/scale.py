"""Axes: which stretch of values is shown, linear or logarithmic, and where its ticks are."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

__all__ = ["Scale", "number", "scale_of", "short_step", "step_ticks"]

# Where values span more than this factor, a logarithmic axis shows more of them.
_LOG_FROM = 50.0


@dataclass(frozen=True)
class Scale:
    """An axis from ``low`` to ``high``; ``possible`` tells whether it could be logarithmic."""

    low: float
    high: float
    log: bool = False
    possible: bool = False

    def place(self, values: np.ndarray) -> np.ndarray:
        """Where values lie: 0 at ``low``, 1 at ``high``, cut off beyond; nan stays nan.

        Example:
            >>> Scale(1.0, 100.0, log=True).place(np.array([1.0, 10.0, 100.0]))
            array([0. , 0.5, 1. ])
        """
        values = np.asarray(values, float)
        if self.log:
            a, b = math.log(self.low), math.log(self.high)
            with np.errstate(divide="ignore", invalid="ignore"):
                place = (np.log(values) - a) / (b - a)
        else:  # halves first: high - low may overflow
            place = (values / 2 - self.low / 2) / (self.high / 2 - self.low / 2)
        return np.clip(place, 0.0, 1.0)

    def ticks(self) -> list[float]:
        """Two to eight round values on the axis, ascending."""
        if not self.log:
            return _linear_ticks(self.low, self.high)
        first, last = math.ceil(math.log10(self.low)), math.floor(math.log10(self.high))
        if last - first >= 2:
            stride = math.ceil((last - first + 1) / 5)
            return [_power(k) for k in range(first, last + 1, stride)]
        found = [m * _power(k) for k in range(first - 1, last + 1) for m in (1, 2, 5)]
        found = [tick for tick in found if self.low <= tick <= self.high]
        return found if len(found) > 1 else _linear_ticks(self.low, self.high)


def scale_of(
    low: np.ndarray, high: np.ndarray, *, fixed: tuple[float, float] | None = None
) -> Scale | None:
    """The axis on which columns are drawn; None if they hold no finite value.

    Args:
        low: (B,) least values, nan for none.
        high: (B,) greatest values, nan for none.
        fixed: show this stretch, whatever the values.

    Example:
        >>> scale_of(np.array([1e-3]), np.array([10.0])).log
        True
    """
    low, high = low[np.isfinite(low)], high[np.isfinite(high)]
    if not len(low) or not len(high):
        return None
    least, most = float(low.min()), float(high.max())
    if fixed and fixed[0] <= least and most <= fixed[1]:
        return Scale(*fixed)
    possible = least > 0
    if possible and most / least > _LOG_FROM:
        margin = (most / least) ** 0.04 if math.isfinite(most / least) else 1.0
        return Scale(least / margin or least, min(most * margin, np.finfo(float).max), True, True)
    return Scale(*_linear_range(least, most), possible=possible and most > least)


def _linear_range(least: float, most: float) -> tuple[float, float]:
    """With a margin; from zero where that is near."""
    if least == most:
        margin = abs(least) * 0.05 or 1.0
    else:
        margin = (most / 2 - least / 2) * 0.08
    limit = float(np.finfo(float).max)
    top = 0.0 if most <= 0 and most > 0.3 * least else min(most + margin, limit)
    bottom = 0.0 if least >= 0 and least < 0.3 * most else max(least - margin, -limit)
    return bottom, top if top > bottom else bottom + 1.0


def _linear_ticks(low: float, high: float) -> list[float]:
    span = high / 5 - low / 5
    if not (math.isfinite(span) and span > 1e-300):
        return [low, high]
    power = _power(math.floor(math.log10(span)))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= span * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [k * step for k in range(first, last + 1)]


def _power(exponent: int) -> float:
    return float(f"1e{exponent}")  # exact, where 10.0**-5 is not


def step_ticks(first: int, last: int, wanted: int = 4) -> list[int]:
    """Round steps between two steps, both included, ascending."""
    span = max(last - first, 1) / wanted
    power = 10 ** max(math.floor(math.log10(span)), 0)
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= span * 0.999)
    return list(range(-(-first // step) * step, last + 1, step))


def short_step(step: int) -> str:
    """A step in few characters.

    Example:
        >>> short_step(250), short_step(20_000), short_step(1_500_000)
        ('250', '20k', '1.5M')
    """
    for size, unit in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if step >= size and (size > 1000 or step >= 10_000):
            return f"{step / size:.4g}{unit}"
    return f"{step:,}"


def number(value: float, digits: int = 4) -> str:
    """A figure to be read.

    Example:
        >>> number(0.5), number(-1.25e-9), number(123456.0), number(float("nan"))
        ('0.5', '−1.25e-9', '123,456', 'nan')
    """
    if not math.isfinite(value):
        return "nan" if math.isnan(value) else "∞" if value > 0 else "−∞"
    if 1e4 <= abs(value) < 1e7:
        text = f"{value:,.0f}"
    else:
        text = f"{value:.{digits}g}"
        if "e" in text:
            mantissa, _, exponent = text.partition("e")
            text = f"{mantissa}e{int(exponent)}"
    return text.replace("-", "−", 1) if text.startswith("-") else text
