"""``thalweg check``: is a run whole?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

__all__ = ["check"]


def check(
    run: Path | None = None,
    /,
    *,
    root: Path = Path("runs"),
    json: Annotated[bool, Parameter(negative="", show_default=False)] = False,
) -> int:
    """Open every file of a run and say what is damaged.

    The exit code is 1 if anything is.

    Args:
        run: directory of the run; the newest under --root if left out.
        root: directory in which runs lie.
        json: print JSON.
    """
    from dataclasses import asdict

    from thalweg.cli.output import print_json
    from thalweg.recorder.integrity import check as find
    from thalweg.recorder.run import newest_run

    path = newest_run(root) if run is None else run
    problems = find(path)
    damaged = sum(problem.severity == "damage" for problem in problems)
    if json:
        print_json({"run": str(path), "sound": not damaged, "problems": [*map(asdict, problems)]})
        return int(damaged > 0)
    for problem in problems:
        print(f"{problem.severity}: {problem.file}: {problem.message}")
    print(f"{path}: " + (f"damaged in {damaged} places" if damaged else "sound"))
    return int(damaged > 0)
