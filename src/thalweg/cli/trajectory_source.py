"""What the verbs on trajectories read: a run, a folder of checkpoints, or single checkpoints."""

from __future__ import annotations

import re
from pathlib import Path

from thalweg.errors import ThalwegError

__all__ = ["checkpoints"]


def checkpoints(source: Path, *more: Path) -> dict[int, Path]:
    """Step → checkpoint.

    Args:
        source: a run or a folder of checkpoints; or, with ``more``, a checkpoint.
        more: checkpoints; the last number in each name is its step.

    Raises:
        ThalwegError: if there are none, two of one step, or a name without a step.
    """
    from thalweg.trajectory import find_checkpoints

    if not more:
        if source.is_file():
            raise ThalwegError(
                f"{source}: one checkpoint; a path needs several, or the folder that holds them"
            )
        return find_checkpoints(source)
    found: dict[int, Path] = {}
    for path in (source, *more):
        if not path.exists():
            raise ThalwegError(f"{path}: no such checkpoint")
        numbers = re.findall(r"\d+", path.name if path.is_dir() else path.stem)
        if not numbers:
            raise ThalwegError(f"{path}: expected a step in its name, as in step-100.safetensors")
        step = int(numbers[-1])
        if step in found:
            raise ThalwegError(f"two checkpoints of step {step}: {found[step]} and {path}")
        found[step] = path
    return dict(sorted(found.items()))
