"""One chart as HTML: heading, how to read it, legend, axes, ink, what it leaves out, figures.

The ink is an SVG that stretches; all text is HTML beside it, so that labels keep their size on any
screen. Everything is there without JavaScript; the data beside it lets the page's script redraw.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np

from thalweg.report import svg
from thalweg.report.lines import COLUMNS, Content, Line, Summary, summarise
from thalweg.report.scale import Scale, number, scale_of, short_step, step_ticks
from thalweg.report.sparks import Budget, breakable, sparks

__all__ = ["Mark", "chart", "chart_id"]

# With at most so many points each of them is a dot as well.
_DOTS = 60
# Height of the tick of an event; there may be thousands.
_TICK = 45


@dataclass(frozen=True)
class Mark:
    """Something that happened at a step: ``kind`` is resumed, event or evidence."""

    step: int
    kind: str
    text: str


def chart_id(instrument: str) -> str:
    """The anchor of the chart of an instrument, free of characters that need escaping.

    Example:
        >>> chart_id("user/val acc")
        'chart-user_2fval_20acc'
    """
    kept = (c if c.isascii() and c.isalnum() else f"_{ord(c):x}" for c in instrument)
    return "chart-" + "".join(kept)


def chart(
    content: Content, span: tuple[int, int], marks: list[Mark], budget: Budget
) -> tuple[str, dict[str, Any] | None]:
    """The HTML of a chart, and what the page's script needs to redraw it.

    Args:
        content: what it shows.
        span: first and last step of the page's charts.
        marks: what happened on the way.
        budget: how finely parts are drawn.
    """
    figure, key = content.figure, chart_id(content.figure.instruments[0])
    anchors = "".join(f'<a id="{chart_id(name)}"></a>' for name in figure.instruments[1:])
    pieces = [
        f'<figure class="chart" id="{key}">{anchors}',
        f"<figcaption><h3>{escape(figure.title)}</h3>",
        f'<p class="how">{escape(figure.how)}</p></figcaption>',
    ]
    data = None
    if content.lines:
        lows = np.concatenate([line.columns.low for line in content.lines])
        highs = np.concatenate([line.columns.high for line in content.lines])
        scale = scale_of(lows, highs, fixed=figure.fixed)
        pieces += [_legend(content.lines), _plot(content, scale, span, marks)]
        data = _data(key, content, scale, _distinct(marks, span))
    notes = [*content.notes, *_decimation(content.lines)]
    if content.lines:
        notes += _marked(marks)
    if notes:
        pieces.append(f'<p class="note">{" ".join(map(escape, notes))}</p>')
    for sentence in content.missing:
        pieces.append(f'<p class="missing"><b>Not measured:</b> {escape(sentence)}</p>')
    for instrument, parts in content.parts.items():
        alone = not any(line.parts == 0 for line in content.lines)
        pieces.append(sparks(instrument, parts, span, budget, fixed=figure.fixed, open_=alone))
    pieces += [_figures(content, budget), "</figure>"]
    return "".join(pieces), data


def _legend(lines: list[Line]) -> str:
    items = []
    for i, line in enumerate(lines):
        s = line.summary
        ends = ""
        if s.first is not None and s.last is not None:
            ends = f'<span class="ends">{number(s.first)} → {number(s.last)}</span>'
        bad = f'<span class="bad">{s.nonfinite:,} not finite</span>' if s.nonfinite else ""
        items.append(
            f'<li class="s{i}"><svg viewBox="0 0 24 8" aria-hidden="true"><path d="M1 4H23"/></svg>'
            f'<span class="name">{breakable(line.name)}</span>{ends}{bad}</li>'
        )
    return f'<ul class="legend">{"".join(items)}</ul>'


def _plot(content: Content, scale: Scale | None, span: tuple[int, int], marks: list[Mark]) -> str:
    ink, y_labels = [], ""
    if scale:
        ticks = scale.ticks()
        place = scale.place(np.array(ticks))
        rules = "".join(f"M0 {round((1 - p) * svg.HEIGHT)}h{svg.WIDTH}" for p in place)
        ink.append(f'<path class="grid" d="{rules}"/>')
        y_labels = "".join(
            f'<span style="top:{(1 - p) * 100:.4g}%">{number(t, 6)}</span>'
            for t, p in zip(ticks, place, strict=True)
        )
    for kind in ("resumed", "event", "evidence"):
        if steps := [mark.step for mark in marks if mark.kind == kind]:
            tall = _TICK if kind == "event" else svg.HEIGHT
            ink.append(f'<path class="mark {kind}" d="{svg.vertical(steps, span, tall)}"/>')
    for i, line in enumerate(content.lines):
        columns = line.columns
        ink.append(f'<g class="s{i}">')
        if scale:
            if columns.banded:
                ink.append(f'<path class="band" d="{svg.band(columns, scale, span)}"/>')
            ink.append(f'<path class="line" d="{svg.line(columns, scale, span)}"/>')
            if len(columns) <= _DOTS:
                ink.append(f'<path class="dots" d="{svg.dots(columns, scale, span)}"/>')
        ink.append("</g>")
    for line in content.lines:
        if line.summary.nonfinite:
            ink.append(f'<path class="nonfinite" d="{svg.nonfinite(line.columns, span)}"/>')
    x_labels = "".join(
        f'<span style="left:{(step - span[0]) / max(span[1] - span[0], 1) * 100:.4g}%">'
        f"{short_step(step)}</span>"
        for step in step_ticks(*span)
    )
    said = f"{content.figure.title}. " + " ".join(_spoken(line) for line in content.lines)
    nothing = "" if scale else '<p class="nothing">no finite value</p>'
    return (
        f'<div class="plot" role="img" aria-label="{escape(said)}">'
        f'<div class="y" aria-hidden="true">{y_labels}</div><div class="ink">'
        f'<svg viewBox="0 0 {svg.WIDTH} {svg.HEIGHT}" preserveAspectRatio="none" '
        f'aria-hidden="true">{"".join(ink)}</svg>{nothing}</div>'
        f'<div class="x" aria-hidden="true">{x_labels}</div></div>'
    )


def _spoken(line: Line) -> str:
    """A line in words, for those who do not see it."""
    s = line.summary
    if s.least is None or s.most is None or s.first is None or s.last is None:
        return f"{line.name}: {s.points:,} points, none of them finite."
    text = (
        f"{line.name}: from {number(s.first)} at step {s.first_step:,} to {number(s.last)} at step "
        f"{s.last_step:,}; least {number(s.least)} at step {s.least_step:,}, greatest "
        f"{number(s.most)} at step {s.most_step:,}."
    )
    if s.nonfinite:
        text += f" {s.nonfinite:,} values are not finite, the first at step {s.nonfinite_step:,}."
    return text


def _decimation(lines: list[Line]) -> list[str]:
    said, names = [], len(lines) > 1
    for line in lines:
        columns, who = line.columns, f"{line.name}: " if names else ""
        if line.parts:
            said.append("Line: mean of the parts; band: from the least of them to the greatest.")
        elif columns.decimated:
            said.append(
                f"{who}{columns.points:,} points shown as {len(columns):,} min–max columns."
            )
        elif line.uncertain:
            said.append(f"{who}The band is the uncertainty.")
        if s := line.summary.nonfinite:
            when = f"first at step {line.summary.nonfinite_step:,}"
            said.append(f"{who}{s:,} of {columns.points:,} values not finite, {when} (red bar).")
    return said


def _marked(marks: list[Mark]) -> list[str]:
    """What the marks stand for; where training was resumed stands in the page's head."""
    said = []
    kinds = Counter(mark.text for mark in marks if mark.kind == "event")
    firsts = {mark.text: mark.step for mark in reversed(marks) if mark.kind == "event"}
    if kinds:
        listed = [
            f"{count:,} × {kind} from step {firsts[kind]:,}"
            if count > 1
            else f"{kind} at step {firsts[kind]:,}"
            for kind, count in kinds.most_common(4)
        ]
        more = f" and {len(kinds) - 4} more kinds" if len(kinds) > 4 else ""
        said.append(f"Ticks at the bottom: {', '.join(listed)}{more}.")
    if any(mark.kind == "evidence" for mark in marks):
        said.append("Dotted: where the diagnosis points.")
    return said


def _figures(content: Content, budget: Budget) -> str:
    """The exact figures, as a table that opens."""
    rows = [_row(line.name, line.summary) for line in content.lines]
    for instrument, parts in content.parts.items():
        for part, found in budget.chosen(parts).items():
            rows.append(_row(f"{instrument} {part}", summarise(*found)))
    if not rows:
        return ""
    heads = ("series", "points", "first", "last", "least", "greatest", "not finite")
    head = "".join(f'<th scope="col">{name}</th>' for name in heads)
    return (
        '<details class="figures"><summary>Exact figures</summary>'
        '<div class="wide" tabindex="0" role="region" aria-label="Exact figures"><table>'
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div></details>"
    )


def _row(name: str, s: Summary) -> str:
    def at(value: float | None, step: int) -> str:
        return "–" if value is None else f"{number(value, 6)} <small>@ {step:,}</small>"

    cells = [
        f"{s.points:,}",
        *(at(s.first, s.first_step), at(s.last, s.last_step)),
        *(at(s.least, s.least_step), at(s.most, s.most_step)),
        at(float(s.nonfinite), s.nonfinite_step) if s.nonfinite else "0",
    ]
    body = "".join(f"<td>{cell}</td>" for cell in cells)
    return f'<tr><th scope="row">{breakable(name)}</th>{body}</tr>'


def _data(
    key: str, content: Content, scale: Scale | None, marks: list[Mark]
) -> dict[str, Any] | None:
    if scale is None:
        return None
    lines = []
    for line in content.lines:
        c = line.columns
        entry: dict[str, Any] = {"name": line.name, "x": c.steps.tolist(), "mid": _short(c.middle)}
        if c.banded:
            entry |= {"lo": _short(c.low), "hi": _short(c.high)}
        if c.nonfinite.any():
            entry["bad"] = c.nonfinite.tolist()
        lines.append(entry)
    return {
        "id": key,
        "log": scale.log,
        "possible": scale.possible,
        "fixed": list(content.figure.fixed) if content.figure.fixed else None,
        "marks": [[mark.step, mark.kind] for mark in marks],
        "lines": lines,
    }


def _distinct(marks: list[Mark], span: tuple[int, int]) -> list[Mark]:
    """Marks of which no two of a kind fall on the same pixel; thousands of events stay small."""
    width = max(span[1] - span[0], 1)
    return list({(m.kind, (m.step - span[0]) * COLUMNS // width): m for m in marks}.values())


def _short(values: np.ndarray) -> list[float | None]:
    return [float(f"{v:.5g}") if math.isfinite(v) else None for v in values.tolist()]
