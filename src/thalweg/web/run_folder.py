"""The folder of runs, and the only way from a name in an address to a directory on the disk."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from thalweg.errors import ThalwegError, unknown_name
from thalweg.recorder.run import Run

__all__ = ["RunFolder"]

_NAME = re.compile(r"[^/\\\x00.][^/\\\x00]{0,254}")
#: Bytes of run.json and of the events: beyond that a run is not shown.
MAX_HEADER = 16_000_000


class RunFolder:
    """The runs that lie in one directory, each a directory of its own.

    Args:
        path: where the runs lie; it need not exist yet.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    def names(self) -> list[str]:
        """The names of the runs in it."""
        if not self.path.is_dir():
            return []
        return sorted(p.parent.name for p in self.path.glob("*/run.json") if self._sound(p.parent))

    def open(self, name: str) -> Run:
        """The run of that name.

        Raises:
            ThalwegError: if there is none, if it or a file of it is a link that leads out of the
                folder, or if its small files are too large to be shown.
        """
        path = self.path / name
        if not _NAME.fullmatch(name) or not self._sound(path) or not path.is_dir():
            raise unknown_name("run", name, self.names())
        for file in [path / "run.json", *path.glob("events*.jsonl")]:
            if file.exists() and file.stat().st_size > MAX_HEADER:
                raise ThalwegError(f"{name}: {file.name} is too large to be shown")
        return Run(path)

    def _sound(self, path: Path) -> bool:
        """Whether all that a reader would open lies in the folder."""
        root = self.path.resolve()
        return path.resolve().is_relative_to(root) and all(
            file.resolve().is_relative_to(root) for file in _links(path)
        )


def _links(path: Path) -> Iterator[Path]:
    for folder in (path, path / "measurements", path / "weights"):
        try:
            with os.scandir(folder) as found:
                yield from [Path(item.path) for item in found if item.is_symlink()]
        except OSError:
            continue
