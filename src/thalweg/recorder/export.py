"""A run as one file that other tools read: Parquet, CSV, or TensorBoard events.

What is written appears whole under its name or not at all.
"""

from __future__ import annotations

import datetime
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import Any, Literal, get_args

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from thalweg.errors import ThalwegError, unknown_name
from thalweg.recorder.run import Run

__all__ = ["Format", "export"]

Format = Literal["parquet", "csv", "tensorboard"]


def export(
    run: Run | str | os.PathLike[str],
    to: Format = "parquet",
    out: str | os.PathLike[str] = "",
    *,
    overwrite: bool = False,
) -> int:
    """Write all measurements of a run in another format.

    ``parquet`` and ``csv`` hold the measurement table. ``tensorboard`` is a directory of event
    files, one for each rank; a tag is ``instrument/part``, and rows without a value are left out.

    Args:
        run: the run or its directory.
        to: the format.
        out: the file to write, for TensorBoard the directory.
        overwrite: replace what is there.

    Returns:
        Number of rows written.

    Raises:
        ValueError: if ``out`` is not given.
        ThalwegError: if the format is unknown, or ``out`` exists or cannot be written.
    """
    if to not in get_args(Format):
        raise unknown_name("format", to, get_args(Format))
    if not os.fspath(out):
        raise ValueError("export: needs the path to write to; got none. Give out=")
    run, target = run if isinstance(run, Run) else Run(run), Path(out)
    if target.exists() and not overwrite:
        raise ThalwegError(
            f"{target}: is there already. Choose another name, or overwrite it (--overwrite)"
        )
    if target.exists() and to == "tensorboard" and not _only_events(target):
        raise ThalwegError(f"{target}: expected a directory of event files to replace; it is not")
    if target.is_dir() and to != "tensorboard":
        raise ThalwegError(f"{target}: expected a file to write; it is a directory")
    write_events = _tensorboard_writer() if to == "tensorboard" else None
    table = run.table()
    try:
        with _appearing(target) as tmp:
            if write_events is not None:
                return write_events(table, tmp, _created(run))
            if to == "csv":
                pyarrow.csv.write_csv(table, tmp)
            else:
                pyarrow.parquet.write_table(table, tmp, compression="zstd")
    except OSError as error:
        raise ThalwegError(f"{target}: cannot be written: {error.strerror or error}") from None
    return table.num_rows


@contextmanager
def _appearing(target: Path) -> Iterator[Path]:
    """A name beside ``target`` to write to, which takes its place at the end, or goes."""
    tmp = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        yield tmp
        if target.is_dir():
            shutil.rmtree(target)
        tmp.replace(target)
    finally:
        if tmp.is_dir():
            shutil.rmtree(tmp)
        else:
            tmp.unlink(missing_ok=True)


def _only_events(path: Path) -> bool:
    files = [file for file in path.rglob("*") if not file.is_dir()]
    return path.is_dir() and all(".tfevents." in file.name for file in files)


def _created(run: Run) -> float:
    """When the run began, in seconds of the epoch; 0 if the header does not say."""
    try:
        return datetime.datetime.fromisoformat(run.header["created"]).timestamp()
    except (KeyError, TypeError, ValueError):
        return 0.0


def _tensorboard_writer() -> Any:
    """The function that writes event files, once TensorBoard is known to import."""
    try:
        from tensorboard.compat.proto import event_pb2
        from tensorboard.summary.writer.record_writer import RecordWriter
    except Exception as error:  # a broken neighbour of it (protobuf) raises anything
        raise ThalwegError(
            f"export to TensorBoard needs it installed; got {error}. pip install tensorboard"
        ) from None
    event_class: Any = event_pb2.Event  # pyright: ignore[reportAttributeAccessIssue]

    def write(table: pa.Table, directory: Path, created: float) -> int:
        directory.mkdir(parents=True)
        ranks = table["rank"].unique().to_pylist()
        count = 0
        for rank in ranks or [0]:
            folder = directory / f"rank-{rank}" if len(ranks) > 1 else directory
            folder.mkdir(exist_ok=True)
            with (folder / f"events.out.tfevents.{int(created)}.thalweg").open("wb") as file:
                writer = RecordWriter(file)
                first = event_class(wall_time=created, file_version="brain.Event:2")
                writer.write(first.SerializeToString())
                # One event for all that was measured at one moment.
                for (step, time_s), rows in groupby(_values(table, rank), key=lambda row: row[:2]):
                    event = event_class(wall_time=created + time_s, step=step)
                    for _, _, instrument, part, value in rows:
                        tag = f"{instrument}/{part}" if part else instrument
                        event.summary.value.add(tag=tag, simple_value=value)
                        count += 1
                    writer.write(event.SerializeToString())
        return count

    return write


def _values(table: pa.Table, rank: int) -> Iterator[tuple[int, float, str, str, float]]:
    columns = ["step", "time_s", "instrument", "part", "value", "rank", "status"]
    for batch in table.select(columns).to_batches(max_chunksize=65_536):
        for *row, owner, status in zip(*(column.to_pylist() for column in batch), strict=True):
            if owner == rank and status in ("ok", "nonfinite"):
                yield tuple(row)
