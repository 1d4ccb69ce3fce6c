"""The report: one run as one HTML file that needs nothing else, no network, no other file.

Everything that comes from the run is escaped, and a content security policy forbids the page to
load anything or to run any script but its own.
"""

from __future__ import annotations

import base64
import datetime
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from functools import cache
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from thalweg.errors import ThalwegError
from thalweg.report.chart import Mark, chart, chart_id
from thalweg.report.decimate import Series
from thalweg.report.diagnoses import DiagnosisLike, diagnoses_section, evidence_steps
from thalweg.report.going import QUESTION, SLUG, going_section
from thalweg.report.groups import Group, arrange
from thalweg.report.lines import Content, content_of
from thalweg.report.provenance import notable, provenance_section
from thalweg.report.scale import number
from thalweg.report.sparks import Budget

if TYPE_CHECKING:
    from thalweg.recorder.run import Run

__all__ = ["render", "write"]

_GENERATOR = '<meta name="generator" content="thalweg report">'
_ENDS = {
    "closed": "finished",
    "running": "unfinished: still running, or ended without a word",
    "failed": "failed",
    "interrupted": "interrupted",
}


def render(run: Run, diagnoses: Sequence[DiagnosisLike] | None = None) -> str:
    """The report of a run as HTML.

    Args:
        run: which one; it may still be recording.
        diagnoses: what the doctor found; empty if it found nothing, None if it did not look.

    Returns:
        A whole page: styles, script and data are inside.

    Raises:
        ThalwegError: if the run cannot be read.
    """
    header, events = run.header, run.events
    series, unmeasured = run.all_series(), run.unmeasured()
    span = _span(series)
    names = dict.fromkeys([i for i, _ in series] + [i for i, _, _ in unmeasured])
    arranged = [
        (group, [content_of(run, figure, series, unmeasured, span[1]) for figure in figures])
        for group, figures in arrange(names)
    ]
    contents = [content for _, found in arranged for content in found]
    budget = Budget.of([len(parts) for c in contents for parts in c.parts.values()])
    sections, data = [], []
    for group, found in arranged:
        charts = []
        for content in found:
            marks = _marks(header, events, diagnoses or (), content, span)
            drawn, facts = chart(content, span, marks, budget)
            charts.append(drawn)
            data += [facts] if facts else []
        sections.append(_section(group, charts, events))
    anchors = {chart_id(name) for content in contents for name in content.figure.instruments}
    title, going = run.path.resolve().name, going_section(run)
    body = [
        _head(title, header, series, contents, run.wall_s),
        _contents(arranged, bool(going)),
        "<main>",
        diagnoses_section(diagnoses, anchors, bool(series)),
        *sections,
        going,
        provenance_section(header, events, run.notes),
        "</main>",
    ]
    return _page(title, "".join(body), {"span": span, "charts": data})


def write(
    run: Run,
    out: str | os.PathLike[str] | None = None,
    diagnoses: Sequence[DiagnosisLike] | None = None,
) -> Path:
    """Write the report of a run; a reader sees the old page or the new one, never half of one.

    Args:
        run: which one.
        out: the file; default ``report.html`` in the run.
        diagnoses: as for `render`.

    Returns:
        The path that was written.

    Raises:
        ThalwegError: if a file lies there that is not a report, or it cannot be written.
    """
    path = run.path / "report.html" if out is None else Path(out)
    _check_target(path)
    page = render(run, diagnoses).encode("utf-8", "replace")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(page)
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise ThalwegError(
            f"{path}: the report cannot be written: {error.strerror}. Choose another place: -o PATH"
        ) from None
    return path


def _check_target(path: Path) -> None:
    """Raise where writing would destroy what we did not write, or cannot work."""
    if path.is_dir():
        raise ThalwegError(f"{path}: expected a file to write, got a directory. Name one: -o PATH")
    if not path.parent.is_dir():
        raise ThalwegError(f"{path}: there is no directory {path.parent}. Create it first")
    try:
        with path.open("rb") as file:
            ours = _GENERATOR.encode() in file.read(1000)
    except FileNotFoundError:
        return
    except OSError as error:
        raise ThalwegError(f"{path}: cannot be opened: {error.strerror}") from None
    if not ours:
        raise ThalwegError(
            f"{path} exists and is not a report of Thalweg; it is left alone. "
            "Remove it or choose another place: -o PATH"
        )


def _span(series: Mapping[tuple[str, str], Series]) -> tuple[int, int]:
    ends = [(int(steps[0]), int(steps[-1])) for steps, _ in series.values() if len(steps)]
    if not ends:
        return 0, 1
    first, last = min(a for a, _ in ends), max(b for _, b in ends)
    # The first step stands at 0 or 1 in a run from its beginning; axes then begin at 0.
    first = 0 if 0 < first <= 0.02 * last else first
    return first, max(last, first + 1)


def _resumed(header: Mapping[str, Any]) -> list[int]:
    """The steps from which training went on in a new segment."""
    later = [s for s in (header.get("segments") or [])[1:] if isinstance(s, dict)]
    return [s["first_step"] for s in later if isinstance(s.get("first_step"), int)]


def _marks(
    header: Mapping[str, Any],
    events: Sequence[Mapping[str, Any]],
    diagnoses: Sequence[DiagnosisLike],
    content: Content,
    span: tuple[int, int],
) -> list[Mark]:
    """What to mark in one chart: segments in all, events in that of the loss and the gradient."""
    found = [Mark(step, "resumed", "resumed") for step in _resumed(header)]
    if {"loss", "grad_norm"} & set(content.figure.instruments):
        happened = [event for event in notable(events) if isinstance(event.get("step"), int)]
        found += [Mark(e["step"], "event", str(e.get("event"))) for e in happened]
    for step in evidence_steps(diagnoses, content.figure.instruments):
        found.append(Mark(step, "evidence", "evidence"))
    return [mark for mark in found if span[0] <= mark.step <= span[1]]


def _section(group: Group, charts: list[str], events: Sequence[Mapping[str, Any]]) -> str:
    said = ""
    if group.slug == "stability":
        steps = [e.get("step") for e in events if e.get("event") == "skipped step"]
        if steps:
            said = (
                f'<p class="missing"><b>Skipped steps:</b> {len(steps):,}, the first at step '
                f"{escape(str(steps[0]))}, the last at step {escape(str(steps[-1]))}: the "
                "gradients were not finite and the gradient scaler took no step.</p>"
            )
    return (
        f'<section id="{group.slug}"><h2>{escape(group.question)}</h2>'
        f'<p class="lead">{escape(group.lead)}</p>{said}'
        f'<div class="charts">{"".join(charts)}</div></section>'
    )


def _head(
    title: str,
    header: Mapping[str, Any],
    series: Mapping[tuple[str, str], Series],
    contents: Sequence[Content],
    wall_s: float,
) -> str:
    status = str(header.get("status") or "unknown")
    steps = [int(s[-1]) for s, _ in series.values() if len(s)]
    facts = {"status": escape(_ENDS.get(status, status))}
    if steps:
        facts["last step"] = f"{max(steps):,}"
        facts["time"] = str(datetime.timedelta(seconds=round(wall_s)))
    for name, label in (("loss", "loss"), ("val_loss", "held-out loss")):
        _, values = series.get((name, ""), (None, np.zeros(0)))
        if len(values):
            facts[label] = f"{number(values[0], 3)} → {number(values[-1], 3)}"
    ranks = header.get("world_size")
    if isinstance(ranks, int) and ranks > 1:
        facts["ranks"] = f"rank 0 of {ranks:,} is shown"
    if resumed := _resumed(header):
        listed = ", ".join(f"{step:,}" for step in resumed[:3]) + (" …" if resumed[3:] else "")
        facts["resumed (dashed)"] = f"at step {listed}"
    shown = len(series)
    if shown:
        facts["series"] = f"{shown:,} in {len(contents):,} charts"
    cells = "".join(f"<div><dt>{label}</dt><dd>{fact}</dd></div>" for label, fact in facts.items())
    script = (
        f'<p class="script">{escape(str(header["script"]))}</p>' if header.get("script") else ""
    )
    return (
        f'<header class="status-{escape(status)}"><p class="kind">Report of a training run</p>'
        f'<h1>{escape(title)}</h1>{script}<dl class="facts">{cells}</dl></header>'
    )


def _contents(arranged: Sequence[tuple[Group, Sequence[Content]]], going: bool) -> str:
    links = [("diagnoses", "Diagnosis"), *((g.slug, g.question) for g, _ in arranged)]
    links += [(SLUG, QUESTION)] if going else []
    links.append(("provenance", "Where from?"))
    items = "".join(f'<a href="#{slug}">{escape(text)}</a>' for slug, text in links)
    return f'<nav aria-label="Contents">{items}</nav>'


@cache
def _asset(name: str) -> str:
    return (files("thalweg.report") / name).read_text("utf-8")


def _page(title: str, body: str, data: Mapping[str, Any]) -> str:
    script = _asset("page.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    # In a script element only "</" and "<!--" could end or change it; "<" covers both.
    text = json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'{_GENERATOR}<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)} · Thalweg</title><style>{_asset('page.css')}</style></head>\n"
        f"<body>{body}\n<footer><p>Written by <code>thalweg report</code>. This page is one file; "
        'it loads nothing.</p><p class="keys" hidden>In a chart: <kbd>←</kbd> <kbd>→</kbd> read '
        "values, <kbd>+</kbd> <kbd>−</kbd> zoom, <kbd>Esc</kbd> shows all; drag to zoom with a "
        "pointer.</p></footer>\n"
        f'<script type="application/json" id="data">{text}</script>\n'
        f"<script>{script}</script></body></html>\n"
    )
