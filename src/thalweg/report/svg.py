"""SVG paths of columns, in a box of `WIDTH` × `HEIGHT` that the page stretches to any size.

Coordinates are whole numbers and each relative to the last: half the bytes of absolute ones, and no
rounding adds up. Strokes keep their width when stretched (``vector-effect`` in the style sheet).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from thalweg.report.decimate import Columns
from thalweg.report.scale import Scale

__all__ = ["HEIGHT", "WIDTH", "band", "dots", "line", "nonfinite", "vertical"]

WIDTH, HEIGHT = 2000, 1000
Span = tuple[int, int]


def line(columns: Columns, scale: Scale, span: Span, width: int = WIDTH) -> str:
    """The path through the middle of the columns, broken where nothing is finite."""
    x, y = _x(columns, span, width), _y(columns.middle, scale)
    return "".join(_polyline(x[a:b], y[a:b]) for a, b in _stretches(columns))


def band(columns: Columns, scale: Scale, span: Span, width: int = WIDTH) -> str:
    """The outline of the columns, from the least to the greatest of each."""
    x = _x(columns, span, width)
    low, high = _y(columns.low, scale), _y(columns.high, scale)
    outline = []
    for a, b in _stretches(columns):
        there, back = slice(a, b), slice(b - 1, a - 1 if a else None, -1)
        xs = np.concatenate([x[there], x[back]])
        outline.append(_polyline(xs, np.concatenate([high[there], low[back]])) + "z")
    return "".join(outline)


def dots(columns: Columns, scale: Scale, span: Span) -> str:
    """A point at the middle of each column: strokes of no length, with round ends."""
    x, y = _x(columns, span, WIDTH), _y(columns.middle, scale)
    good = np.isfinite(columns.middle)
    return "".join(f"M{a} {b}h0" for a, b in zip(x[good].tolist(), y[good].tolist(), strict=True))


def nonfinite(columns: Columns, span: Span, width: int = WIDTH) -> str:
    """A bar along the top wherever a column holds a value that is not finite."""
    x, bad = _x(columns, span, width), columns.nonfinite > 0
    bars = (f"M{x[a]} 0h{max(int(x[b - 1] - x[a]), 1)}" for a, b in _runs(bad))
    return "".join(bars)


def vertical(steps: list[int], span: Span, height: int = HEIGHT) -> str:
    """Lines from the bottom up at some steps."""
    places = np.unique(_place(np.array(steps), span, WIDTH))
    return "".join(f"M{x} {HEIGHT}v{-height}" for x in places.tolist())


def _stretches(columns: Columns) -> Iterator[tuple[int, int]]:
    return _runs(np.isfinite(columns.middle))


def _runs(mask: np.ndarray) -> Iterator[tuple[int, int]]:
    """Begin and end of every run of True."""
    turns = np.flatnonzero(np.diff(np.concatenate([[0], mask.astype(np.int8), [0]])))
    return zip(turns[::2].tolist(), turns[1::2].tolist(), strict=True)


def _polyline(x: np.ndarray, y: np.ndarray) -> str:
    moves = zip(np.diff(x).tolist(), np.diff(y).tolist(), strict=True)
    tail = " ".join(f"{a} {b}" for a, b in moves).replace(" -", "-")
    return f"M{x[0]} {y[0]}" + (f"l{tail}" if tail else "h0")


def _x(columns: Columns, span: Span, width: int) -> np.ndarray:
    return _place(columns.steps, span, width)


def _place(steps: np.ndarray, span: Span, width: int) -> np.ndarray:
    first, last = span
    return np.rint((steps - first) / max(last - first, 1) * width).astype(np.int64)


def _y(values: np.ndarray, scale: Scale) -> np.ndarray:
    place = np.nan_to_num(scale.place(values))
    return np.rint((1.0 - place) * HEIGHT).astype(np.int64)
