"""``thalweg export``: a run for other tools."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

__all__ = ["export"]


def export(
    run: Path | None = None,
    /,
    *,
    to: Literal["parquet", "csv", "tensorboard"] = "parquet",
    out: Annotated[Path, Parameter(name=["--out", "-o"])],
    overwrite: Annotated[bool, Parameter(negative="", show_default=False)] = False,
    root: Path = Path("runs"),
    json: Annotated[bool, Parameter(negative="", show_default=False)] = False,
) -> int:
    """Write the measurements of a run for other tools.

    Args:
        run: directory of the run; the newest under --root if left out.
        to: format to write.
        out: file to write, or directory for tensorboard.
        overwrite: replace what is there.
        root: directory in which runs lie.
        json: print JSON.
    """
    from thalweg.cli.output import print_json
    from thalweg.recorder.export import export as write
    from thalweg.recorder.run import Run, newest_run

    opened = Run(newest_run(root) if run is None else run)
    rows = write(opened, to, out, overwrite=overwrite)
    if json:
        data = {"run": str(opened.path), "to": to, "out": str(out), "rows": rows}
        print_json({**data, "notes": opened.notes})
        return 0
    print(f"{out}: {rows} rows of {opened.path} as {to}")
    for note in opened.notes:
        print(f"note: {note}")
    return 0
