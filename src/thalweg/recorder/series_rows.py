"""Some series of a compacted part, read by where its footer says that they lie.

Neither names nor status are read, only the steps and values of the row groups that hold the series:
half of what a search by name costs. Axes: `T` rows of one series in this part.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import pyarrow.parquet as pq

from thalweg.recorder.footer import told_series
from thalweg.recorder.tables import DAMAGE, MEASUREMENTS, PartFile, may_lie, open_part

__all__ = ["read_rows", "told_names"]

Pieces = dict[str, tuple[np.ndarray, np.ndarray]]


def told_names(file: PartFile) -> set[tuple[str, str]] | None:
    """The (instrument, part) names in the footer of a part; None where it does not tell.

    Raises:
        FileNotFoundError: if the file is gone (the writer may have compacted it).
    """
    if file.path.suffix != ".parquet":
        return None
    try:
        told = told_series(pq.read_metadata(file.path))
    except FileNotFoundError:
        raise
    except DAMAGE:
        return None
    return None if told is None else set(told)


def read_rows(
    file: PartFile, instrument: str, parts: Collection[str], steps: tuple[int, int]
) -> Pieces | None:
    """Steps (T,) int64 and values (T,) float64 of some parts of an instrument.

    Args:
        file: as listed.
        instrument: its name.
        parts: which of its parts; one that is not in this file is left out.
        steps: first and last; rows of others may be left out.

    Returns:
        None where the footer does not tell, where rows say why they hold no measurement, or where
        the file is damaged: then it is to be read by name, which says what is wrong.

    Raises:
        FileNotFoundError: if the file is gone (the writer may have compacted it).
    """
    if file.path.suffix != ".parquet":
        return None
    try:
        with open_part(file.path) as opened:
            return _rows(opened, instrument, parts, steps)
    except FileNotFoundError:
        raise
    except DAMAGE:
        return None


def _rows(
    opened: pq.ParquetFile, instrument: str, parts: Collection[str], steps: tuple[int, int]
) -> Pieces | None:
    meta = opened.metadata
    told = told_series(meta)
    if told is None:
        return None
    spans = {part: told[instrument, part] for part in parts if (instrument, part) in told}
    groups = [meta.row_group(g) for g in range(meta.num_row_groups)]
    ends = np.cumsum([group.num_rows for group in groups]).tolist()
    begins = [end - group.num_rows for end, group in zip(ends, groups, strict=True)]
    wanted = [
        g
        for g, group in enumerate(groups)
        if any(begin < ends[g] and begins[g] < end for begin, end in spans.values())
        and may_lie(group.column(0), steps)
    ]
    if not wanted:
        return {}
    if not all(_measured(groups[g]) for g in wanted):
        return None
    table = opened.read_row_groups(wanted, columns=["step", "value"], use_threads=len(wanted) > 8)
    table.validate(full=True)
    read = table["step"].to_numpy(), table["value"].to_numpy()
    found: Pieces = {}
    for part, (begin, end) in spans.items():
        rows, at = [], 0  # ``at``: where a group begins in what was read
        for g in wanted:
            a, b = max(begin, begins[g]), min(end, ends[g])
            if a < b:
                rows.append(slice(at + a - begins[g], at + b - begins[g]))
            at += ends[g] - begins[g]
        if rows:
            found[part] = (
                np.concatenate([read[0][row] for row in rows]),
                np.concatenate([read[1][row] for row in rows]),
            )
    return found


def _measured(group: pq.RowGroupMetaData) -> bool:
    """Whether every row holds a measurement: ``nonfinite`` < ``ok`` < ``skipped``."""
    said = group.column(MEASUREMENTS.get_field_index("status")).statistics
    return said is not None and said.has_min_max and said.max <= "ok" and said.null_count == 0
