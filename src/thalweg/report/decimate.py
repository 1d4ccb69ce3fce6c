"""Few columns for many points: what is drawn of a series, with nothing that stands out left out.

Each column stands for a stretch of steps and keeps the least, the mean and the greatest of its
finite values and the count of the others, so that a spike of one step in a million is still drawn
at its full height. Axes: `T` points of a series, `B` columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np

__all__ = ["Columns", "decimate", "envelope"]

Series = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Columns:
    """A series as it is drawn.

    Attributes:
        steps: (B,) int64, ascending; the first step that was measured in each column.
        low: (B,) least finite value, nan where there is none.
        middle: (B,) mean of the finite values, nan where there is none.
        high: (B,) greatest finite value, nan where there is none.
        nonfinite: (B,) int64, how many values are nan or infinite.
        points: how many points the columns stand for.
        banded: whether a column has a height: it stands for several points, or for a value with
            an uncertainty.
        last: the last step of all; 0 where there is none.
    """

    steps: np.ndarray
    low: np.ndarray
    middle: np.ndarray
    high: np.ndarray
    nonfinite: np.ndarray
    points: int
    banded: bool
    last: int

    def __len__(self) -> int:
        return len(self.steps)

    @property
    def decimated(self) -> bool:
        """Whether a column stands for more than one point."""
        return self.points > len(self)


def decimate(
    steps: np.ndarray, values: np.ndarray, columns: int, *, spread: np.ndarray | None = None
) -> Columns:
    """A series in at most so many columns; a column per point where they suffice.

    Args:
        steps: (T,) int64, ascending.
        values: (T,) any floats.
        columns: at most this many.
        spread: (T,) uncertainty of each value, by which its column is widened; nan for none.

    Example:
        >>> shown = decimate(np.arange(1000), np.where(np.arange(1000) == 377, 9.0, 1.0), 10)
        >>> len(shown), shown.points, shown.high.max()
        (10, 1000, np.float64(9.0))
    """
    edges = _edges(_distinct(steps), columns)
    low, middle, high, nonfinite, first, held = _columns(steps, values, edges, spread)
    banded = len(steps) > int(held.sum()) or (spread is not None and bool(np.any(spread > 0)))
    last = int(steps[-1]) if len(steps) else 0
    drawn = (first[held], low[held], middle[held], high[held], nonfinite[held])
    return Columns(*drawn, len(steps), banded, last)


def envelope(series: Sequence[Series], columns: int) -> Columns:
    """Several series as one: least, mean and greatest of all of them at each time.

    Args:
        series: steps (T,) and values (T,) of each; T may differ.
        columns: at most this many.
    """
    edges = _edges(reduce(_union, (steps for steps, _ in series)), columns)
    drawn = [_columns(steps, values, edges) for steps, values in series]
    low, middle, high, nonfinite, first, held = (
        np.stack(axis) for axis in zip(*drawn, strict=True)
    )
    some, any_held = np.isfinite(middle), held.any(0)
    counts = np.maximum(some.sum(0), 1)
    # Of no series a finite value: nan, as in one series.
    mean = np.where(some.any(0), (np.where(some, middle, 0.0) / counts).sum(0), np.nan)
    never = np.iinfo(np.int64).max
    return Columns(
        np.where(held, first, never).min(0)[any_held],
        np.fmin.reduce(low)[any_held],
        mean[any_held],
        np.fmax.reduce(high)[any_held],
        nonfinite.sum(0)[any_held],
        sum(len(steps) for steps, _ in series),
        True,
        max((int(steps[-1]) for steps, _ in series if len(steps)), default=0),
    )


def _distinct(steps: np.ndarray) -> np.ndarray:
    """Each once; they ascend, so that neighbours tell."""
    return steps[np.append(True, steps[1:] != steps[:-1])] if len(steps) else steps


def _union(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return a if np.array_equal(a, b) else np.union1d(a, b)


def _edges(steps: np.ndarray, columns: int) -> np.ndarray:
    """Where columns begin, (B + 1,), the last one past the end; steps ascend, each once."""
    if len(steps) <= columns:
        return np.append(steps, steps[-1:] + 1)
    return np.linspace(float(steps[0]), float(steps[-1]) + 1.0, columns + 1)


def _columns(
    steps: np.ndarray, values: np.ndarray, edges: np.ndarray, spread: np.ndarray | None = None
) -> tuple[np.ndarray, ...]:
    """Low, middle, high, count of non-finite, first step, and whether any, of every column."""
    if not len(steps):
        size = max(len(edges) - 1, 0)
        none, zero = np.full(size, np.nan), np.zeros(size, np.int64)
        return none, none, none, zero, zero, zero.astype(bool)
    starts = np.searchsorted(steps, edges)
    counts = np.diff(starts)
    held = counts > 0
    begins = starts[:-1][held]
    finite = np.isfinite(values)
    wide = 0.0 if spread is None else np.where(np.isfinite(spread), spread, 0.0)
    with np.errstate(over="ignore", invalid="ignore"):
        least = np.minimum.reduceat(np.where(finite, values - wide, np.inf), begins)
        most = np.maximum.reduceat(np.where(finite, values + wide, -np.inf), begins)
    good = np.add.reduceat(finite.astype(np.int64), begins)
    # Divided before they are added, lest the sum of great values overflow.
    shares = np.where(finite, values, 0.0) / np.repeat(np.maximum(good, 1), counts[held])
    mean = np.clip(np.add.reduceat(shares, begins), least, np.maximum(least, most))

    def dense(found: np.ndarray, empty: float) -> np.ndarray:
        whole = np.full(len(held), empty, found.dtype)
        whole[held] = found
        return whole

    drawn = (np.where(good > 0, column, np.nan) for column in (least, mean, most))
    return (
        *(dense(column, np.nan) for column in drawn),
        dense(counts[held] - good, 0),
        dense(steps[begins], 0),
        held,
    )
