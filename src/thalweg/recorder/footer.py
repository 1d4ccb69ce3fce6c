"""What a compacted part says of its series in its own footer: their names and how long they are.

Reading names off the columns takes 30 ms for every million rows, and finding the rows of a series
by its name as long again. The footer of a Parquet file is written with its data and vanishes with
it, so what it says can never be of another file. It has no checksum of its own, hence ours: one
that fails it, or that an older version wrote, says nothing, and the columns are read.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence

import pyarrow.parquet as pq

__all__ = ["footer_entry", "told_series"]

_KEY = "thalweg.series"
Name = tuple[str, str]


def footer_entry(names: Sequence[Name], rows: Sequence[int]) -> dict[str, str]:
    """What is written into a footer.

    Args:
        names: (instrument, part) of each series, in the order of the file.
        rows: how many each has.

    Example:
        >>> footer_entry([("loss", "")], [4])
        {'thalweg.series': '97e97019 [["loss","",4]]'}
    """
    listed = [[*name, n] for name, n in zip(names, rows, strict=True)]
    text = json.dumps(listed, separators=(",", ":"))
    return {_KEY: f"{zlib.crc32(text.encode()):08x} {text}"}


def told_series(meta: pq.FileMetaData) -> dict[Name, tuple[int, int]] | None:
    """First row and end of every (instrument, part); None where the footer does not tell.

    Args:
        meta: the footer of a Parquet file of measurements.
    """
    entries: Mapping[bytes, bytes] = meta.metadata or {}
    check, _, text = entries.get(_KEY.encode(), b"").partition(b" ")
    if not text or check != f"{zlib.crc32(text):08x}".encode():
        return None
    found, begin = {}, 0
    for instrument, part, rows in json.loads(text):
        found[instrument, part] = (begin, begin + rows)
        begin += rows
    return found if begin == meta.num_rows else None
