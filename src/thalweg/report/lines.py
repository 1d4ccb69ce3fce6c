"""What one chart shows of a run: its lines, the parts behind them, and what was not measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from thalweg.report.decimate import Columns, Series, decimate, envelope
from thalweg.report.groups import Figure

if TYPE_CHECKING:
    from thalweg.recorder.run import Run

__all__ = ["Content", "Line", "Summary", "content_of", "summarise"]

#: Columns of a chart; a column is about a pixel wide on a large screen.
COLUMNS = 600
# Up to this many parts are lines of a chart; more are drawn as their envelope.
_MAX_LINES = 6
# An uncertainty costs a read of its own; series longer than this are cheap figures without one.
_MAX_UNCERTAIN = 20_000


@dataclass(frozen=True)
class Summary:
    """A series in figures; those of finite values are None where there is none."""

    points: int
    first: float | None = None
    last: float | None = None
    first_step: int = 0
    last_step: int = 0
    least: float | None = None
    least_step: int = 0
    most: float | None = None
    most_step: int = 0
    nonfinite: int = 0
    nonfinite_step: int = 0


@dataclass(frozen=True)
class Line:
    """One line of a chart: what it is called, how it is drawn, its figures."""

    name: str
    columns: Columns
    summary: Summary
    uncertain: bool = False
    parts: int = 0


@dataclass(frozen=True)
class Content:
    """What one chart shows.

    Attributes:
        figure: what it is about.
        lines: of the large chart.
        parts: by instrument, the series that are drawn small.
        missing: sentences on what was not measured, and why.
        notes: sentences on what is seen.
    """

    figure: Figure
    lines: list[Line] = field(default_factory=list)
    parts: dict[str, dict[str, Series]] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def summarise(steps: np.ndarray, values: np.ndarray) -> Summary:
    """The figures of a series, (T,) steps and (T,) values."""
    if not len(steps):
        return Summary(0)
    finite = np.isfinite(values)
    bad = np.flatnonzero(~finite)
    known = {
        "points": len(steps),
        "first": float(values[0]),
        "last": float(values[-1]),
        "first_step": int(steps[0]),
        "last_step": int(steps[-1]),
        "nonfinite": len(bad),
        "nonfinite_step": int(steps[bad[0]]) if len(bad) else 0,
    }
    if len(bad) == len(steps):
        return Summary(**known)
    least = int(np.where(finite, values, np.inf).argmin())
    most = int(np.where(finite, values, -np.inf).argmax())
    return Summary(
        **known,
        least=float(values[least]),
        least_step=int(steps[least]),
        most=float(values[most]),
        most_step=int(steps[most]),
    )


def content_of(
    run: Run,
    figure: Figure,
    series: Mapping[tuple[str, str], Series],
    unmeasured: Mapping[tuple[str, str, str], np.ndarray],
    end: int,
) -> Content:
    """The lines and parts of one chart.

    Args:
        run: for what the series lack, their uncertainties.
        figure: which instruments.
        series: all of the run.
        unmeasured: steps at which a series was not measured, by instrument, part and status.
        end: last step of the run.
    """
    content = Content(figure)
    for instrument in figure.instruments:
        owned = {p: s for (i, p), s in series.items() if i == instrument and len(s[0])}
        alone = figure.each or "" not in owned
        if alone and len(owned) <= _MAX_LINES:
            shown = list(owned)
        elif "" in owned:
            shown = [""]
        else:
            shown = []
            together = envelope(list(owned.values()), COLUMNS)
            name = f"{instrument}, {len(owned)} parts"
            content.lines.append(Line(name, together, _spanning(together), parts=len(owned)))
        for part in shown:
            content.lines.append(_line(run, figure, instrument, part, owned[part], end))
        if small := {part: found for part, found in owned.items() if part not in shown}:
            content.parts[instrument] = small
    if not figure.held:
        content.notes.extend(_stretch(content.lines, end))
    content.missing.extend(_missing(figure.instruments, unmeasured))
    if "grad_norm_preclip" in figure.instruments and "grad_norm" in figure.instruments:
        content.notes.extend(_clipping(series))
    return content


def _line(run: Run, figure: Figure, instrument: str, part: str, found: Series, end: int) -> Line:
    steps, values = found
    spread = _spread(run, instrument, part, steps) if len(steps) <= _MAX_UNCERTAIN else None
    name = part if part and len(figure.instruments) == 1 else f"{instrument} {part}".rstrip()
    name = name.removeprefix("user/")
    columns = decimate(steps, values, COLUMNS, spread=spread)
    if figure.held:
        held = decimate(*_held(steps, values, end), COLUMNS)
        # The points are those that were recorded, not those that were filled in.
        columns = replace(held, points=max(len(steps), len(held)) if held.decimated else len(held))
    return Line(name, columns, summarise(steps, values), uncertain=spread is not None)


def _held(steps: np.ndarray, values: np.ndarray, end: int) -> Series:
    """A series written when it changes, filled in before each change and at the end."""
    until = np.append(steps[1:] - 1, max(end, steps[-1]))
    both, twice = np.concatenate([steps, until]), np.concatenate([values, values])
    _, kept = np.unique(both, return_index=True)
    return both[kept], twice[kept]


def _spread(run: Run, instrument: str, part: str, steps: np.ndarray) -> np.ndarray | None:
    """The uncertainty of each point of a series; None if it has none."""
    table = run.table(instrument, part, rank=0)
    known = dict(zip(table["step"].to_pylist(), table["uncertainty"].to_pylist(), strict=True))
    spread = np.array([known.get(step, np.nan) for step in steps.tolist()], float)
    return spread if np.isfinite(spread).any() else None


def _spanning(columns: Columns) -> Summary:
    """The figures of an envelope: first and last mean, least and greatest of all."""
    mean = summarise(columns.steps, columns.middle)
    low, high = (summarise(columns.steps, axis) for axis in (columns.low, columns.high))
    bad = np.flatnonzero(columns.nonfinite)
    return Summary(
        *(columns.points, mean.first, mean.last, mean.first_step, mean.last_step),
        *(low.least, low.least_step, high.most, high.most_step),
        int(columns.nonfinite.sum()),
        int(columns.steps[bad[0]]) if len(bad) else 0,
    )


def _stretch(lines: Sequence[Line], end: int) -> list[str]:
    """A sentence where measuring stopped well before the run did."""
    last = max((line.summary.last_step for line in lines), default=end)
    if not last < 0.8 * end:
        return []
    return [f"Last measured at step {last:,} of {end:,}; the time budget decides how often."]


def _missing(
    instruments: Sequence[str], unmeasured: Mapping[tuple[str, str, str], np.ndarray]
) -> list[str]:
    """A sentence for each instrument and reason, parts taken together."""
    found: dict[tuple[str, str], list[np.ndarray]] = {}
    for (instrument, _, status), steps in unmeasured.items():
        if instrument in instruments:
            found.setdefault((instrument, status), []).append(steps)
    said = []
    for (instrument, status), pieces in found.items():
        steps = np.unique(np.concatenate(pieces))
        kind, _, why = status.partition(":")
        when = f"at step {steps[0]:,}"
        if len(steps) > 1:
            when = f"at {len(steps):,} steps from {steps[0]:,} to {steps[-1]:,}"
        elif kind == "unsupported":
            when = f"from step {steps[0]:,}"
        parts = f" ({len(pieces)} parts)" if len(pieces) > 1 else ""
        said.append(f"{instrument}{parts} {when}: {why or kind}")
    return said


def _clipping(series: Mapping[tuple[str, str], Series]) -> list[str]:
    before, after = (series.get((name, "")) for name in ("grad_norm_preclip", "grad_norm"))
    if before is None or after is None:
        return []
    _, a, b = np.intersect1d(before[0], after[0], return_indices=True)
    clipped = int((before[1][a] > after[1][b] * 1.0001).sum())
    if not len(a):
        return []
    if not clipped:
        return ["The two coincide: nothing was clipped."]
    return [f"Clipping acted at {clipped:,} of {len(a):,} measured steps."]
