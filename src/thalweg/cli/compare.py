"""``thalweg compare``: runs side by side, at the last step that all of them reached."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

if TYPE_CHECKING:
    import numpy as np

__all__ = ["compare"]


def compare(
    *runs: Path,
    instrument: str | None = None,
    parts: Annotated[bool, Parameter(negative="", show_default=False)] = False,
    json: Annotated[bool, Parameter(negative="", show_default=False)] = False,
) -> int:
    """Compare runs at the last step that all of them reached.

    Args:
        runs: directories of two runs or more.
        instrument: only this instrument.
        parts: all parts, not just the whole.
        json: print JSON.
    """
    from thalweg.cli.output import figures, number, print_json, sparkline, width
    from thalweg.errors import unknown_name
    from thalweg.recorder.run import Run

    if len(runs) < 2:
        raise ValueError(f"compare: needs two runs or more; got {len(runs)}")
    opened = [Run(path) for path in runs]
    found = [run.all_series() for run in opened]
    names = {name for series in found for name in series}
    if instrument is not None and instrument not in {owner for owner, _ in names}:
        raise unknown_name("instrument", instrument, {owner for owner, _ in names})
    wanted = [
        name
        for name in sorted(names)
        if instrument in (None, name[0]) and (parts or instrument or not name[1])
    ]
    rows = [(name, *_aligned([series.get(name) for series in found])) for name in wanted]
    notes = [f"{run.path}: {note}" for run in opened for note in run.notes]
    if json:
        lines = [
            {
                "instrument": owner,
                "part": part,
                "step": step,
                "runs": [line and {k: v for k, v in line.items() if k != "values"} for line in own],
            }
            for (owner, part), step, own in rows
        ]
        print_json({"runs": [str(path) for path in runs], "series": lines, "notes": notes})
        return 0
    short = [path.resolve().name for path in runs]
    labels = short if len(set(short)) == len(short) else [str(path) for path in runs]
    for (owner, part), step, own in rows:
        title = f"{owner} {part}".rstrip()
        where = "not measured in any" if step is None else f"at step {step}"
        print(*figures(title, ["last", "min"], where, count="count"), sep="\n")
        for label, line in zip(labels, own, strict=True):
            if line is None:
                print(*figures(f"  {label}", ["-", "-"], count="0"), sep="\n")
                continue
            spark = sparkline(line["values"], width() - 49)
            cells = [number(line["last"]), number(line["min"])]
            print(*figures(f"  {label}", cells, spark, count=str(line["count"])), sep="\n")
    if not rows:
        print("no measurements of the whole to compare; --parts compares all")
    for note in notes:
        print(f"note: {note}")
    return 0


def _aligned(
    series: list[tuple[np.ndarray, np.ndarray] | None],
) -> tuple[int | None, list[dict[str, Any] | None]]:
    """The last step that all runs that have a series reached, and their figures up to it."""
    import numpy as np

    last = [int(found[0][-1]) for found in series if found is not None and len(found[0])]
    step = min(last, default=None)
    lines: list[dict[str, Any] | None] = []
    for found in series:
        values = found[1][found[0] <= step] if found is not None and step is not None else None
        if values is None or not len(values):
            lines.append(None)
            continue
        finite = values[np.isfinite(values)]
        least = float(finite.min()) if len(finite) else None
        lines.append(
            {"last": float(values[-1]), "min": least, "count": len(values), "values": values}
        )
    return step, lines
