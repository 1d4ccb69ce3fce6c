import json
import math
import sys

import numpy as np
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from thalweg.errors import ThalwegError
from thalweg.recorder.export import export
from thalweg.recorder.measurements import MeasurementWriter
from thalweg.recorder.run import Run
from thalweg.recorder.tables import MEASUREMENTS


@pytest.fixture
def run(tmp_path):
    path = tmp_path / "run"
    path.mkdir()
    header = {"schema_version": 1, "kind": "thalweg.run", "created": "2026-01-01T00:00:00+00:00"}
    (path / "run.json").write_text(json.dumps(header))
    for rank in (0, 1):
        writer = MeasurementWriter(path / "measurements", rank=rank, segment=0)
        codes = [writer.series("loss"), writer.series("grad_norm", "fc")]
        for step in range(4):
            writer.append(step, step * 0.5, codes, [step / 4 + rank, math.nan])
        writer.append(4, 2.0, codes[:1], [math.nan], None, ["skipped:budget"])
        writer.close()
    return Run(path)


def test_parquet_holds_the_table(run, tmp_path):
    assert export(run, "parquet", tmp_path / "out.parquet") == 18
    table = pq.read_table(tmp_path / "out.parquet")
    assert table.schema.equals(MEASUREMENTS)
    np.testing.assert_array_equal(table["value"], run.table()["value"])


def test_csv_holds_the_table(run, tmp_path):
    export(run.path, "csv", tmp_path / "out.csv")
    plain = pyarrow.csv.ConvertOptions(null_values=[])
    table = pyarrow.csv.read_csv(tmp_path / "out.csv", convert_options=plain)
    assert table.column_names == MEASUREMENTS.names and table.num_rows == 18
    np.testing.assert_array_equal(table["value"], run.table()["value"])


def test_tensorboard_reads_its_events(run, tmp_path):
    assert export(run, "tensorboard", tmp_path / "tb") == 16
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for rank in (0, 1):
        events = EventAccumulator(str(tmp_path / "tb" / f"rank-{rank}"))
        events.Reload()
        assert sorted(events.Tags()["scalars"]) == ["grad_norm/fc", "loss"]
        loss = events.Scalars("loss")
        assert [(e.step, e.value) for e in loss] == [(s, s / 4 + rank) for s in range(4)]
        assert loss[2].wall_time - loss[0].wall_time == 1.0
    export(run, "tensorboard", tmp_path / "tb", overwrite=True)
    with pytest.raises(ThalwegError, match="expected a directory of event files"):
        export(run, "tensorboard", run.path, overwrite=True)


def test_nothing_is_overwritten_unasked(run, tmp_path):
    out = tmp_path / "out.csv"
    out.write_text("mine")
    with pytest.raises(ThalwegError, match="is there already"):
        export(run, "csv", out)
    assert out.read_text() == "mine"
    export(run, "csv", out, overwrite=True)
    assert out.read_text() != "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.csv", "run"]


def test_a_failed_export_leaves_nothing(run, tmp_path, monkeypatch):
    def fail(_, path, **__):
        path.write_text("half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pyarrow.parquet.write_table", fail)
    with pytest.raises(ThalwegError, match="cannot be written: No space left"):
        export(run, "parquet", tmp_path / "out")
    with pytest.raises(ThalwegError, match="cannot be written"):
        export(run, "csv", tmp_path / "missing" / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]


def test_wrong_arguments(run, tmp_path, monkeypatch):
    with pytest.raises(ThalwegError, match="unknown format 'xlsx'"):
        export(run, "xlsx", tmp_path / "out")
    with pytest.raises(ValueError, match="needs the path"):
        export(run, "csv")
    monkeypatch.setitem(sys.modules, "tensorboard.summary.writer.record_writer", None)
    with pytest.raises(ThalwegError, match="pip install tensorboard"):
        export(run, "tensorboard", tmp_path / "tb")
