import json
import random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from thalweg.recorder import tables
from thalweg.recorder.measurements import MeasurementWriter
from thalweg.recorder.run import Run
from thalweg.recorder.tables import MEASUREMENTS, compact, list_parts, read_part, read_stream


@pytest.fixture
def stream(tmp_path):
    """The bytes of a small stream of three batches, and where to put them."""
    (tmp_path / "run.json").write_text(json.dumps({"schema_version": 1, "kind": "thalweg.run"}))
    writer = MeasurementWriter(tmp_path / "measurements", rank=0, segment=0)
    codes = [writer.series("loss"), writer.series("grad_norm", "a.weight")]
    for step in range(3):
        writer.append(step, step * 0.5, codes, [1.0, 2.0])
        writer.flush()
    path = tmp_path / "measurements" / "r0-s0-0000.arrows"
    yield path, path.read_bytes()
    writer.close()


def read_everything(run):
    """Each way to read a run; an exception here is a failure of ours."""
    opened = Run(run)
    table = opened.table()
    assert table.schema.equals(MEASUREMENTS)
    table.to_pylist()
    opened.steps  # noqa: B018
    for owner in opened.instruments:
        for part in opened.parts(owner):
            opened.series(owner, part)
    opened.all_series()
    return table, opened.notes


def test_a_stream_cut_at_every_byte_gives_its_whole_batches(stream):
    path, data = stream
    ends = [len(MEASUREMENTS.serialize())]  # after the schema, and after each batch
    with pa.ipc.open_stream(pa.BufferReader(data)) as reader:
        ends += [ends[-1] + batch.serialize().size * i for i, batch in enumerate(reader, 1)]
    assert ends[-1] == len(data)
    for cut in range(len(data) + 1):
        path.write_bytes(data[:cut])
        table, why = read_stream(path, MEASUREMENTS)
        whole = max((i for i, end in enumerate(ends) if end <= cut), default=0)
        rest = cut - (ends[whole] if cut >= ends[0] else 0)
        assert table.num_rows == 2 * whole
        assert why == (f"torn tail, {rest} bytes dropped" if rest else "")


def test_flipped_bytes_in_a_stream_never_raise(stream):
    path, data = stream
    rng = random.Random(0)
    for _ in range(400):
        noisy = bytearray(data)
        for _ in range(rng.choice([1, 1, 2, 8])):
            noisy[rng.randrange(len(noisy))] = rng.randrange(256)
        path.write_bytes(noisy)
        table, notes = read_everything(path.parent.parent)
        assert table.num_rows == 6 or notes


def test_flipped_bytes_in_a_parquet_file_never_raise(stream):
    path, _ = stream
    parquet = compact(path)
    data, rng = parquet.read_bytes(), random.Random(0)
    sound, _ = read_everything(path.parent.parent)
    for _ in range(400):
        noisy = bytearray(data)
        for _ in range(rng.choice([1, 1, 2, 8])):
            noisy[rng.randrange(len(noisy))] = rng.randrange(256)
        parquet.write_bytes(noisy)
        table, notes = read_everything(path.parent.parent)
        assert notes or table.select(["step", "value"]).equals(sound.select(["step", "value"]))


def test_bytes_of_noise_and_other_schemas_are_dropped_with_a_note(stream):
    path, _ = stream
    path.write_bytes(b"")
    assert read_everything(path.parent.parent)[1] == []
    path.write_bytes(random.Random(0).randbytes(5000))
    assert "5000 bytes dropped" in read_everything(path.parent.parent)[1][0]
    other = pa.record_batch({"step": [1, 2]})
    path.write_bytes(other.schema.serialize().to_pybytes() + other.serialize().to_pybytes())
    assert "not the expected schema" in read_everything(path.parent.parent)[1][0]
    pq.write_table(pa.table({"step": [1, 2]}), path.with_suffix(".parquet"))
    path.unlink()
    assert "damaged" in read_everything(path.parent.parent)[1][0]


def test_a_damaged_parquet_file_falls_back_on_its_stream(stream):
    path, data = stream
    parquet = compact(path)
    path.write_bytes(data)
    assert [file.path for file in list_parts(path.parent)] == [parquet]
    parquet.write_bytes(parquet.read_bytes()[:-100])
    table, notes = read_everything(path.parent.parent)
    assert table.num_rows == 6 and "r0-s0-0000.parquet: damaged" in notes[0]


def test_a_damaged_stream_is_not_compacted_away(stream):
    path, data = stream
    path.write_bytes(data[:400] + bytes(100) + data[500:])
    with pytest.raises(OSError, match="kept as it is"):
        compact(path)
    assert path.exists()


def test_filters_drop_row_groups_and_rows(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "_GROUP_ROWS", 10)
    writer = MeasurementWriter(tmp_path, rank=0, segment=0)
    names = [(i, p) for i in ("a", "b") for p in ("", "x", "y")]
    codes = [writer.series(*name) for name in names]
    for step in range(7):
        writer.append(step, 0.0, codes, [float(code * 100 + step) for code in codes])
    writer.close()
    [file] = list_parts(tmp_path)
    assert pq.read_metadata(file.path).num_row_groups == 3
    for (instrument, part), code in zip(names, codes, strict=True):
        table, why = read_part(file, ["value"], instrument=instrument, part=part)
        assert table["value"].to_pylist() == [code * 100 + step for step in range(7)] and not why
    assert read_part(file, ["value"], instrument="b")[0].num_rows == 21
    assert read_part(file, ["value"], part="x")[0].num_rows == 14
    assert read_part(file, ["value"], part="none")[0].num_rows == 0
