"""The parts of an instrument, each as a small chart in a list: hundreds stay readable and small."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from html import escape

import numpy as np

from thalweg.report import svg
from thalweg.report.decimate import Columns, Series, decimate
from thalweg.report.scale import Scale, number, scale_of

__all__ = ["Budget", "breakable", "sparks"]

# Columns of all small charts of a page together; a column is about ten bytes.
_COLUMNS = 24_000
# Parts of one instrument that are listed; of more, those that vary most.
_LISTED = 240
# A list up to this long is open from the start, where nothing else shows its instrument.
_OPEN = 12
# Coordinates of small charts are coarser, for fewer bytes.
_WIDTH = 400
# A small chart spans at least this share of its values' size to either side.
_LEAST_REACH = 0.1


@dataclass(frozen=True)
class Budget:
    """How finely the small charts of a page are drawn, so that the page stays small.

    Attributes:
        columns: of each.
        listed: parts of one instrument that are shown.
    """

    columns: int
    listed: int = _LISTED

    @staticmethod
    def of(parts: list[int]) -> Budget:
        """The budget of a page, from the number of parts that each instrument has.

        Example:
            >>> Budget.of([200]).columns, Budget.of([1000, 1000]).columns
            (120, 50)
        """
        shown = sum(min(count, _LISTED) for count in parts)
        return Budget(min(max(_COLUMNS // max(shown, 1), 16), 120))

    def chosen(self, parts: Mapping[str, Series]) -> Mapping[str, Series]:
        """The parts that are shown, in the order in which they were recorded."""
        if len(parts) <= self.listed:
            return parts
        ranked = sorted(parts, key=lambda part: -_variation(parts[part][1]))[: self.listed]
        return {part: parts[part] for part in parts if part in set(ranked)}


def sparks(
    instrument: str,
    parts: Mapping[str, Series],
    span: tuple[int, int],
    budget: Budget,
    *,
    fixed: tuple[float, float] | None = None,
    open_: bool = False,
) -> str:
    """A list of small charts as HTML.

    Args:
        instrument: whose parts.
        parts: their series.
        span: first and last step of the page's charts.
        budget: how finely to draw.
        fixed: the scale of all, if it is always the same; else each has its own.
        open_: unfold the list if it is short.
    """
    chosen = budget.chosen(parts)
    items = [_item(part, found, span, budget.columns, fixed) for part, found in chosen.items()]
    scale = (
        f"from {fixed[0]:g} to {fixed[1]:g}"
        if fixed
        else "on its own scale, never finer than a fifth of its size"
    )
    more = len(parts) - len(chosen)
    said = f"Each {scale}; the figures are its first and last value."
    if more:
        said += f" The {len(chosen)} that vary most; {more:,} more are in the run."
    unfolded = " open" if open_ and len(chosen) <= _OPEN else ""
    return (
        f'<details class="parts"{unfolded}><summary>{escape(instrument)} by part '
        f'<span class="count">{len(parts):,}</span></summary><p class="note">{said}</p>'
        f'<ul class="sparks">{"".join(items)}</ul></details>'
    )


def breakable(name: str) -> str:
    """A name, escaped, that may break after its dots and underscores."""
    broken = escape(name).replace(".", ".<wbr>").replace("_", "_<wbr>")
    return broken.replace("/", "/<wbr>")


def _item(
    part: str, found: Series, span: tuple[int, int], count: int, fixed: tuple[float, float] | None
) -> str:
    columns = decimate(*found, count)
    ends = "–"
    drawn = ""
    if scale := _scale(columns, fixed):
        outline = svg.band if columns.decimated else svg.line
        kind = "band" if columns.decimated else "line"
        drawn = f'<path class="{kind}" d="{outline(columns, scale, span, _WIDTH)}"/>'
        values = found[1][np.isfinite(found[1])]
        ends = f"{number(values[0], 3)} → {number(values[-1], 3)}"
    bad = int(columns.nonfinite.sum())
    flag = ""
    if bad:
        drawn += f'<path class="nonfinite" d="{svg.nonfinite(columns, span, _WIDTH)}"/>'
        flag = f'<span class="bad">{bad:,} not finite</span>'
    return (
        f'<li><span class="name">{breakable(part) or "whole"}</span>'
        f'<svg viewBox="0 0 {_WIDTH} {svg.HEIGHT}" preserveAspectRatio="none" aria-hidden="true">'
        f'{drawn}</svg><span class="ends">{ends}{flag}</span></li>'
    )


def _scale(columns: Columns, fixed: tuple[float, float] | None) -> Scale | None:
    """Its own, but never so close up that the noise of a constant looks like an event."""
    scale = scale_of(columns.low, columns.high, fixed=fixed)
    if scale is None or scale.log or fixed:
        return scale
    middle, reach = scale.low / 2 + scale.high / 2, scale.high / 2 - scale.low / 2
    least = max(abs(scale.low), abs(scale.high)) * _LEAST_REACH
    return scale if reach > least else Scale(middle - least, middle + least)


def _variation(values: np.ndarray) -> float:
    """How much a series varies relative to its size; infinite where a value is not finite."""
    if not np.isfinite(values).all():
        return float("inf")
    largest = float(np.abs(values).max())
    return float(values.max() / largest - values.min() / largest) if largest else 0.0
