"""The events of a run: one JSON object a line, written at once, so that a kill loses none."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

__all__ = ["EventLog", "events_file", "plain"]


def events_file(run: Path, rank: int) -> Path:
    """Where the events of one rank lie."""
    return run / ("events.jsonl" if rank == 0 else f"events-r{rank}.jsonl")


class EventLog:
    """Appends events to a run.

    Args:
        run: the run directory.
        rank: whose events; one writer per file.
    """

    def __init__(self, run: Path, *, rank: int) -> None:
        self._rank = rank
        path = events_file(run, rank)
        # A torn last line of a killed segment must not swallow the first event of this one.
        torn = path.exists() and path.stat().st_size > 0 and not path.read_bytes().endswith(b"\n")
        self._file = path.open("a", encoding="utf-8")
        if torn:
            self._file.write("\n")
        self.error: OSError | None = None

    def write(self, event: str, *, step: int, time_s: float, **fields: Any) -> None:
        """Writes one event. A failing disk is noted in ``error`` and never raised."""
        row = {"time_s": time_s, "step": step, "rank": self._rank, "event": event, **fields}
        try:
            self._file.write(json.dumps(plain(row), ensure_ascii=False) + "\n")
            self._file.flush()
        except OSError as error:
            self.error = self.error or error

    def close(self) -> None:
        """Closes the file."""
        try:
            self._file.close()
        except OSError as error:
            self.error = self.error or error


def plain(value: Any) -> Any:
    """A value as strict JSON can hold it: non-finite numbers and unknown objects as strings."""
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, bool | int | str) or value is None:
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    return str(value)
