import errno
import json
import math
import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thalweg.recorder import measurements
from thalweg.recorder.measurements import MeasurementWriter
from thalweg.recorder.run import Run
from thalweg.recorder.tables import MEASUREMENTS

HEADER = {"schema_version": 1, "kind": "thalweg.run"}


def make_run(path, **header):
    path.mkdir(parents=True, exist_ok=True)
    (path / "run.json").write_text(json.dumps(HEADER | header))
    return path


def files(run):
    return sorted(path.name for path in (run / "measurements").iterdir())


# What comes out is what went in


def test_rows_of_one_step_come_back_exactly(tmp_path):
    run = make_run(tmp_path)
    writer = MeasurementWriter(run / "measurements", rank=0, segment=0)
    loss, norm = writer.series("loss"), writer.series("grad_norm", "fc.weight")
    assert writer.series("loss") == loss
    writer.append(3, 0.5, [loss, norm], [2.5, 7.0], [math.nan, 0.25])
    writer.close()
    assert files(run) == ["r0-s0-0000.parquet"]
    rows = Run(run).table().to_pylist()
    assert math.isnan(rows[0].pop("uncertainty"))
    assert rows == [
        {"step": 3, "time_s": 0.5, "rank": 0, "instrument": "loss", "part": "", "value": 2.5}
        | {"status": "ok"},
        {"step": 3, "time_s": 0.5, "rank": 0, "instrument": "grad_norm", "part": "fc.weight"}
        | {"value": 7.0, "uncertainty": 0.25, "status": "ok"},
    ]


def test_status_follows_the_value_unless_given(tmp_path):
    run = make_run(tmp_path)
    writer = MeasurementWriter(run / "measurements", rank=0, segment=0)
    codes = [writer.series(name) for name in "abc"]
    writer.append(0, 0.0, codes, [1.0, math.nan, -math.inf])
    writer.append(1, 0.1, codes, [1.0, math.nan, 2.0], None, ["ok", "skipped:budget", "ok"])
    writer.flush()
    status = Run(run).table()["status"].to_pylist()
    assert status == ["ok", "nonfinite", "nonfinite", "ok", "skipped:budget", "ok"]
    assert Run(run).series("b")[0].tolist() == [0]  # a skipped row is no measurement
    assert np.isnan(Run(run).series("b")[1]).all()
    writer.close()
    assert Run(run).table()["status"].to_pylist() == status


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 2**32 - 1),
    steps=st.integers(0, 40),
    series=st.integers(1, 30),
    flush_every=st.integers(1, 50),
    roll=st.sampled_from([1, 5_000, 64_000_000]),
    close=st.booleans(),
)
def test_round_trip(seed, steps, series, flush_every, roll, close):
    rng = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory() as folder:
        run = make_run(Path(folder))
        writer = MeasurementWriter(run / "measurements", rank=0, segment=0, roll_bytes=roll)
        names = [(f"i{i % 3}", f"p{i}ü" if i else "") for i in range(series)]
        codes = [writer.series(*name) for name in names]
        expected = {name: ([], []) for name in names}
        for step in range(steps):
            chosen = np.flatnonzero(rng.random(series) < 0.7)
            values = rng.choice([0.0, 1.5, np.inf, np.nan, -1e300], len(chosen)).tolist()
            writer.append(step, step / 8, [codes[i] for i in chosen], values)
            for i, value in zip(chosen, values, strict=True):
                expected[names[i]][0].append(step)
                expected[names[i]][1].append(value)
            if step % flush_every == 0:
                writer.flush()
        (writer.close if close else writer.flush)()
        opened = Run(run)
        for name, (at, values) in expected.items():
            if at:
                np.testing.assert_array_equal(opened.series(*name)[0], at)
                np.testing.assert_array_equal(opened.series(*name)[1], values)
        everything = opened.all_series()
        assert {name: list(s[0]) for name, s in everything.items()} == {
            name: at for name, (at, _) in expected.items() if at
        }
        table = opened.table()
        assert table.schema.equals(MEASUREMENTS)
        assert table.num_rows == sum(len(at) for at, _ in expected.values())
        assert (np.diff(table["step"].to_numpy()) >= 0).all()
        assert opened.steps.tolist() == sorted({s for at, _ in expected.values() for s in at})
        assert not opened.notes
        writer.close()


def test_the_order_of_writing_survives_compaction(tmp_path):
    run = make_run(tmp_path)
    writer = MeasurementWriter(run / "measurements", rank=0, segment=0)
    codes = [writer.series(name) for name in ("zeta", "alpha", "mid")]
    for step in range(50):
        writer.append(step, step * 0.1, codes, [step, step + 0.25, step + 0.5])
    writer.flush()
    before = Run(run).table()
    writer.close()
    after = Run(run).table()
    assert before["value"].to_pylist() == after["value"].to_pylist()
    assert before["instrument"].to_pylist() == after["instrument"].to_pylist()


def test_a_compacted_part_is_ordinary_parquet(tmp_path):
    run = make_run(tmp_path)
    writer = MeasurementWriter(run / "measurements", rank=0, segment=0)
    codes = [writer.series("weight_norm", f"layer{i}") for i in range(40)]
    for step in range(1000):
        writer.append(step, step * 0.1, codes, [float(i) for i in range(40)])
    writer.close()
    path = run / "measurements" / "r0-s0-0000.parquet"
    assert pq.read_schema(path).equals(MEASUREMENTS)
    meta = pq.read_metadata(path)
    assert meta.num_row_groups == 3  # 17, 17 and 6 whole series
    assert meta.row_group(0).column(5).compression == "ZSTD"
    only = pq.read_table(path, filters=[("part", "=", "layer7")])
    assert only["value"].to_pylist() == [7.0] * 1000


def test_rolls_to_further_parts_and_compacts_them(tmp_path):
    run = make_run(tmp_path)
    writer = MeasurementWriter(run / "measurements", rank=2, segment=1, roll_bytes=2000)
    code = writer.series("loss")
    for step in range(100):
        writer.append(step, step * 0.1, [code], [float(step)])
        writer.flush()
    writer.close()
    assert len(files(run)) > 3
    assert all(name.endswith(".parquet") for name in files(run))
    assert Run(run).series("loss", rank=2)[1].tolist() == list(range(100))


def test_threads_may_flush_while_training_appends(tmp_path):
    run = make_run(tmp_path)
    writer = MeasurementWriter(run / "measurements", rank=0, segment=0, roll_bytes=20_000)
    code, done = writer.series("loss"), threading.Event()

    def keep_flushing():
        while not done.is_set():
            writer.flush()

    threads = [threading.Thread(target=keep_flushing) for _ in range(2)]
    for thread in threads:
        thread.start()
    for step in range(20_000):
        writer.append(step, 0.0, [code], [float(step)])
    done.set()
    for thread in threads:
        thread.join()
    writer.close()
    assert Run(run).series("loss")[1].tolist() == list(range(20_000))


def test_wrong_lengths_and_names_fail_at_the_door(tmp_path):
    writer = MeasurementWriter(tmp_path, rank=0, segment=0)
    with pytest.raises(ValueError, match="as many values as codes"):
        writer.append(0, 0.0, [0], [1.0, 2.0])
    with pytest.raises(ValueError, match="surrogates"):
        writer.series("bad\ud800")


def test_a_second_writer_of_a_segment_takes_further_parts(tmp_path):
    run = make_run(tmp_path)
    for value in (1.0, 2.0):
        writer = MeasurementWriter(run / "measurements", rank=0, segment=0)
        writer.append(int(value), 0.0, [writer.series("loss")], [value])
        writer.close()
    assert Run(run).series("loss")[1].tolist() == [1.0, 2.0]


def test_what_comes_after_closing_is_dropped_and_counted(tmp_path):
    writer = MeasurementWriter(tmp_path, rank=0, segment=0)
    writer.append(0, 0.0, [writer.series("loss")], [1.0])
    writer.close()
    writer.append(1, 0.0, [writer.series("loss")], [1.0])
    writer.flush()
    writer.close()
    assert writer.dropped == 1 and len(list(tmp_path.iterdir())) == 1


def test_a_forked_child_leaves_the_file_alone(tmp_path, monkeypatch):
    run = make_run(tmp_path)
    writer = MeasurementWriter(run / "measurements", rank=0, segment=0)
    writer.append(0, 0.0, [writer.series("loss")], [1.0])
    pid = os.getpid()
    with monkeypatch.context() as patch:
        patch.setattr(os, "getpid", lambda: pid + 1)
        writer.close()
    assert not (run / "measurements").exists()


# Rows that were flushed survive the process

_KILLED = """
import os, random, signal, sys, time
from pathlib import Path
from thalweg.recorder.measurements import MeasurementWriter

warm = MeasurementWriter(Path(sys.argv[1]) / "warm", rank=0, segment=0)
warm.append(0, 0.0, [warm.series("loss")], [0.0])
warm.flush()
random.seed(0)
for i in range(50):
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        folder = Path(sys.argv[1]) / str(i) / "measurements"
        writer = MeasurementWriter(folder, rank=0, segment=0, roll_bytes=20_000)
        codes = [writer.series("loss"), writer.series("grad_norm", "w")]
        for step in range(10**9):
            writer.append(step, step * 0.1, codes, [float(step), -float(step)])
            if step % 7 == 0:
                writer.flush()
                os.write(write, f"{step + 1}\\n".encode())
    os.close(write)
    # At any moment of the first half tenth of a second, or of what follows the first flush.
    said = os.read(read, 65536) if i % 5 else b""
    time.sleep(random.uniform(0.0, 0.05))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    while piece := os.read(read, 65536):
        said += piece
    os.close(read)
    print(said.split()[-1].decode() if said.split() else 0)
assert "torch" not in sys.modules
"""


def test_every_flushed_row_survives_kill_9(tmp_path):
    out = subprocess.run(
        [sys.executable, "-c", _KILLED, str(tmp_path)], capture_output=True, text=True, timeout=60
    )
    assert out.returncode == 0, out.stderr
    flushed = list(map(int, out.stdout.split()))
    assert len(flushed) == 50 and max(flushed) > 20
    for i, count in enumerate(flushed):
        run = Run(make_run(tmp_path / str(i)))
        for name, sign in (("loss", 1), ("grad_norm", -1)):
            steps, values = run.series(name, "w" if sign < 0 else "") if count else ([], [])
            assert len(steps) >= count, (i, count, run.notes)
            assert np.array_equal(steps, np.arange(len(steps)))
            assert np.array_equal(values, sign * np.arange(len(steps)))


# A failing disk


def test_a_torn_write_drops_rows_keeps_the_rest_and_goes_on_in_a_new_part(tmp_path, monkeypatch):
    run = make_run(tmp_path)
    writer = MeasurementWriter(run / "measurements", rank=0, segment=0)
    code, clock = writer.series("loss"), [1000.0]
    monkeypatch.setattr(measurements.time, "monotonic", lambda: clock[0])

    def add(step):
        writer.append(step, step * 0.1, [code], [float(step)])
        writer.flush()

    def torn(file, data):
        os.write(file, memoryview(data)[: len(memoryview(data)) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    add(0)
    with monkeypatch.context() as patch:
        patch.setattr(measurements, "_write_all", torn)
        patch.setattr(os, "ftruncate", lambda *_: (_ for _ in ()).throw(OSError(errno.EIO, "")))
        add(1)
        add(2)  # not even tried
        clock[0] += 6
        add(3)
        assert files(run) == ["r0-s0-0000.arrows"]  # failed tries leave no empty parts
    first = writer.error
    assert isinstance(first, OSError) and first.errno == errno.ENOSPC
    assert writer.dropped == 3
    opened = Run(run)
    assert opened.series("loss")[0].tolist() == [0]
    assert "torn tail" in opened.notes[0]
    add(4)  # the disk is back, but the time to try again has not come
    clock[0] += 6
    add(5)
    writer.close()
    assert writer.error is first and writer.dropped == 4
    assert Run(run).series("loss")[0].tolist() == [0, 5]
    assert files(run) == ["r0-s0-0000.parquet", "r0-s0-0001.parquet"]


def test_a_directory_that_cannot_be_made_raises_nothing(tmp_path):
    (tmp_path / "file").write_text("")
    writer = MeasurementWriter(tmp_path / "file" / "measurements", rank=0, segment=0)
    writer.append(0, 0.0, [writer.series("loss")], [1.0])
    writer.flush()
    writer.close()
    assert isinstance(writer.error, OSError) and writer.dropped == 1


def test_compaction_that_fails_leaves_the_stream(tmp_path, monkeypatch):
    run = make_run(tmp_path)
    writer = MeasurementWriter(run / "measurements", rank=0, segment=0)
    writer.append(0, 0.0, [writer.series("loss")], [1.0])

    def fail(*_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", fail)
    writer.close()
    assert isinstance(writer.error, OSError) and writer.dropped == 0
    assert files(run) == ["r0-s0-0000.arrows"]
    assert Run(run).series("loss")[1].tolist() == [1.0]


_FULL = """
import resource, sys
from pathlib import Path
from thalweg.recorder import measurements

measurements._RETRY_S = 0.0
if sys.argv[2] == "limit":
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
folder = Path(sys.argv[1])
ballast = folder / "ballast"
ballast.write_bytes(bytes(10_000))
writer = measurements.MeasurementWriter(folder / "measurements", rank=0, segment=0)
codes = [writer.series("loss", f"part{i}") for i in range(20)]
for step in range(100):
    writer.append(step, step * 0.1, codes, [float(step)] * 20)
    writer.flush()
assert writer.error is not None and writer.dropped > 0, (writer.error, writer.dropped)
ballast.unlink()
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
writer.append(100, 10.0, codes, [100.0] * 20)
writer.flush()
dropped = writer.dropped
writer.close()
assert writer.dropped == dropped
print(dropped)
"""


def _mount(path):
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(path)], capture_output=True
    )
    return made.returncode == 0


def _can_mount():
    if os.geteuid() != 0:
        return False
    with tempfile.TemporaryDirectory() as folder:
        made = _mount(folder)
        if made:
            subprocess.run(["umount", folder], check=True)
        return made


@pytest.mark.parametrize("disk", ["limit", "tmpfs"] if _can_mount() else ["limit"])
def test_a_full_disk_loses_only_what_it_had_no_room_for(tmp_path, disk):
    if disk == "tmpfs":
        assert _mount(tmp_path)
    try:
        out = subprocess.run(
            [sys.executable, "-c", _FULL, str(tmp_path), disk], capture_output=True, text=True
        )
        assert out.returncode == 0, out.stderr
        table = Run(make_run(tmp_path)).table()
    finally:
        if disk == "tmpfs":
            subprocess.run(["umount", str(tmp_path)], check=True)
    assert table.num_rows == 101 * 20 - int(out.stdout)
    assert table["step"].to_pylist()[-1] == 100
    assert table["value"].to_pylist() == table["step"].cast("double").to_pylist()
