"""Is a run whole? Every file of it is opened and held against what it has to be.

*Damage* is what no crash of the training explains: wrong bytes, wrong schema, a missing part. A
*note* is what a reader should know but need not worry about: a torn tail, an unfinished run.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from thalweg.errors import ThalwegError
from thalweg.recorder.kept import FOLDER, KEPT_NAME, STATE_NAME, read_meta
from thalweg.recorder.run_files import list_events, read_events, read_header
from thalweg.recorder.stored_weights import SKETCHES, SKETCHES_NAME, SNAPSHOT_NAME
from thalweg.recorder.tables import (
    MEASUREMENTS,
    TORN,
    PartFile,
    codes_of,
    list_parts,
    read_part,
    read_stream,
    series_order,
)

__all__ = ["Problem", "check"]

_HEADER_KEYS = ("created", "status", "segments")


@dataclass(frozen=True)
class Problem:
    """One finding of `check`.

    Attributes:
        file: path inside the run.
        severity: ``damage`` or ``note``.
        message: what is wrong.
    """

    file: str
    severity: Literal["damage", "note"]
    message: str


def check(path: str | os.PathLike[str]) -> list[Problem]:
    """All that is wrong or remarkable with a run, damage first; empty if it is whole.

    Args:
        path: the directory of the run.

    Raises:
        ThalwegError: if there is no ``run.json``: then it is no run at all.
    """
    run = Path(path)
    if not (run / "run.json").exists():
        read_header(run)  # raises, and says how
    found = [*_header(run), *_measurements(run / "measurements"), *_events(run)]
    found += [*_snapshots(run / "weights"), *_sketches(run / "weights")]
    found += [*_blackbox(run / FOLDER), *_unknown(run)]
    return sorted(found, key=lambda problem: (problem.severity, problem.file))


def _header(run: Path) -> Iterator[Problem]:
    try:
        header = read_header(run)
    except ThalwegError as error:
        yield Problem("run.json", "damage", str(error))
        return
    missing = [key for key in _HEADER_KEYS if key not in header]
    if missing:
        yield Problem("run.json", "damage", f"lacks {', '.join(missing)}")
    segments = header.get("segments")
    last = segments[-1] if isinstance(segments, list) and segments else {}
    if header.get("status") == "running" and isinstance(last, dict) and not _may_live(last):
        yield Problem("run.json", "note", "unfinished: its process is gone, so it was killed")


def _may_live(segment: dict[str, Any]) -> bool:
    """Whether the process of a segment can still be there: so it is if it is on another host."""
    pid = segment.get("pid")
    if segment.get("host") not in (None, socket.gethostname()) or not isinstance(pid, int):
        return True
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def _measurements(directory: Path) -> Iterator[Problem]:
    next_part: dict[tuple[int, int], int] = {}
    last_step: dict[tuple[int, int, str, str], int] = {}
    for file in list_parts(directory):
        name, writer = f"measurements/{file.path.name}", (file.rank, file.segment)
        if file.part > next_part.get(writer, 0):
            yield Problem(name, "damage", f"part {next_part.get(writer, 0)} before it is missing")
        next_part[writer] = file.part + 1
        try:
            table, why = read_part(file, MEASUREMENTS.names)
        except FileNotFoundError:  # compacted meanwhile
            file = PartFile(*writer, file.part, file.at(".parquet"))
            table, why = read_part(file, MEASUREMENTS.names)
        except OSError as error:
            yield Problem(name, "damage", f"cannot be read: {error.strerror}")
            continue
        if why:
            yield Problem(name, "note" if why.startswith(TORN) else "damage", why)
        if (table["rank"].to_numpy() != file.rank).any():
            yield Problem(name, "damage", f"holds rows of another rank than {file.rank}")
        for word in codes_of(table["status"])[1]:
            if word not in ("ok", "nonfinite") and not word.startswith(("skipped:", "unsupported")):
                yield Problem(name, "damage", f"unknown status {word!r}")
        order, starts, series = series_order(table)
        steps = table["step"].to_numpy()
        steps = steps if order is None else steps[order]
        for (instrument, part), begin, end in zip(series, starts[:-1], starts[1:], strict=True):
            own, key = steps[begin:end], (*writer, instrument, part)
            if own[0] < last_step.get(key, own[0]) or (own[1:] < own[:-1]).any():
                of = f"{instrument} {part!r}" if part else instrument
                yield Problem(name, "damage", f"steps of {of} go backwards")
            last_step[key] = int(own[-1])


def _events(run: Path) -> Iterator[Problem]:
    for path in list_events(run):
        _, why = read_events(path)
        if why:
            yield Problem(path.name, "note" if why.startswith(TORN) else "damage", why)


def _snapshots(directory: Path) -> Iterator[Problem]:
    from safetensors import SafetensorError, safe_open

    for path in sorted(directory.glob("*.safetensors")):
        try:
            with safe_open(path, framework="np") as file:
                if not list(file.keys()):
                    yield Problem(f"weights/{path.name}", "note", "holds no tensor")
        except (SafetensorError, OSError, ValueError) as error:
            yield Problem(f"weights/{path.name}", "damage", f"no sound snapshot: {error}")


def _sketches(directory: Path) -> Iterator[Problem]:
    for path in sorted(directory.glob("sketches-*.arrows")):
        name = f"weights/{path.name}"
        table, why = read_stream(path, SKETCHES)
        if why:
            yield Problem(name, "note" if why.startswith(TORN) else "damage", why)
        if not np.isfinite(table["scale"].to_numpy()).all():
            yield Problem(name, "note", "holds sketches of weights that were not finite")
        kinds: dict[str, set[tuple[int, int, int]]] = {}
        last: dict[str, int] = {}
        columns = (table[column].to_pylist() for column in ("step", "part", "seed", "dim"))
        sizes = [len(row) for chunk in table["values"].chunks for row in chunk]
        backwards = set()
        for *row, size in zip(*columns, sizes, strict=True):
            step, part, seed, dim = row
            kinds.setdefault(part, set()).add((seed, dim, size))
            if step < last.get(part, step):
                backwards.add(part)
            last[part] = step
        for part, kind in kinds.items():
            if len(kind) > 1:
                yield Problem(name, "damage", f"part {part!r} changes its projection midway")
        for part in sorted(backwards):
            yield Problem(name, "damage", f"steps of part {part!r} go backwards")


def _blackbox(directory: Path) -> Iterator[Problem]:
    """Every file opens, and what was kept has the state that it starts from."""
    for path in sorted(directory.glob("*.safetensors")):
        name = f"{FOLDER}/{path.name}"
        try:
            meta = read_meta(path)
        except ThalwegError as error:
            yield Problem(name, "damage", str(error).removeprefix(f"{path}: "))
            continue
        if KEPT_NAME.fullmatch(path.name):
            state = meta.get("state")
            if not isinstance(state, str) or not (directory / state).is_file():
                yield Problem(name, "damage", f"the state it starts from, {state}, is missing")


def _unknown(run: Path) -> Iterator[Problem]:
    parts = list_parts(run / "measurements")
    known = {file.path for file in parts} | {run / "run.json", *list_events(run)}
    known.add(run / "report.html")  # where `thalweg report` writes unless told otherwise
    for stream in (file.at(".arrows") for file in parts if file.path.suffix == ".parquet"):
        if stream.exists():
            known.add(stream)
            name = f"measurements/{stream.name}"
            yield Problem(name, "note", "left over from compaction; the Parquet file is read")
    for path in sorted(run.rglob("*")):
        stored = SNAPSHOT_NAME.fullmatch(path.name) or SKETCHES_NAME.fullmatch(path.name)
        steps = STATE_NAME.fullmatch(path.name) or KEPT_NAME.fullmatch(path.name)
        folder = "weights" if stored else FOLDER if steps else None
        if path.is_file() and path not in known and path.parent.name != folder:
            what = "left over from a write that did not end" if ".tmp" in path.name else "unknown"
            yield Problem(path.relative_to(run).as_posix(), "note", f"{what}; not read")
