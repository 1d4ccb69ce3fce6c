"""Some series found by the footer of a part, beside finding them by name in its columns."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thalweg.recorder import series_rows, tables
from thalweg.recorder.footer import footer_entry, told_series
from thalweg.recorder.measurements import MeasurementWriter
from thalweg.recorder.run import Run
from thalweg.recorder.series_rows import read_rows, told_names
from thalweg.recorder.tables import list_parts, open_part

NAMES = [(i, p) for i in ("a", "ä\n") for p in ("", "x", "y.10", '"[')]
ROWS = [40 if i == 2 else 7 for i in range(8)]
FOREVER = (-(2**63), 2**63 - 1)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Eight series in small row groups, the third far longer than a group, over two segments."""
    path = tmp_path_factory.mktemp("run")
    (path / "run.json").write_text(json.dumps({"schema_version": 1, "kind": "thalweg.run"}))
    patch = pytest.MonkeyPatch()
    patch.setattr(tables, "_GROUP_ROWS", 10)
    patch.setattr(tables, "_MAX_GROUP_ROWS", 16)
    for segment in (0, 1):
        writer = MeasurementWriter(path / "measurements", rank=0, segment=segment)
        codes = [writer.series(*name) for name in NAMES]
        for step in range(40):
            some = codes if step < 7 else codes[2:3]
            at = 30 * segment + step
            writer.append(at, 0.0, some, [1000.0 * segment + 100 * c + step for c in some])
        writer.close()
    patch.undo()
    return path


@given(
    st.sets(st.sampled_from([p for i, p in NAMES if i == "a"]), min_size=1),
    st.integers(-5, 80),
    st.integers(-5, 80),
)
def test_rows_by_the_footer_are_those_by_name(run, parts, first, last):
    parts = sorted(parts)
    patch = pytest.MonkeyPatch()
    found = Run(run).some_series("a", parts, first=first, last=last)
    patch.setattr("thalweg.recorder.run.read_rows", lambda *_: None)
    by_name = Run(run).some_series("a", parts, first=first, last=last)
    patch.undo()
    assert list(found) == list(by_name) == parts
    for part in parts:
        whole = Run(run).series("a", part)
        inside = (first <= whole[0]) & (whole[0] <= last)
        for mine, other, third in zip(found[part], by_name[part], whole, strict=True):
            np.testing.assert_array_equal(mine, other)
            np.testing.assert_array_equal(mine, third[inside])


def test_only_the_row_groups_that_hold_them_are_read(run, monkeypatch):
    [file, _] = list_parts(run / "measurements")
    asked = []
    real = pq.ParquetFile.read_row_groups

    def counted(self, groups, **options):
        asked.append((list(groups), options["columns"]))
        return real(self, groups, **options)

    monkeypatch.setattr(pq.ParquetFile, "read_row_groups", counted)
    found = read_rows(file, "a", ["y.10"], FOREVER)
    assert (
        len(found["y.10"][0]) == 40 and len(asked[0][0]) == 3 and asked[0][1] == ["step", "value"]
    )
    asked.clear()
    assert read_rows(file, "a", ["y.10"], (39, 50))["y.10"][0].tolist()[-1] == 39
    assert len(asked[0][0]) == 1
    assert read_rows(file, "a", ["none"], FOREVER) == {} == read_rows(file, "b", [""], FOREVER)


def test_names_are_told_without_a_column(run, monkeypatch):
    monkeypatch.setattr(tables, "_read_parquet", None)
    assert Run(run).names == sorted(NAMES)


def _rewritten(run, tmp_path, metadata):
    """The first part of the run with another footer, as an older version or a mishap leaves it."""
    path = tmp_path / "run"
    (path / "measurements").mkdir(parents=True)
    (path / "run.json").write_text((run / "run.json").read_text())
    [file, _] = list_parts(run / "measurements")
    with open_part(file.path) as opened:
        table = opened.read().cast(tables.MEASUREMENTS)
    with pq.ParquetWriter(
        path / "measurements" / file.path.name, tables.MEASUREMENTS, store_schema=False
    ) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata(metadata)
    return path


WRONG = {
    "an older version": {},
    "a bit that flipped": {k: v + " " for k, v in footer_entry(NAMES, ROWS).items()},
    "rows that do not add up": footer_entry(NAMES, [7] * 8),
    "no checksum": {"thalweg.series": '[["loss","",4]]'},
    "nothing": {"thalweg.series": ""},
}


@pytest.mark.parametrize("what", WRONG)
def test_a_footer_that_tells_nothing_is_not_believed(run, tmp_path, what):
    path = _rewritten(run, tmp_path, WRONG[what])
    [file] = list_parts(path / "measurements")
    assert told_series(pq.read_metadata(file.path)) is None
    assert told_names(file) is None and read_rows(file, "a", ["x"], FOREVER) is None
    assert Run(path).names == sorted(NAMES)
    steps, values = Run(path).some_series("a", ["x"])["x"]
    assert steps.tolist() == list(range(7)) and values[0] == 100.0


@pytest.mark.parametrize("skips", [True, False])
def test_what_was_not_measured_is_left_to_the_reading_by_name(tmp_path, skips):
    (tmp_path / "run.json").write_text(json.dumps({"schema_version": 1, "kind": "thalweg.run"}))
    writer = MeasurementWriter(tmp_path / "measurements", rank=0, segment=0)
    code = writer.series("a", "x")
    for step in range(6):
        writer.append(step, 0.0, [code], [np.nan if step == 2 else float(step)])
    writer.append(6, 0.0, [code], [np.nan], statuses=["skipped:too slow"] if skips else ["ok"])
    writer.close()
    [file] = list_parts(tmp_path / "measurements")
    assert (read_rows(file, "a", ["x"], FOREVER) is None) == skips
    steps, values = Run(tmp_path).some_series("a", ["x"])["x"]
    assert steps.tolist() == list(range(6 if skips else 7)) and np.isnan(values[2])


def test_damage_is_told_as_it_is_by_name(run, tmp_path):
    path = _rewritten(run, tmp_path, {})
    [good, _] = list_parts(run / "measurements")
    [file] = list_parts(path / "measurements")
    chunk = pq.read_metadata(good.path).row_group(0).column(5)
    data = bytearray(good.path.read_bytes())
    data[chunk.data_page_offset + chunk.total_compressed_size // 2] ^= 255
    file.path.write_bytes(data)
    assert read_rows(file, "a", ["x"], FOREVER) is None
    opened = Run(path)
    assert opened.some_series("a", ["x"])["x"][0].tolist() == []
    assert "damaged" in opened.notes[0]
    file.path.unlink()
    with pytest.raises(FileNotFoundError):
        read_rows(file, "a", ["x"], FOREVER)
    assert series_rows.told_names(good) == set(NAMES)
