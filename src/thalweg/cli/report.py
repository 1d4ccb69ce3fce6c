"""``thalweg report``: a run as one HTML page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

if TYPE_CHECKING:
    from thalweg.recorder.run import Run
    from thalweg.report.diagnoses import DiagnosisLike

__all__ = ["report"]


def report(
    run: Path | None = None,
    /,
    *,
    out: Annotated[Path | None, Parameter(name=["--out", "-o"], show_default=False)] = None,
    root: Path = Path("runs"),
    json: Annotated[bool, Parameter(negative="", show_default=False)] = False,
) -> int:
    """Write a run as one self-contained HTML page: diagnoses, curves, where it came from.

    The page loads nothing from the network. A file that is not a report is never replaced.

    Args:
        run: directory of the run; the newest under --root if left out.
        out: the page to write; report.html in the run if left out.
        root: directory in which runs lie.
        json: print JSON.
    """
    from thalweg.cli.output import print_json
    from thalweg.recorder.run import Run, newest_run
    from thalweg.report import write

    opened = Run(newest_run(root) if run is None else run)
    path = write(opened, out, _diagnoses(opened))
    if json:
        print_json({"run": str(opened.path), "path": str(path), "bytes": path.stat().st_size})
    else:
        print(path)
    return 0


def _diagnoses(run: Run) -> list[DiagnosisLike] | None:
    """What the doctor finds; None where this installation has no doctor."""
    import importlib
    import importlib.util

    if importlib.util.find_spec("thalweg.doctor") is None:
        return None
    return list(importlib.import_module("thalweg.doctor").diagnose(run))
