"""A run, read: its measurements, weights and events, also while they are being written.

Reading never writes, takes no lock, and bears what crashes leave behind: what could not be read is
dropped and named in `Run.notes`. Axes: `T` rows of one series.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa

from thalweg.errors import ThalwegError, unknown_name
from thalweg.recorder.run_files import list_events, newest_run, read_events, read_header
from thalweg.recorder.series_rows import Pieces, read_rows, told_names
from thalweg.recorder.stored_weights import Sketches, Snapshots, read_sketches
from thalweg.recorder.tables import (
    MEASUREMENTS,
    PartFile,
    codes_of,
    list_parts,
    read_part,
    series_order,
)

__all__ = ["Run", "newest_run"]

Series = tuple[np.ndarray, np.ndarray]
_T = TypeVar("_T")

# A file vanishes only when its writer compacts it, so a handful of listings always catches up.
_TRIES = 20


class Run:
    """All that was recorded of one training.

    Args:
        path: the directory of the run.

    Attributes:
        path: as given.

    Raises:
        ThalwegError: if it is no run.

    Example:
        run = Run("runs/digits")
        steps, loss = run.series("loss")
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._notes: dict[str, str] = {}
        self._names: dict[tuple[Path, int, int], set[tuple[str, str]]] = {}
        read_header(self.path)

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"

    @property
    def header(self) -> dict[str, Any]:
        """What was known of the training as a whole, as ``run.json`` is now."""
        return read_header(self.path)

    @property
    def steps(self) -> np.ndarray:
        """The steps with a measurement, (steps,) int64, ascending, each once."""
        found = self._read(lambda file: read_part(file, ["step"]))
        unique = [table["step"].unique().to_numpy() for _, table in found]
        return np.unique(np.concatenate([np.zeros(0, np.int64), *unique]))

    @property
    def wall_s(self) -> float:
        """Seconds from the start of the run to its last measurement; 0 before the first."""
        found = self._read(lambda file: read_part(file, ["time_s"]))
        times = [_column(table, "time_s") for _, table in found]
        return float(max((time.max() for time in times if len(time)), default=0.0))

    @property
    def names(self) -> list[tuple[str, str]]:
        """Every series that has a row, (instrument, part), sorted."""
        return sorted(self._series_names())

    @property
    def instruments(self) -> list[str]:
        """The names of the instruments that wrote a row."""
        return sorted({instrument for instrument, _ in self._series_names()})

    def parts(self, instrument: str) -> list[str]:
        """The parts that an instrument measured, ``""`` for the whole.

        Raises:
            ThalwegError: if the run has no such instrument.
        """
        names = self._series_names()
        self._check_name(names, instrument, None)
        return sorted(part for owner, part in names if owner == instrument)

    def table(
        self, instrument: str | None = None, part: str | None = None, *, rank: int | None = None
    ) -> pa.Table:
        """The measurements as one Arrow table, by rank, then step, then as written.

        Steps that a resumed training went through again appear once for every segment.

        Args:
            instrument: of this one only.
            part: of this one only.
            rank: of this one only.

        Returns:
            The schema of design.md; no rows if nothing was measured yet.

        Raises:
            ThalwegError: if an instrument or part is asked for that the run does not have.
        """
        found = self._read(
            lambda file: read_part(file, MEASUREMENTS.names, instrument=instrument, part=part), rank
        )
        tables, spans = [], []
        for file, table in found:
            steps = _column(table, "step")
            if not len(steps):
                continue
            if (steps[1:] < steps[:-1]).any():
                order = np.argsort(steps, kind="stable")
                table = table.unify_dictionaries().combine_chunks()  # else taking is slow
                table, steps = table.take(pa.array(order)), steps[order]
            tables.append(table.cast(MEASUREMENTS))
            spans.append((file.rank, int(steps[0]), int(steps[-1])))
        if not tables:
            self._check_name(self._series_names(), instrument, part)
            return MEASUREMENTS.empty_table()
        whole = pa.concat_tables(tables)
        if any(a[0] == b[0] and b[1] < a[2] for a, b in pairwise(spans)):
            # Segments overlap: a training was resumed from before its last step.
            keys = _column(whole, "step"), _column(whole, "rank")
            whole = whole.take(pa.array(np.lexsort(keys)))
        return whole

    def series(self, instrument: str, part: str = "", *, rank: int = 0) -> Series:
        """One quantity over the training.

        Rows that were not measured (status ``skipped:…`` or ``unsupported:…``) are left out; of
        steps that a resumed training went through again, the newest segment's are given.

        Args:
            instrument: its name.
            part: parameter or module, ``""`` for the whole.
            rank: of the process that measured.

        Returns:
            Steps (T,) int64, ascending, and values (T,) float64.

        Raises:
            ThalwegError: if the run has no such instrument or part.
        """
        columns = ["step", "value", "status"]
        pieces = []
        for file, table in self._read(
            lambda file: read_part(file, columns, instrument=instrument, part=part), rank
        ):
            keep = _measured(table)
            pieces.append(
                (file.segment, _column(table, "step")[keep], _column(table, "value")[keep])
            )
        if not sum(len(steps) for _, steps, _ in pieces):
            self._check_name(self._series_names(), instrument, part)
        return _join(pieces)

    def all_series(self, *, rank: int = 0) -> dict[tuple[str, str], Series]:
        """Every quantity at once, as `series` gives it: one pass over the files for all.

        Args:
            rank: of the process that measured.

        Returns:
            (instrument, part) to steps and values, in the order of first appearance.
        """
        columns = ["step", "instrument", "part", "value", "status"]
        pieces: dict[tuple[str, str], list[tuple[int, np.ndarray, np.ndarray]]] = {}
        for file, table in self._read(lambda file: read_part(file, columns), rank):
            order, starts, names = series_order(table)
            steps, values, keep = _column(table, "step"), _column(table, "value"), _measured(table)
            if order is not None:
                steps, values, keep = steps[order], values[order], keep[order]
            whole = keep.all()
            for name, begin, end in zip(names, starts[:-1], starts[1:], strict=True):
                rows = slice(begin, end) if whole else begin + np.flatnonzero(keep[begin:end])
                pieces.setdefault(name, []).append((file.segment, steps[rows], values[rows]))
        return {name: _join(found) for name, found in pieces.items()}

    def some_series(
        self,
        instrument: str,
        parts: Collection[str],
        *,
        first: int | None = None,
        last: int | None = None,
        rank: int = 0,
    ) -> dict[str, Series]:
        """Some parts of an instrument, or a stretch of them, in one pass over the files.

        Args:
            instrument: its name.
            parts: which of its parts.
            first: rows before this step are left out.
            last: rows after this step are left out.
            rank: of the process that measured.

        Returns:
            Part to steps and values, as `series` gives them; in the order of ``parts``.

        Raises:
            ThalwegError: if the run has no such instrument or part.
        """
        span = (-(2**63) if first is None else first, 2**63 - 1 if last is None else last)
        pieces: dict[str, list[tuple[int, np.ndarray, np.ndarray]]] = {part: [] for part in parts}
        for file, found in self._read(
            lambda file: self._read_some(file, instrument, pieces, span), rank
        ):
            for part, (steps, values) in found.items():
                inside = (span[0] <= steps) & (steps <= span[1])
                if not inside.all():
                    steps, values = steps[inside], values[inside]
                if len(steps):
                    pieces[part].append((file.segment, steps, values))
        # Each is let go as it is joined, so that never twice all of them are held.
        joined = {part: _join(pieces.pop(part)) for part in list(pieces)}
        for part, (steps, _) in joined.items():
            if not len(steps):
                self._check_name(self._series_names(), instrument, part)
        return joined

    def unmeasured(self, *, rank: int = 0) -> dict[tuple[str, str, str], np.ndarray]:
        """What was not measured, and why: the rows that `series` leaves out.

        Args:
            rank: of the process that measured.

        Returns:
            (instrument, part, status) to steps (T,) int64, ascending; the status is ``skipped:…``
            or ``unsupported:…``.
        """
        columns = ["step", "instrument", "part", "status"]
        found: dict[tuple[str, str, str], set[int]] = {}
        for _, table in self._read(lambda file: read_part(file, columns), rank):
            missing = ~_measured(table)
            if missing.any():
                rows = table.filter(pa.array(missing))
                names = zip(*(rows[name].to_pylist() for name in columns[1:]), strict=True)
                for name, step in zip(names, rows["step"].to_pylist(), strict=True):
                    found.setdefault(name, set()).add(step)
        return {name: np.array(sorted(steps), np.int64) for name, steps in found.items()}

    def weights(self, rank: int = 0) -> Snapshots:
        """The snapshots of the weights, step → parameter name → tensor, read when asked for."""
        return Snapshots(self.path / "weights", rank=rank)

    def sketches(self, rank: int = 0) -> dict[str, Sketches]:
        """The sketches of the weights by parameter group."""
        found, notes = read_sketches(self.path / "weights", rank=rank)
        self._notes.update({f"weights/{name}": why for name, why in notes.items()})
        return found

    @property
    def events(self) -> list[dict[str, Any]]:
        """What happened, of all ranks, by time."""
        found = []
        for path in list_events(self.path):
            events, why = read_events(path)
            found += events
            self._note(path.name, why)
        return sorted(found, key=lambda event: event["time_s"])

    @property
    def notes(self) -> list[str]:
        """What had to be dropped in the reads so far, one line a file."""
        return [f"{name}: {why}" for name, why in sorted(self._notes.items())]

    def _note(self, name: str, why: str) -> None:
        if why:
            self._notes[name] = why
        elif not name.endswith(".parquet"):  # of which a read may touch sound columns only
            self._notes.pop(name, None)

    def _read(
        self, read: Callable[[PartFile], tuple[_T, str]], rank: int | None = None
    ) -> list[tuple[PartFile, _T]]:
        """Apply ``read`` to every part in order; anew from a new listing if one was compacted."""
        for _ in range(_TRIES):
            found = []
            try:
                for file in list_parts(self.path / "measurements"):
                    if rank is None or file.rank == rank:
                        content, why = read(file)
                        self._note(f"measurements/{file.path.name}", why)
                        found.append((file, content))
            except FileNotFoundError:
                continue
            except OSError as error:
                raise ThalwegError(
                    f"{self.path}: cannot read its measurements: {error}. "
                    "Check that the disk is there and the files are readable."
                ) from None
            return found
        raise ThalwegError(
            f"{self.path}: its measurement files vanish while they are read. "
            "Is something removing them? Try again when it is done."
        )

    def _read_some(
        self, file: PartFile, instrument: str, parts: Collection[str], span: tuple[int, int]
    ) -> tuple[Pieces, str]:
        """The rows of some series in a part, with what is measured in them."""
        if (told := read_rows(file, instrument, parts, span)) is not None:
            return told, ""
        table, why = read_part(
            file,
            ["step", "part", "value", "status"],
            instrument=instrument,
            part=parts,
            first=span[0],
            last=span[1],
        )
        steps, values, keep = _column(table, "step"), _column(table, "value"), _measured(table)
        codes, names = codes_of(table["part"])
        order = np.argsort(codes, kind="stable")
        bounds = np.searchsorted(codes[order], np.arange(len(names) + 1))
        found: Pieces = {}
        for code, part in enumerate(names):
            rows = order[bounds[code] : bounds[code + 1]]
            rows = rows[keep[rows]]
            if part in parts:
                found[part] = (steps[rows], values[rows])
        return found, why

    def _series_names(self) -> set[tuple[str, str]]:
        return set().union(*(names for _, names in self._read(self._read_names)))

    def _read_names(self, file: PartFile) -> tuple[set[tuple[str, str]], str]:
        """The series in a part; remembered for compacted parts, which never change."""
        facts = file.path.stat()
        key = (file.path, facts.st_mtime_ns, facts.st_size)
        if key in self._names:
            return self._names[key], ""
        if (told := told_names(file)) is not None:
            self._names[key] = told
            return told, ""
        table, why = read_part(file, ["instrument", "part"])
        (a, instruments), (b, parts) = codes_of(table["instrument"]), codes_of(table["part"])
        pair = a.astype(np.int64) * max(len(parts), 1) + b
        # Rows of one series lie together in a compacted part, so that few are left to sort.
        first = np.append(True, pair[1:] != pair[:-1])[: len(pair)]
        pairs = np.unique(pair[first]).tolist()
        names = {(instruments[k // len(parts)], parts[k % len(parts)]) for k in pairs}
        if not why and file.path.suffix == ".parquet":
            self._names[key] = names
        return names, why

    def _check_name(
        self, names: set[tuple[str, str]], instrument: str | None, part: str | None
    ) -> None:
        """Raise if the run has measurements, but none of this instrument or part."""
        if not names:
            return
        instruments = {owner for owner, _ in names}
        if instrument is not None and instrument not in instruments:
            raise unknown_name("instrument", instrument, instruments)
        parts = {name for owner, name in names if instrument in (None, owner)}
        if part is not None and part not in parts:
            of = "part" if instrument is None else f"part of {instrument!r}"
            raise unknown_name(of, part, parts)


def _column(table: pa.Table, name: str) -> np.ndarray:
    return table[name].to_numpy()


def _measured(table: pa.Table) -> np.ndarray:
    """Mask of the rows that hold a measurement, as against why there is none."""
    codes, words = codes_of(table["status"])
    held = [not word.startswith(("skipped", "unsupported")) for word in words]
    return np.ones(len(codes), bool) if all(held) else np.array(held)[codes]


def _join(pieces: list[tuple[int, np.ndarray, np.ndarray]]) -> Series:
    """One series from its parts (segment, steps, values), oldest segment first."""
    steps = np.concatenate([np.zeros(0, np.int64), *(piece[1] for piece in pieces)])
    values = np.concatenate([np.zeros(0), *(piece[2] for piece in pieces)])
    segments = np.repeat([p[0] for p in pieces], [len(p[1]) for p in pieces]).astype(np.int64)
    if (steps[1:] < steps[:-1]).any():
        order = np.argsort(steps, kind="stable")
        steps, values, segments = steps[order], values[order], segments[order]
    if (segments[1:] != segments[:-1]).any():
        newest = segments[np.searchsorted(steps, steps, side="right") - 1]
        steps, values = steps[segments == newest], values[segments == newest]
    return steps, values
