"""Everything that one process writes into a run: rows, events, header.

Rank 0 owns the header and creates the directory; other ranks write their own files beside it. A
failing disk is reported once and never raised: the training goes on.
"""

from __future__ import annotations

import os
import shutil
import socket
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from thalweg.errors import ThalwegError
from thalweg.recorder.events import EventLog
from thalweg.recorder.header import describe_process, now, write_header
from thalweg.recorder.measurements import MeasurementWriter
from thalweg.recorder.run import Run

__all__ = ["Store", "create"]

FLUSH_S = 0.8  # rows are handed to the system at least this often while steps come in


def create(
    path: Path, *, overwrite: bool = False, resume: bool = False
) -> tuple[dict[str, Any], int, int]:
    """Makes a run directory, or opens one to go on with.

    Args:
        path: the directory.
        overwrite: delete the run that lies there.
        resume: add a segment to the run that lies there.

    Returns:
        Its header, the number of the new segment, and the step it starts from.

    Raises:
        ThalwegError: if a run lies there and neither was asked for, or something else does.
    """
    if overwrite and resume:
        raise ThalwegError("give --overwrite or --resume, not both")
    occupied = path.exists() and (not path.is_dir() or any(path.iterdir()))
    if occupied and not (path / "run.json").exists():
        raise ThalwegError(f"{path} exists and is not a run; choose another place with --out")
    if occupied and not (overwrite or resume):
        raise ThalwegError(
            f"{path} holds a run already; give another --out, --resume to continue it, "
            f"or --overwrite to replace it"
        )
    if resume and not occupied:
        raise ThalwegError(f"--resume: there is no run at {path}")
    header: dict[str, Any] = {"schema_version": 1, "kind": "thalweg.run", "created": now()}
    header["segments"] = []
    if occupied and resume:
        run = Run(path)
        header, steps = {**run.header, "wall_s": run.wall_s}, run.steps
        earlier = header.setdefault("segments", [])
        return header, len(earlier), int(steps[-1]) if len(steps) else 0
    if occupied:
        shutil.rmtree(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ThalwegError(
            f"cannot create {path}: {error.strerror}; choose another --out"
        ) from None
    return header, 0, 0


class Store:
    """The writing side of a run, for one rank.

    Args:
        path: the run directory, made by ``create``.
        header: as ``create`` returned it.
        rank: of this process.
        segment: number of this segment.
        first_step: the last step of the segments before.
        script: the training script, if there is one.
        arguments: the command line, to be redacted.
        overhead: the time budget, for the header.
        instruments: their names, for the header.
        quiet: no messages on stderr.

    Attributes:
        path, rank, segment, first_step: as given.
        step: number of the last step, over all segments; the session moves it on.
        start: when the clock of the run stood at 0, by ``time.perf_counter``.
        flushed: when rows were last handed to the system, likewise.
    """

    def __init__(
        self,
        path: Path,
        header: dict[str, Any],
        *,
        rank: int = 0,
        world_size: int = 1,
        segment: int = 0,
        first_step: int = 0,
        script: Path | None = None,
        arguments: Sequence[str] = (),
        overhead: float = 0.05,
        instruments: Sequence[str] = (),
        quiet: bool = False,
    ) -> None:
        self.path, self.rank, self.segment, self.first_step = path, rank, segment, first_step
        self.step = first_step
        self._header = header
        self._quiet = quiet
        self.flushed = time.perf_counter()
        # The clock of a run goes on where its last segment stopped.
        self.start = self.flushed - float(header.pop("wall_s", 0.0))
        self._failed: OSError | None = None
        self._lock = threading.Lock()
        self._writer = MeasurementWriter(path / "measurements", rank=rank, segment=segment)
        self._events = EventLog(path, rank=rank)
        self._segment = {
            "segment": segment,
            "started": now(),
            "ended": None,
            "status": "running",
            "first_step": first_step,
            "last_step": first_step,
            "pid": os.getpid(),
            "host": socket.gethostname(),
        }
        header["segments"].append(self._segment)
        header.update(
            status="running",
            world_size=world_size,
            overhead={"budget": overhead, "achieved": None},
            instruments=list(instruments),
            **describe_process(script, arguments),
        )
        self._save()
        self.event("started", first_step, segment=segment)

    def elapsed(self) -> float:
        """Seconds of recorded training, over all segments."""
        return time.perf_counter() - self.start

    def series(self, instrument: str, part: str) -> int:
        """The code of a series."""
        return self._writer.series(instrument, part)

    def rows(
        self,
        step: int,
        codes: Sequence[int],
        values: Sequence[float],
        time_s: float | None = None,
        uncertainties: Sequence[float] | None = None,
        statuses: Sequence[str] | None = None,
    ) -> None:
        """Adds measurements of one step; they reach the disk with the next flush."""
        at = self.elapsed() if time_s is None else time_s
        self._writer.append(step, at, codes, values, uncertainties, statuses)

    def event(self, event: str, step: int, **fields: Any) -> None:
        """Writes an event at once."""
        self._events.write(event, step=step, time_s=self.elapsed(), **fields)

    def describe(self, **fields: Any) -> None:
        """Adds facts to the header."""
        self._header.update(fields)
        self._save()

    def stale(self, seconds: float = FLUSH_S) -> bool:
        """Whether rows have waited longer than this."""
        return time.perf_counter() - self.flushed > seconds

    def flush(self) -> None:
        """Hands all rows to the system: they survive a kill from here on."""
        with self._lock:
            self.flushed = time.perf_counter()
            self._writer.flush()
        if self._writer.error is not None:
            self.fail(self._writer.error)

    def fail(self, error: OSError) -> None:
        """Notes that the disk refused; says so once."""
        if self._failed is None:
            self._failed = error
            lost = "rows are being lost" if self._writer.dropped else "no row is lost so far"
            message = f"cannot write to {self.path}: {error}; training goes on, {lost}"
            self.event("disk error", self.step, message=message)
            self.warn(message)

    def say(self, message: str) -> None:
        """Tells the user, on stderr, from rank 0."""
        if not self._quiet and self.rank == 0:
            print(f"thalweg: {message}", file=sys.stderr, flush=True)

    def warn(self, message: str) -> None:
        """Tells the user of a fault, on stderr, from any rank."""
        if not self._quiet:
            print(f"thalweg: warning: {message}", file=sys.stderr, flush=True)

    def close(self, status: str, *, last_step: int, overhead: dict[str, Any]) -> None:
        """Ends the segment."""
        self._segment.update(ended=now(), status=status, last_step=last_step)
        self.event(status, last_step)
        with self._lock:
            self._writer.close()
        if self._writer.error is not None:
            self.fail(self._writer.error)
        dropped = self._writer.dropped
        self._header.update(status=status, overhead=overhead, dropped_rows=dropped)
        self._save()
        self._events.close()

    def _save(self) -> None:
        if self.rank != 0:
            return
        try:
            write_header(self.path, self._header)
        except OSError as error:
            # Before the writers stand there is no place to note it: the caller must know.
            if not hasattr(self, "_events"):
                raise ThalwegError(f"cannot write to {self.path}: {error}") from None
            self.fail(error)
