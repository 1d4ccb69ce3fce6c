"""Pages of the runs: the list, one run with its charts, a comparison, the doctor's diagnosis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup
from starlette.datastructures import QueryParams

from thalweg.almanac.run_findings import finding_in
from thalweg.errors import ThalwegError, unknown_name
from thalweg.report.decimate import Columns
from thalweg.report.diagnoses import diagnoses_section
from thalweg.report.scale import Scale, number, scale_of
from thalweg.report.svg import HEIGHT, WIDTH, band, line
from thalweg.web.answer import Page, address
from thalweg.web.concerns import papers_on
from thalweg.web.examination import finding_of, kept_of
from thalweg.web.run_data import MOST_SERIES, plain

if TYPE_CHECKING:
    from thalweg.web.site import Site

__all__ = ["compare_runs", "diagnosis", "draw", "listing", "run", "series", "series_of_runs"]

#: Lines in one chart at first, runs in the list, runs side by side.
PARTS = 12
MOST_LISTED = 500
MOST_COMPARED = 8
_FACTS = ("status", "script", "created", "last_step", "optimizers", "models", "world_size")


def listing(site: Site, query: QueryParams) -> Page:
    """The runs of the folder, newest first."""
    rows, broken = [], []
    for name in site.runs.names():
        try:
            rows.append({"name": name, **_facts(site.runs.open(name).header)})
        except ThalwegError as error:
            broken.append({"name": name, "why": str(error)})
    rows.sort(key=lambda row: str(row["created"] or ""), reverse=True)
    data = {"runs": rows[:MOST_LISTED], "unreadable": broken[:MOST_LISTED]}
    return Page("runs.html", "Runs", data, {"folder": str(site.runs.path), "total": len(rows)})


def run(site: Site, query: QueryParams, name: str) -> Page:
    """One run: what it is, and a chart of every instrument."""
    opened = site.runs.open(name)
    names = site.data.names(name)
    chosen = query.get("instrument")
    if chosen is not None and chosen not in names:
        raise unknown_name("instrument", chosen[:200], names)
    begin = _whole(query, "begin", 0) or 0
    charts = []
    for instrument, parts in names.items():
        if chosen in (None, instrument):
            shown = parts[begin : begin + PARTS]
            charts.append(_chart(name, instrument, shown, begin, len(parts)))
    header = opened.header
    said = [event for event in opened.events if event.get("message")][-20:]
    data = {
        "name": name,
        **_facts(header),
        "instruments": {k: len(v) for k, v in names.items()},
        "charts": charts,
        "events": said,
        "notes": opened.notes,
    }
    live = header.get("status") == "running"
    context = {"chosen": chosen, "begin": begin, "live_run": live}

    def first_chart() -> None:
        if charts:
            site.data.expect(name, charts[0]["instrument"], charts[0]["parts"])

    return Page("run.html", name, data, context, after=first_chart)


def series(site: Site, query: QueryParams, name: str) -> Page:
    """Some parts of an instrument of a run, over a stretch of steps."""
    instrument = query.get("instrument", "")
    parts = query.getlist("part") or site.data.names(name).get(instrument, [""])[:PARTS]
    return Page("", name, {"series": plain(_columns(site, query, name, instrument, parts))})


def compare_runs(site: Site, query: QueryParams) -> Page:
    """Some runs side by side: a chart of each instrument that they share, a line per run."""
    names = _runs(query)
    known = [site.data.names(name) for name in names]
    shared = set.intersection(*(_series_of(k) for k in known)) if known else set()
    wholes = sorted((i, p) for i, p in shared if not p) or sorted(shared)[:PARTS]
    charts = [
        {
            "instrument": instrument,
            "part": part,
            "label": f"{instrument} {part}".strip(),
            "series": address("/api/compare-runs/series.json", instrument=instrument, part=part)
            + "".join(address("", r=name).replace("?", "&", 1) for name in names),
        }
        for instrument, part in wholes
    ]
    facts = [{"name": name, **_facts(site.runs.open(name).header)} for name in names]
    data = {"runs": facts, "charts": charts}
    return Page("compare_runs.html", "Compare runs", data, {"names": site.runs.names()})


def series_of_runs(site: Site, query: QueryParams) -> Page:
    """One series of several runs."""
    instrument, part = query.get("instrument", ""), query.get("part", "")
    drawn = [
        (name, columns)
        for name in _runs(query)
        for _, columns in _columns(site, query, name, instrument, [part])
    ]
    return Page("", instrument, {"series": plain(drawn)})


def diagnosis(site: Site, query: QueryParams, name: str) -> Page:
    """What the doctor says of a run."""
    found = site.doctor.examine(name)
    findings = [finding_of(raw) for raw in found["findings"]]
    section = diagnoses_section(findings, set(), bool(site.data.names(name)))
    sources = {s.entry.slug: s.entry.title for s in site.shelf.all()}
    cited = list(dict.fromkeys(f.entry for f in findings if f.entry in sources))
    shown = [finding_in(name, kept_of(raw)) for raw in found["findings"]]
    data = {
        "name": name,
        "findings": found["findings"],
        "skipped": found["skipped"],
        "papers": [
            {"id": p.id, "title": p.title, "url": p.url, "date": p.date, "why": why}
            for p, why in papers_on(shown)
        ],
    }
    context = {"section": Markup(section), "cited": [(slug, sources[slug]) for slug in cited]}
    return Page("diagnosis.html", f"{name}: diagnosis", data, context)


def draw(site: Site, query: QueryParams, name: str) -> str:
    """A chart as a picture, for readers without scripts."""
    instrument = query.get("instrument", "")
    parts = query.getlist("part") or site.data.names(name).get(instrument, [""])[:PARTS]
    drawn = [c for _, c in _columns(site, query, name, instrument, parts) if len(c)]
    low = np.concatenate([np.zeros(0), *(c.low for c in drawn)])
    high = np.concatenate([np.zeros(0), *(c.high for c in drawn)])
    scale = scale_of(low, high) or Scale(0.0, 1.0)
    first = min((int(c.steps[0]) for c in drawn), default=0)
    last = max((c.last for c in drawn), default=1)
    paths = "".join(_paths(c, scale, (first, max(last, first + 1)), i) for i, c in enumerate(drawn))
    ticks = "".join(
        f'<text x="2" y="{(1 - float(scale.place(np.array([t]))[0])) * 240 + 4:.0f}">'
        f"{number(t)}</text>"
        for t in scale.ticks()
    )
    style = (
        "text{font:11px system-ui,sans-serif;fill:#777}path{fill:none;stroke-width:1.5;"
        "vector-effect:non-scaling-stroke}.band{fill-opacity:.2;stroke:none}"
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 -10 800 280"><style>{style}</style>'
        f'{ticks}<text x="60" y="262">{first:,}</text>'
        f'<text x="790" y="262" text-anchor="end">{last:,}</text>'
        f'<svg x="60" y="0" width="730" height="240" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'preserveAspectRatio="none">{paths}</svg></svg>\n'
    )


_TONES = ("#3d8fc9", "#d98145", "#4da36f", "#b06cb8", "#a89a3c", "#8b9198")


def _paths(c: Columns, scale: Scale, span: tuple[int, int], index: int) -> str:
    tone = _TONES[index % len(_TONES)]
    wide = f'<path class="band" fill="{tone}" d="{band(c, scale, span)}"/>' if c.banded else ""
    return wide + f'<path stroke="{tone}" d="{line(c, scale, span)}"/>'


def _columns(
    site: Site, query: QueryParams, name: str, instrument: str, parts: Sequence[str]
) -> list[tuple[str, Columns]]:
    return site.data.columns(
        name,
        instrument,
        parts,
        first=_whole(query, "from"),
        last=_whole(query, "to"),
        columns=_whole(query, "columns", 800) or 800,
    )


def _chart(name: str, instrument: str, parts: Sequence[str], begin: int, total: int) -> Any:
    asked = "".join(address("", part=part).replace("?", "&", 1) or "&part=" for part in parts)
    return {
        "instrument": instrument,
        "parts": list(parts),
        "begin": begin,
        "total": total,
        "series": address(f"/api/runs/{name}/series.json", instrument=instrument) + asked,
        "picture": address(f"/runs/{name}/chart.svg", instrument=instrument) + asked,
    }


def _facts(header: Mapping[str, Any]) -> dict[str, Any]:
    facts = {key: header.get(key) for key in _FACTS}
    segments = [s for s in header.get("segments") or [] if isinstance(s, dict)]
    ends = [s["last_step"] for s in segments if isinstance(s.get("last_step"), int)]
    return facts | {"last_step": max(ends, default=None), "segments": len(segments)}


def _series_of(names: Mapping[str, Sequence[str]]) -> set[tuple[str, str]]:
    return {(instrument, part) for instrument, parts in names.items() for part in parts}


def _runs(query: QueryParams) -> list[str]:
    names = list(dict.fromkeys(name for name in query.getlist("r") if name))
    if len(names) > min(MOST_COMPARED, MOST_SERIES):
        raise ThalwegError(f"at most {MOST_COMPARED} runs side by side, got {len(names)}")
    return names


def _whole(query: QueryParams, name: str, default: int | None = None) -> int | None:
    """A whole number of the query.

    Raises:
        ThalwegError: if it is none, or beyond what a step can be.
    """
    text = query.get(name, "")
    if not text:
        return default
    if len(text) > 18 or not text.lstrip("-").isascii() or not text.lstrip("-").isdigit():
        raise ThalwegError(f"{name}: expected a whole number, got {text[:100]!r}")
    return int(text)
