"""The writer of measurements: appending costs a microsecond, flushed rows survive ``kill -9``.

Rows wait in a list until `flush` turns them into one Arrow record batch and hands it to the
operating system in one write. No lock, no daemon and no second writer of a file: each rank and
segment writes its own parts (`thalweg.recorder.tables` says how they are named and compacted).
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow as pa

# `take` would import it at the first flush: 40 ms, in the midst of a training.
import pyarrow.compute

from thalweg.recorder.tables import END_OF_STREAM, MEASUREMENTS, compact, part_name

__all__ = ["MeasurementWriter"]

_Row = tuple[
    int, float, Sequence[int], Sequence[float], Sequence[float] | None, Sequence[str] | None
]
_SCHEMA_MESSAGE = MEASUREMENTS.serialize().to_pybytes()
# After a failed write the next try, in a new part, waits this long.
_RETRY_S = 5.0


class MeasurementWriter:
    """Append-only store of one rank's measurements of one segment.

    A failing disk never raises into training: rows are dropped and counted, what was flushed before
    stays readable, and every few seconds a new part is tried.

    Args:
        directory: the ``measurements`` directory of the run; created if missing.
        rank: of this process.
        segment: 0, and one more for every resumption.
        roll_bytes: size of a stream at which the next part begins.

    Attributes:
        error: the first failure of the disk, or None.
        dropped: rows lost to it.

    Example:
        >>> import tempfile
        >>> writer = MeasurementWriter(Path(tempfile.mkdtemp()), rank=0, segment=0)
        >>> loss = writer.series("loss")
        >>> writer.append(1, 0.5, [loss], [2.3])
        >>> writer.close()
        >>> [path.name for path in writer.directory.iterdir()]
        ['r0-s0-0000.parquet']
    """

    def __init__(
        self, directory: Path, *, rank: int, segment: int, roll_bytes: int = 64_000_000
    ) -> None:
        self.directory, self.rank, self.segment = Path(directory), rank, segment
        self.roll_bytes = roll_bytes
        self.error: OSError | None = None
        self.dropped = 0
        self._codes: dict[tuple[str, str], int] = {}
        self._rows: list[_Row] = []
        # Reentrant, so that a signal handler that flushes inside a flush does not hang.
        self._lock = threading.RLock()
        self._file: int | None = None
        self._path: Path | None = None
        self._part = self._size = 0
        self._retry_at = 0.0
        self._finished: list[Path] = []
        self._compactor: threading.Thread | None = None
        self._pid, self._closed = os.getpid(), False

    def series(self, instrument: str, part: str = "") -> int:
        """The code of a series, for `append`; the same for the same names.

        Raises:
            ValueError: if a name cannot be written as UTF-8.
        """
        key = (instrument, part)
        code = self._codes.get(key)
        if code is None:
            (instrument + part).encode()  # what no file can hold fails here, not in a flush
            with self._lock:  # two threads that meet here agree on the code
                code = self._codes.setdefault(key, len(self._codes))
        return code

    def append(
        self,
        step: int,
        time_s: float,
        codes: Sequence[int],
        values: Sequence[float],
        uncertainties: Sequence[float] | None = None,
        statuses: Sequence[str] | None = None,
    ) -> None:
        """Add one row per code. The sequences are kept, not copied: do not change them afterwards.

        Args:
            step: of the training.
            time_s: seconds since the run began.
            codes: from `series`.
            values: one a code.
            uncertainties: one a code; nan if left out.
            statuses: one a code; if left out, ``ok`` or ``nonfinite`` by the value.

        Raises:
            ValueError: if the sequences differ in length.
        """
        n = len(codes)
        if (
            len(values) != n
            or (uncertainties is not None and len(uncertainties) != n)
            or (statuses is not None and len(statuses) != n)
        ):
            raise ValueError(f"append: needs as many values as codes; got {len(values)} and {n}")
        self._rows.append((step, time_s, codes, values, uncertainties, statuses))

    def flush(self) -> None:
        """Hand all appended rows to the operating system. Any thread may call it."""
        with self._lock:
            # Appending goes on meanwhile: both list operations are atomic, and only the end grows.
            count = len(self._rows)
            rows = self._rows[:count]
            del self._rows[:count]
            if not rows or os.getpid() != self._pid:  # a forked child must not write our file
                return
            if self._closed or (self._retry_at and time.monotonic() < self._retry_at):
                self.dropped += sum(len(row[2]) for row in rows)
                return
            batch = self._batch(rows)
            try:
                self._write(batch)
            except OSError as error:
                self.dropped += batch.num_rows
                self._fail(error)
            else:
                self._retry_at = 0.0
                if self._size >= self.roll_bytes:
                    self._roll()

    def close(self) -> None:
        """Flush, end the stream and compact it. What is appended later is dropped and counted."""
        with self._lock:
            if self._closed or os.getpid() != self._pid:
                return
            self._retry_at = 0.0  # the last rows get their chance even on a disk that failed
            self.flush()
            self._closed = True
            self._end_stream()
            compactor = self._compactor
        if compactor is not None:
            compactor.join()
        self._compact_finished()

    def _batch(self, rows: list[_Row]) -> pa.RecordBatch:
        steps, times, codes, values, uncertainties, statuses = zip(*rows, strict=True)
        counts = np.fromiter(map(len, codes), np.int64, len(rows))
        total = int(counts.sum())
        code = np.fromiter(chain.from_iterable(codes), np.int32, total)
        value = np.fromiter(chain.from_iterable(values), np.float64, total)
        uncertainty = np.full(total, np.nan)
        status = (~np.isfinite(value)).astype(np.int32)
        words = {"ok": 0, "nonfinite": 1}
        ends = np.cumsum(counts)
        for end, n, u, s in zip(
            ends.tolist(), counts.tolist(), uncertainties, statuses, strict=True
        ):
            if u is not None:
                uncertainty[end - n : end] = u
            if s is not None:
                status[end - n : end] = [words.setdefault(word, len(words)) for word in s]
        names = list(self._codes)
        columns = [
            pa.array(np.repeat(np.array(steps, np.int64), counts)),
            pa.array(np.repeat(np.array(times, np.float64), counts)),
            pa.array(np.full(total, self.rank, np.int32)),
            pa.array([name for name, _ in names], pa.string()).take(pa.array(code)),
            pa.array([part for _, part in names], pa.string()).take(pa.array(code)),
            pa.array(value),
            pa.array(uncertainty),
            pa.array(list(words), pa.string()).take(pa.array(status)),
        ]
        return pa.RecordBatch.from_arrays(columns, schema=MEASUREMENTS)

    def _write(self, batch: pa.RecordBatch) -> None:
        if self._file is None:
            self._open()
        assert self._file is not None
        self._size += _write_all(self._file, batch.serialize())

    def _open(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        while True:  # past what an earlier writer of this segment may have left
            name = self.directory / part_name(self.rank, self.segment, self._part)
            self._path = name.with_suffix(".arrows")
            if not (self._path.exists() or name.with_suffix(".parquet").exists()):
                break
            self._part += 1
        # O_EXCL: a second writer of the file would tear the rows of the first.
        self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o644)
        self._size = 0
        self._size = _write_all(self._file, _SCHEMA_MESSAGE)

    def _fail(self, error: OSError) -> None:
        """Give up the current part: what it holds whole stays, its torn end goes if it can."""
        self.error = self.error or error
        self._retry_at = time.monotonic() + _RETRY_S
        if self._file is None:
            return
        assert self._path is not None
        with suppress(OSError):
            os.ftruncate(self._file, self._size)
        with suppress(OSError):
            os.close(self._file)
        if self._size > len(_SCHEMA_MESSAGE):
            self._finished.append(self._path)
            self._part += 1
        else:  # not one row got into it: a full disk is not littered with empty parts
            with suppress(OSError):
                self._path.unlink()
        self._file = None

    def _end_stream(self) -> None:
        if self._file is None:
            return
        assert self._path is not None
        try:
            try:
                _write_all(self._file, END_OF_STREAM)
            finally:
                os.close(self._file)
        except OSError as error:  # every row is in: a stream without its end reads as well
            self.error = self.error or error
        self._finished.append(self._path)
        self._file = None
        self._part += 1

    def _roll(self) -> None:
        self._end_stream()
        if self._compactor is None or not self._compactor.is_alive():
            # Half a second of sorting and zstd: beside the training, not in it.
            self._compactor = threading.Thread(
                target=self._compact_finished, name="thalweg-compact"
            )
            self._compactor.start()

    def _compact_finished(self) -> None:
        while self._finished:
            path = self._finished.pop(0)
            try:
                compact(path)
            except OSError as error:  # the stream stays and is read in its place
                self.error = self.error or error
            except (pa.ArrowException, MemoryError) as error:
                self.error = self.error or OSError(f"{path.name} stays a stream: {error}")


def _write_all(file: int, data: bytes | pa.Buffer) -> int:
    """Write everything, in one call unless the system takes less; returns the size."""
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]
    return len(data) if isinstance(data, bytes) else data.size
