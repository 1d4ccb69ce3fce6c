"""The series of runs as charts ask for them: few columns of a stretch, with every extreme in them.

A run of 100,000 steps and 200 series does not fit beside others in memory, so of every series an
overview of some thousand columns is kept, and a stretch that needs finer ones is read from the
files that hold it.
"""

from __future__ import annotations

import contextlib
import re
import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import numpy as np

from thalweg.errors import ThalwegError
from thalweg.recorder.run import Run
from thalweg.recorder.run_files import measured_state
from thalweg.report.decimate import Columns, Series, decimate
from thalweg.web.run_folder import RunFolder

__all__ = ["MOST_SERIES", "RunData", "plain", "version_of"]

#: Series in one request, and columns of each.
MOST_SERIES = 24
MOST_COLUMNS = 4000
#: Columns of a series that are kept; a stretch that needs finer ones is read again.
OVERVIEW = 8192
#: Bytes of columns that are kept, and runs whose names are.
KEPT_BYTES = 64_000_000
KEPT_RUNS = 16


class RunData:
    """Reads series of the runs of a folder and keeps the last used ones.

    Args:
        folder: where the runs lie.
    """

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder
        self._kept: OrderedDict[tuple[str, str, str], tuple[str, Columns]] = OrderedDict()
        self._names: OrderedDict[str, tuple[str, dict[str, list[str]]]] = OrderedDict()
        # One read at a time: two of them need twice the memory and are no faster on few cores.
        self._lock = threading.Lock()

    def names(self, name: str) -> dict[str, list[str]]:
        """Instrument to the parts that it measured.

        Raises:
            ThalwegError: if there is no such run.
        """
        run = self.folder.open(name)
        version = version_of(run)
        with self._lock:
            if name not in self._names or self._names[name][0] != version:
                found: dict[str, list[str]] = {}
                for instrument, part in sorted(run.names, key=_natural):
                    found.setdefault(instrument, []).append(part)
                self._names[name] = (version, found)
                if len(self._names) > KEPT_RUNS:
                    self._names.popitem(last=False)
            self._names.move_to_end(name)
            return self._names[name][1]

    def columns(
        self,
        name: str,
        instrument: str,
        parts: Sequence[str],
        *,
        first: int | None = None,
        last: int | None = None,
        columns: int = 800,
    ) -> list[tuple[str, Columns]]:
        """Some series of an instrument, drawn over a stretch of steps.

        Args:
            name: of the run.
            instrument: its name.
            parts: at most ``MOST_SERIES``.
            first: step from which on; default the first.
            last: step up to which, inclusive; default the last.
            columns: at most this many.

        Raises:
            ThalwegError: if there is no such run or series, or too much is asked for.
        """
        if not 0 < len(parts) <= MOST_SERIES:
            raise ThalwegError(f"between 1 and {MOST_SERIES} series at once, got {len(parts)}")
        if not 0 < columns <= MOST_COLUMNS:
            raise ThalwegError(f"between 1 and {MOST_COLUMNS} columns, got {columns}")
        run = self.folder.open(name)
        with self._lock:
            overviews = self._overviews(run, name, instrument, parts)
            low = min((int(c.steps[0]) for c in overviews.values() if len(c)), default=0)
            high = max((c.last for c in overviews.values() if len(c)), default=0)
            a, b = (low if first is None else first), (high if last is None else last)
            coarse = [
                part
                for part, c in overviews.items()
                if c.decimated and ((a <= c.steps) & (c.steps <= b)).sum() < columns
            ]
            fine: dict[str, Series] = {}
            if coarse and (a > low or b < high):
                beyond = (b - a) // 50 + 1  # lines run on to the edges of the picture
                fine = run.some_series(instrument, coarse, first=a - beyond, last=b + beyond)
            return [
                (
                    part,
                    decimate(*fine[part], columns)
                    if part in fine
                    else _again(whole, a, b, columns),
                )
                for part, whole in overviews.items()
            ]

    def expect(self, name: str, instrument: str, parts: Sequence[str]) -> None:
        """Begin to read what will be asked for in a moment, while the browser reads the page.

        Args:
            name: of the run.
            instrument: its name.
            parts: those of its first chart.
        """

        def read() -> None:
            # Whoever asks for the chart is told what is wrong with it.
            with contextlib.suppress(ThalwegError):
                self.columns(name, instrument, parts)

        if not self._lock.locked():  # else somebody reads already, and this would only queue
            threading.Thread(target=read, daemon=True).start()

    def _overviews(
        self, run: Run, name: str, instrument: str, parts: Sequence[str]
    ) -> dict[str, Columns]:
        """Every part in ``OVERVIEW`` columns over the whole run."""
        version = version_of(run)
        found = {p: self._kept.get((name, instrument, p), ("", None)) for p in parts}
        missing = [p for p, (seen, _) in found.items() if seen != version]
        if missing:
            for part, series in run.some_series(instrument, missing).items():
                self._kept[name, instrument, part] = (version, decimate(*series, OVERVIEW))
        overviews: dict[str, Columns] = {}
        for part in parts:
            self._kept.move_to_end((name, instrument, part))
            overviews[part] = self._kept[name, instrument, part][1]
        while len(self._kept) > len(parts) and self._held() > KEPT_BYTES:
            self._kept.popitem(last=False)
        return overviews

    def _held(self) -> int:
        return sum(5 * c.steps.nbytes for _, c in self._kept.values())


def _again(whole: Columns, first: int, last: int, columns: int) -> Columns:
    """Fewer columns for those of a stretch."""
    begin = max(int(np.searchsorted(whole.steps, first)) - 1, 0)
    end = int(np.searchsorted(whole.steps, last, "right")) + 1
    rows = slice(begin, end)
    steps = whole.steps[rows]
    if len(steps) <= columns and not begin and end >= len(whole):
        return whole
    middle = decimate(steps, whole.middle[rows], columns)
    low = decimate(steps, whole.low[rows], columns).low
    high = decimate(steps, whole.high[rows], columns).high
    bad = decimate(steps, np.where(whole.nonfinite[rows] > 0, np.nan, 0.0), columns).nonfinite
    points = len(steps) if not whole.decimated else whole.points * len(steps) // len(whole)
    banded = whole.banded or middle.banded
    last = whole.last if end >= len(whole) else int(whole.steps[end]) - 1
    return Columns(middle.steps, low, middle.middle, high, bad, points, banded, last)


def _natural(name: tuple[str, str]) -> tuple[str, list[str | int]]:
    """Block 2 before block 10; words and numbers alternate, so that like meets like."""
    pieces = re.split(r"(\d{1,9})", name[1])
    return name[0], [int(piece) if k % 2 else piece for k, piece in enumerate(pieces)]


def version_of(run: Run) -> str:
    """Changes whenever a file of measurements does."""
    return measured_state(run.path)


def plain(drawn: Sequence[tuple[str, Columns]]) -> list[dict[str, Any]]:
    """Series as JSON: six digits are more than a screen shows; null where nothing is finite."""
    return [
        {
            "part": part,
            "steps": c.steps.tolist(),
            "low": _short(c.low) if c.banded else None,
            "middle": _short(c.middle),
            "high": _short(c.high) if c.banded else None,
            "nonfinite": c.steps[c.nonfinite > 0].tolist(),
            "points": c.points,
            "last": c.last,
        }
        for part, c in drawn
    ]


def _short(values: np.ndarray) -> list[float | None]:
    return [float(f"{v:.6g}") if np.isfinite(v) else None for v in values.tolist()]
