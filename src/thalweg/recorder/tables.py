"""The measurement files of a run: names, schema, compaction, and reading that bears damage.

A segment writes Arrow IPC *streams* while it is open, cut into parts, and each finished part
becomes an ordinary Parquet file. In the Parquet file the rows of one series (instrument, part) lie
together, series in the order in which they first appeared and rows of a series in write order, and
row groups end where a series ends: the statistics of a row group then tell whether it holds what is
asked for, and one series out of thousands is read by touching a few groups.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from thalweg.recorder.footer import footer_entry

__all__ = [
    "DAMAGE",
    "MEASUREMENTS",
    "PartFile",
    "compact",
    "list_parts",
    "read_part",
    "read_stream",
]

#: The measurement table (design.md, *Fixed shapes*).
MEASUREMENTS = pa.schema(
    [
        ("step", pa.int64()),
        ("time_s", pa.float64()),
        ("rank", pa.int32()),
        ("instrument", pa.string()),
        ("part", pa.string()),
        ("value", pa.float64()),
        ("uncertainty", pa.float64()),
        ("status", pa.string()),
    ]
)
#: The end of an Arrow IPC stream: a continuation marker and a length of zero.
END_OF_STREAM = b"\xff\xff\xff\xff\0\0\0\0"
#: All that Arrow raises on damaged bytes (ArrowInvalid is a ValueError, ArrowIOError an OSError).
DAMAGE = (pa.ArrowException, OSError, ValueError, LookupError, MemoryError)
#: How a note on a crash's ordinary trace begins, as against damage.
TORN = "torn tail"
# What a crash leaves is a prefix of a sound stream; these are Arrow's words for that.
_TORN_WORDS = re.compile(r"Expected to (read|be able)|bytes available|null or length 0")

_NAME = re.compile(r"r(\d+)-s(\d+)-(\d+)\.(arrows|parquet)")
_REPEATING = ["time_s", "rank", "instrument", "part", "uncertainty", "status"]
_STRINGS = ["instrument", "part", "status"]
# Whole series are put together until a row group has this many rows: few enough that one series of
# a wide run costs a millisecond a file, enough that the footer stays small beside the data.
_GROUP_ROWS = 16_384
# Above this a row group is cut even inside a series.
_MAX_GROUP_ROWS = 262_144
# Steps that no training reaches, on either side.
_FAR = (-(2**63), 2**63 - 1)


@dataclass(frozen=True, order=True)
class PartFile:
    """One part of the measurements: who wrote it, and the file that holds it now."""

    rank: int
    segment: int
    part: int
    path: Path

    def at(self, suffix: str) -> Path:
        """The path of this part with another suffix, as in ``.at(".parquet")``."""
        return self.path.with_suffix(suffix)


def part_name(rank: int, segment: int, part: int) -> str:
    """File name, without suffix, of one part.

    Example:
        >>> part_name(0, 1, 2)
        'r0-s1-0002'
    """
    return f"r{rank}-s{segment}-{part:04d}"


def list_parts(directory: Path) -> list[PartFile]:
    """The parts in a ``measurements`` directory by rank, segment, part; Parquet before stream.

    A writer may compact a part in the middle of a listing, which can then miss both files; so the
    directory is listed until two listings agree.
    """
    last = None
    while (found := _list_once(directory)) != last:
        last = found
    return sorted(found.values())


def _list_once(directory: Path) -> dict[tuple[int, int, int], PartFile]:
    found: dict[tuple[int, int, int], PartFile] = {}
    # ".arrows" sorts before ".parquet", which takes its place.
    for path in sorted(directory.iterdir()) if directory.is_dir() else []:
        if match := _NAME.fullmatch(path.name):
            rank, segment, part = map(int, match.groups()[:3])
            found[rank, segment, part] = PartFile(rank, segment, part, path)
    return found


def read_stream(path: Path, schema: pa.Schema) -> tuple[pa.Table, str]:
    """The sound batches of an Arrow IPC stream, and what was dropped ("" if nothing).

    Reads the file as it is now: a stream without its end, torn in the last batch or overwritten
    with noise is read up to the first batch that does not validate.

    Args:
        path: the stream.
        schema: what it has to hold, exactly.

    Raises:
        FileNotFoundError: if the file is gone (the writer may have compacted it).
    """
    # Read, not mapped: a file that shrinks under a map kills the process with SIGBUS.
    data = path.read_bytes()
    source = pa.BufferReader(data)
    batches: list[pa.RecordBatch] = []
    good, why = 0, ""
    try:
        reader = pa.ipc.open_stream(source)
        if not reader.schema.equals(schema):
            return schema.empty_table(), f"not the expected schema, {len(data)} bytes dropped"
        good = source.tell()
        while True:
            batch = reader.read_next_batch()
            batch.validate(full=True)
            batches.append(batch)
            good = source.tell()
    except StopIteration:
        good = source.tell()
    except DAMAGE as error:
        # A stream that was cut, not overwritten, begins with its schema.
        head = good or len(data) < schema.serialize().size
        torn = head and _TORN_WORDS.search(str(error))
        why = TORN if torn else "damaged"
    table = pa.Table.from_batches(batches, schema)
    if good == len(data):
        return table, ""
    return table, f"{why or 'bytes after its end'}, {len(data) - good} bytes dropped"


def read_part(
    file: PartFile,
    columns: list[str],
    *,
    instrument: str | None = None,
    part: str | Collection[str] | None = None,
    first: int | None = None,
    last: int | None = None,
) -> tuple[pa.Table, str]:
    """Some columns of one part, strings as dictionaries, and what was dropped ("" if nothing).

    Args:
        file: as listed.
        columns: which columns, in this order.
        instrument: keep rows of this instrument only.
        part: keep rows of this part, or of these parts, only.
        first: rows of earlier steps may be left out; where they lie apart they are not read.
        last: likewise of later steps.

    Raises:
        FileNotFoundError: if the file is gone (the writer may have compacted it).
    """
    wanted = {
        name: {value} if isinstance(value, str) else set(value)
        for name, value in (("instrument", instrument), ("part", part))
        if value is not None
    }
    steps = (_FAR[0] if first is None else first, _FAR[1] if last is None else last)
    needed = [*columns, *(name for name in wanted if name not in columns)]
    if file.path.suffix == ".parquet":
        try:
            table, why = _read_parquet(file.path, needed, wanted, steps), ""
        except FileNotFoundError:
            raise
        except DAMAGE as error:
            first_line = str(error).splitlines()[0] if str(error) else type(error).__name__
            table, why = _as_read(MEASUREMENTS.empty_table(), needed), f"damaged: {first_line}"
            if (stream := file.at(".arrows")).exists():
                table = _as_read(read_stream(stream, MEASUREMENTS)[0], needed)
    else:
        table, why = read_stream(file.path, MEASUREMENTS)
        table = _as_read(table, needed)
    keep = None
    for name, values in wanted.items():
        mask = _is_one_of(table[name], values)
        keep = mask if keep is None else keep & mask
    if keep is not None and not keep.all():
        table = table.filter(pa.array(keep))
    return table.select(columns), why


@contextmanager
def open_part(path: Path) -> Iterator[pq.ParquetFile]:
    """A Parquet file of measurements.

    Raises:
        FileNotFoundError: if the file is gone.
        ValueError: if it holds something else; or another of ``DAMAGE`` if it cannot be read.
    """
    with pq.ParquetFile(
        path, read_dictionary=_STRINGS, page_checksum_verification=True, pre_buffer=False
    ) as file:
        if not file.schema_arrow.remove_metadata().equals(_as_read(None, MEASUREMENTS.names)):
            raise ValueError("not the measurement schema")
        yield file


def _read_parquet(
    path: Path, columns: list[str], wanted: dict[str, set[str]], steps: tuple[int, int]
) -> pa.Table:
    with open_part(path) as file:
        meta = file.metadata
        groups: Iterable[int] = range(meta.num_row_groups)
        if steps != _FAR:
            groups = [g for g in groups if may_lie(meta.row_group(g).column(0), steps)]
        for name, values in wanted.items():
            column = MEASUREMENTS.get_field_index(name)
            groups = [g for g in groups if _may_hold(meta.row_group(g).column(column), values)]
        groups = list(groups)
        table = file.read_row_groups(groups, columns=columns, use_threads=len(groups) > 8)
    table.validate(full=True)
    return table.select(columns)


def may_lie(column: pq.ColumnChunkMetaData, steps: tuple[int, int]) -> bool:
    """Whether a row group may hold steps from the first to the last of ``steps``."""
    stats = column.statistics
    return (
        stats is None or not stats.has_min_max or (stats.min <= steps[1] and steps[0] <= stats.max)
    )


def _may_hold(column: pq.ColumnChunkMetaData, values: set[str]) -> bool:
    stats = column.statistics
    if stats is None or not stats.has_min_max:
        return True
    least, most = stats.min, stats.max
    return any(least <= value <= most for value in values)


def _as_read(table: pa.Table | None, columns: list[str]) -> pa.Table | pa.Schema:
    schema = pa.schema(
        [
            pa.field(name, pa.dictionary(pa.int32(), pa.string()))
            if name in _STRINGS
            else MEASUREMENTS.field(name)
            for name in columns
        ]
    )
    return schema if table is None else table.select(columns).cast(schema)


def _is_one_of(column: pa.ChunkedArray, values: set[str]) -> np.ndarray:
    """Mask of the rows of a dictionary column that hold one of some values."""
    masks = [np.zeros(0, bool)]
    for chunk in column.chunks:
        wanted = np.array([word in values for word in chunk.dictionary.to_pylist()] or [False])
        masks.append(wanted[chunk.indices.to_numpy(zero_copy_only=False)])
    return np.concatenate(masks)


def codes_of(column: pa.ChunkedArray) -> tuple[np.ndarray, list[str]]:
    """A string column as one array of codes and the words that they stand for, as first met."""
    if not pa.types.is_dictionary(column.type):
        column = column.dictionary_encode()
    chunks = column.unify_dictionaries().chunks
    if not chunks:
        return np.zeros(0, np.int32), []
    codes = [chunk.indices.to_numpy(zero_copy_only=False) for chunk in chunks]
    return np.concatenate(codes), chunks[-1].dictionary.to_pylist()


def series_order(table: pa.Table) -> tuple[np.ndarray | None, np.ndarray, list[tuple[str, str]]]:
    """How to put the rows of one part series by series: order, where each starts, its names.

    Returns:
        The row order (None if the rows lie so already, as in a compacted part), the start of each
        series in it and the total at the end (series + 1,), and (instrument, part) of each. Series
        come as they first appear, rows of a series as they were written.
    """
    (a, instruments), (b, parts) = codes_of(table["instrument"]), codes_of(table["part"])
    if not len(a):
        return None, np.zeros(1, np.int64), []
    pair = a.astype(np.int64) * len(parts) + b
    starts = np.flatnonzero(np.concatenate([[True], pair[1:] != pair[:-1]]))
    keys, order = pair[starts], None
    if len(np.unique(keys)) < len(keys):  # a series is met again further down: a stream
        present, first, inverse = np.unique(pair, return_index=True, return_inverse=True)
        by_appearance = np.argsort(first)
        place = np.empty(len(first), np.uint16 if len(first) < 65536 else np.int64)
        place[by_appearance] = np.arange(len(first))
        placed = place[inverse]  # 16 bits where they do: numpy sorts those by radix
        order = np.argsort(placed, kind="stable")
        keys = present[by_appearance]
        starts = np.searchsorted(placed[order], np.arange(len(keys)))
    names = [(instruments[k // len(parts)], parts[k % len(parts)]) for k in keys.tolist()]
    return order, np.append(starts, len(pair)), names


def compact(stream: Path) -> Path:
    """Turn a finished stream into a Parquet file beside it, and remove the stream.

    The Parquet file appears whole, under its name, before the stream goes: whoever reads finds one
    of the two at any moment, and a crash in between loses nothing.

    Returns:
        The Parquet file.

    Raises:
        OSError: if the disk fails or the stream is damaged, not just torn; it is then still there.
    """
    table, why = read_stream(stream, MEASUREMENTS)
    if why and not why.startswith(TORN):
        raise OSError(f"{stream.name}: {why}; kept as it is")
    target, tmp = stream.with_suffix(".parquet"), stream.with_suffix(".parquet.tmp")
    order, starts, names = series_order(table)
    if order is not None:
        table = table.take(pa.array(order))
    try:
        with tmp.open("wb") as file:
            with pq.ParquetWriter(
                file,
                MEASUREMENTS,
                compression="zstd",
                use_dictionary=_REPEATING,  # pyright: ignore[reportArgumentType]
                column_encoding={"step": "DELTA_BINARY_PACKED"},
                write_page_checksum=True,
                store_schema=False,
            ) as writer:
                begin = 0
                for end in starts[1:].tolist():
                    if end - begin >= _GROUP_ROWS or end == table.num_rows:
                        writer.write_table(table[begin:end], row_group_size=_MAX_GROUP_ROWS)
                        begin = end
                writer.add_key_value_metadata(footer_entry(names, np.diff(starts).tolist()))
            file.flush()
            os.fsync(file.fileno())
        tmp.replace(target)
    except BaseException:
        tmp.unlink(missing_ok=True)
        raise
    stream.unlink()
    return target
