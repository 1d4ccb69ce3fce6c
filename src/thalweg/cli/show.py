"""``thalweg show``: what a run holds, on one screen."""

from __future__ import annotations

import datetime
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

if TYPE_CHECKING:
    import numpy as np

    from thalweg.recorder.run import Run

__all__ = ["show"]

_COLUMNS = ["first", "last", "min", "max"]
# Events that speak to the user, and how many of the last of them are shown.
_SHOWN_EVENTS = 5


def show(
    run: Path | None = None,
    /,
    *,
    instrument: str | None = None,
    part: str | None = None,
    parts: Annotated[bool, Parameter(negative="", show_default=False)] = False,
    root: Path = Path("runs"),
    json: Annotated[bool, Parameter(negative="", show_default=False)] = False,
) -> int:
    """Show what a run holds, a line for each instrument.

    Args:
        run: directory of the run; the newest under --root if left out.
        instrument: only this instrument.
        part: only this part (a parameter or module; "" is the whole).
        parts: all parts, not just the whole.
        root: directory in which runs lie.
        json: print JSON.
    """
    from thalweg.cli.output import NAME_WIDTH, figures, number, print_json, sparkline, width
    from thalweg.recorder.run import Run, newest_run

    opened = Run(newest_run(root) if run is None else run)
    wanted = _select(opened, instrument, part, parts)
    facts, lines = _facts(opened), {name: _figures(*series) for name, series in wanted.items()}
    said = [event for event in opened.events if event.get("message")]
    if json:
        series = [{"instrument": i, "part": p, **line} for (i, p), line in lines.items()]
        data = {"run": str(opened.path), "header": facts, "series": series}
        print_json({**data, "events": said, "notes": opened.notes})
        return 0
    print(opened.path)
    for label, fact in _worded(facts).items():
        lead = f"  {label:<11}"
        print(textwrap.fill(fact, width(), initial_indent=lead, subsequent_indent=" " * len(lead)))
    print()
    room = width() - NAME_WIDTH - 10 * len(_COLUMNS) - 8 - 1
    if lines:
        print(*figures("instrument", _COLUMNS, count="count"), sep="\n")
    heading = ""
    for (owner, name), line in lines.items():
        if name and owner != heading:
            print(owner)
        heading = owner
        cells = [number(line[column]) for column in _COLUMNS]
        spark = sparkline(wanted[owner, name][1], room)
        title = f"  {name}" if name else owner
        print(*figures(title, cells, spark, count=str(line["count"])), sep="\n")
    hidden = len(opened.instruments) - len({owner for owner, _ in lines})
    if not lines:
        print("no measurements yet" if not hidden else "no instrument measured the whole: --parts")
    elif hidden and not (instrument or part is not None):
        print(f"({hidden} more measured parts only: --parts)")
    for event in said[-_SHOWN_EVENTS:]:
        text = f"step {event.get('step', '?')}: {event['event']}: {event['message']}"
        print(textwrap.fill(text, width(), subsequent_indent="  "))
    for note in opened.notes:
        print(textwrap.fill(f"note: {note}", width(), subsequent_indent="  "))
    return 0


def _select(
    run: Run, instrument: str | None, part: str | None, parts: bool
) -> dict[tuple[str, str], tuple[np.ndarray, np.ndarray]]:
    """The series that were asked for, by name; the whole of each instrument by default."""
    if instrument is not None and part is not None:
        return {(instrument, part): run.series(instrument, part)}
    known = run.parts(instrument) if instrument is not None else None
    if known and "" not in known:
        parts = True  # an instrument of parts only, asked for by name
    if part is not None:
        run.table(part=part)  # an unknown part is an error
    found = {
        name: series
        for name, series in run.all_series().items()
        if instrument in (None, name[0]) and (name[1] == part if part is not None else True)
    }
    if part is None and not parts:
        found = {name: series for name, series in found.items() if not name[1]}
    return dict(sorted(found.items()))


def _figures(steps: np.ndarray, values: np.ndarray) -> dict[str, Any]:
    import numpy as np

    finite = values[np.isfinite(values)]
    return {
        "first": float(values[0]) if len(values) else None,
        "last": float(values[-1]) if len(values) else None,
        "min": float(finite.min()) if len(finite) else None,
        "max": float(finite.max()) if len(finite) else None,
        "count": len(values),
        "nonfinite": len(values) - len(finite),
        "first_step": int(steps[0]) if len(steps) else None,
        "last_step": int(steps[-1]) if len(steps) else None,
    }


def _facts(run: Run) -> dict[str, Any]:
    header, steps = run.header, run.steps
    overhead = header.get("overhead")
    return {
        "script": header.get("script"),
        "status": header.get("status"),
        "created": header.get("created"),
        "segments": len(header.get("segments") or []),
        "steps": len(steps),
        "last_step": int(steps[-1]) if len(steps) else None,
        "wall_s": run.wall_s,
        "overhead": overhead if isinstance(overhead, dict) else {},
        "optimizers": header.get("optimizers") or [],
    }


def _worded(facts: dict[str, Any]) -> dict[str, str]:
    """The facts in words, without those that are not known."""
    budget, achieved = facts["overhead"].get("budget"), facts["overhead"].get("achieved")
    segments = f", in {facts['segments']} segments" if facts["segments"] > 1 else ""
    last = f", the last {facts['last_step']}" if facts["steps"] else ""
    wall = datetime.timedelta(seconds=round(facts["wall_s"]))
    worded = {
        "script": facts["script"],
        "status": facts["status"],
        "created": facts["created"],
        "steps": f"{facts['steps']} measured{last}{segments}",
        "wall time": str(wall),
        "overhead": None if achieved is None else f"{achieved:.1%} of the training's time",
        "optimizers": "; ".join(map(_brief, facts["optimizers"])),
    }
    if worded["overhead"] and budget is not None:
        worded["overhead"] += f" (budget {budget:.1%})"
    return {label: str(fact) for label, fact in worded.items() if fact}


def _brief(optimizer: Any) -> str:
    if not isinstance(optimizer, dict):
        return str(optimizer)
    name = next((optimizer[key] for key in ("class", "name", "type") if key in optimizer), "?")
    settings = {k: v for k, v in optimizer.items() if isinstance(v, int | float) and k != "name"}
    return " ".join([str(name), *(f"{key}={value}" for key, value in settings.items())])
