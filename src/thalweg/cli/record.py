"""``thalweg record``: run a training script, unmodified, and record it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from cyclopts import Parameter

__all__ = ["record", "split"]

_VALUED = ("--out", "-o", "--overhead", "--instruments", "--blackbox")
_FLAGS = ("--overwrite", "--resume", "--help", "-h")


def record(
    *command: Annotated[str, Parameter(allow_leading_hyphen=True)],
    module: Annotated[bool, Parameter(name=["-m"], negative="", show_default=False)] = False,
    out: Annotated[str | None, Parameter(name=["--out", "-o"])] = None,
    overhead: float = 0.05,
    instruments: str | None = None,
    blackbox: float | None = None,
    overwrite: Annotated[bool, Parameter(negative="", show_default=False)] = False,
    resume: Annotated[bool, Parameter(negative="", show_default=False)] = False,
) -> int:
    """Run a training script as python would, and record it.

    Everything from SCRIPT on belongs to the script; options of thalweg stand
    before it. The script keeps its arguments, its output and its exit code.

    Under torchrun each rank writes its own part of the run:
    torchrun --nproc-per-node 2 -m thalweg record train.py

    Args:
        command: SCRIPT [ARGS...], or -m MODULE [ARGS...].
        module: what follows is a module, as in python -m.
        out: run directory; runs/<script>-<time> if left out.
        overhead: share of step time that recording may take.
        instruments: names separated by commas; all cheap ones if left out.
        blackbox: megabytes for the last steps, kept when something goes wrong,
            for thalweg replay; 0: none; if left out 512, where the overhead
            allows it.
        overwrite: replace the run that lies at --out.
        resume: continue the run that lies at --out as a new segment.
    """
    from thalweg.errors import ThalwegError

    if not command:
        raise ThalwegError(
            "record needs a script: thalweg record train.py, or thalweg record -m package.train"
        )
    from thalweg.recorder.script import record_script

    chosen = None if instruments is None else [n.strip() for n in instruments.split(",")]
    return record_script(
        command[0],
        command[1:],
        module=module,
        out=out,
        overhead=overhead,
        instruments=chosen,
        blackbox_mb=blackbox,
        overwrite=overwrite,
        resume=resume,
    )


def split(arguments: Sequence[str]) -> list[str]:
    """Marks where the script begins, so that its options are not taken for ours.

    Args:
        arguments: what follows ``thalweg record``.

    Raises:
        ValueError: for an option that is none of ours.

    Example:
        >>> split(["--out", "a", "train.py", "--out", "b"])
        ['--out', 'a', '--', 'train.py', '--out', 'b']
        >>> split(["-m", "pkg.train", "-m", "x"])
        ['-m', '--', 'pkg.train', '-m', 'x']
    """
    i = 0
    while i < len(arguments):
        argument = arguments[i]
        if argument == "--":
            return list(arguments)
        if argument == "-m":
            i += 1
            break
        if not argument.startswith("-"):
            break
        name = argument.partition("=")[0]
        if name not in _VALUED + _FLAGS:
            known = ", ".join([*_VALUED, *_FLAGS[:2], "-m"])
            raise ValueError(
                f"record has no option {name}; it has {known}. Options of the script go after it"
            )
        i += 2 if argument in _VALUED else 1
    return [*arguments[:i], "--", *arguments[i:]] if i < len(arguments) else list(arguments)
