import json
import subprocess
import sys
import threading

import numpy as np
import pytest

import thalweg
from thalweg.errors import ThalwegError
from thalweg.recorder.measurements import MeasurementWriter
from thalweg.recorder.run import Run, newest_run
from thalweg.recorder.tables import MEASUREMENTS, PartFile

HEADER = {"schema_version": 1, "kind": "thalweg.run"}


def make_run(path, **header):
    path.mkdir(parents=True, exist_ok=True)
    (path / "run.json").write_text(json.dumps(HEADER | header))
    return path


def write(run, steps, names, *, rank=0, segment=0, offset=0.0, close=True):
    writer = MeasurementWriter(run / "measurements", rank=rank, segment=segment)
    codes = [writer.series(*name) for name in names]
    for step in steps:
        writer.append(step, step * 0.1, codes, [offset + step + i / 8 for i in range(len(codes))])
    (writer.close if close else writer.flush)()
    return writer


NAMES = [("loss", ""), ("grad_norm", ""), ("grad_norm", "fc.weight"), ("grad_norm", "fc.bias")]


def test_filters(tmp_path):
    run = Run(make_run(tmp_path))
    write(tmp_path, range(10), NAMES)
    assert thalweg.Run is Run
    assert run.instruments == ["grad_norm", "loss"]
    assert run.parts("grad_norm") == ["", "fc.bias", "fc.weight"]
    steps, values = run.series("grad_norm", "fc.bias")
    assert steps.dtype == np.int64 and values.dtype == np.float64
    assert np.array_equal(steps, np.arange(10)) and np.array_equal(values, steps + 3 / 8)
    assert run.table().num_rows == 40
    assert run.table("grad_norm").num_rows == 30
    assert run.table("grad_norm", "").num_rows == 10
    assert run.table(part="fc.bias")["value"].to_pylist() == values.tolist()
    assert list(run.all_series()) == NAMES
    assert run.wall_s == pytest.approx(0.9)


def test_ranks_are_kept_apart(tmp_path):
    run = Run(make_run(tmp_path))
    for rank in (1, 0, 10):
        write(tmp_path, range(5), NAMES[:1], rank=rank, offset=100.0 * rank)
    assert run.series("loss")[1].tolist() == [0, 1, 2, 3, 4]
    assert run.series("loss", rank=10)[1].tolist() == [1000, 1001, 1002, 1003, 1004]
    assert len(run.series("loss", rank=7)[0]) == 0
    table = run.table()
    assert table["rank"].to_pylist() == [0] * 5 + [1] * 5 + [10] * 5
    assert run.table(rank=1)["value"].to_pylist() == [100, 101, 102, 103, 104]
    assert run.steps.tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("close", [True, False])
def test_a_resumed_run_reads_as_one(tmp_path, close):
    run = Run(make_run(tmp_path))
    writers = [
        write(tmp_path, range(0, 8), NAMES[:2], segment=0, close=close),
        write(tmp_path, range(5, 12), NAMES[:2], segment=1, offset=100.0, close=close),
    ]
    steps, values = run.series("loss")
    assert steps.tolist() == list(range(12))
    assert values.tolist() == [0, 1, 2, 3, 4, *range(105, 112)]  # the newer segment holds
    table = run.table()
    assert table.num_rows == 2 * (8 + 7)
    assert (np.diff(table["step"].to_numpy()) >= 0).all()
    at_6 = table.filter(np.array(table["step"].to_pylist()) == 6)["value"].to_pylist()
    assert at_6 == [6, 6.125, 106, 106.125]
    assert np.array_equal(run.all_series()["loss", ""][1], values)
    for writer in writers:
        writer.close()


def test_reading_while_it_is_written_sees_a_growing_prefix(tmp_path):
    make_run(tmp_path)
    failures, done = [], threading.Event()

    def watch():
        seen, run = 0, Run(tmp_path)
        while not done.is_set():
            try:
                steps, values = run.series("loss")
                assert len(steps) >= seen
                assert np.array_equal(steps, np.arange(len(steps)))
                assert np.array_equal(values, steps)
                assert run.table().num_rows >= len(steps)
                seen = len(steps)
            except Exception as error:
                failures.append(error)
                return

    writer = MeasurementWriter(tmp_path / "measurements", rank=0, segment=0, roll_bytes=4000)
    code = writer.series("loss")
    watcher = threading.Thread(target=watch)
    watcher.start()
    for step in range(600):
        writer.append(step, 0.0, [code], [float(step)])
        writer.flush()
    writer.close()
    done.set()
    watcher.join()
    assert not failures, failures
    assert len(Run(tmp_path).series("loss")[0]) == 600


def test_a_file_compacted_after_the_listing_is_found_again(tmp_path, monkeypatch):
    make_run(tmp_path)
    writer = write(tmp_path, range(5), NAMES[:1], close=False)
    stream = tmp_path / "measurements" / "r0-s0-0000.arrows"
    stale = [PartFile(0, 0, 0, stream)]
    real = sys.modules["thalweg.recorder.run"].list_parts
    listings = iter([lambda _: stale])
    monkeypatch.setattr("thalweg.recorder.run.list_parts", lambda path: next(listings, real)(path))
    writer.close()
    assert Run(tmp_path).series("loss")[0].tolist() == [0, 1, 2, 3, 4]


def test_a_run_without_measurements_is_empty(tmp_path):
    run = Run(make_run(tmp_path))
    assert run.table().equals(MEASUREMENTS.empty_table())
    assert [len(found) for found in run.series("loss")] == [0, 0]
    assert run.steps.dtype == np.int64 and not len(run.steps)
    assert (run.instruments, run.parts("loss"), run.all_series()) == ([], [], {})
    assert (run.events, run.notes, run.sketches(), dict(run.weights())) == ([], [], {}, {})


def test_unknown_names_list_the_nearest(tmp_path):
    run = Run(make_run(tmp_path))
    write(tmp_path, range(3), NAMES)
    for call in (run.series, run.table, run.parts):
        with pytest.raises(ThalwegError, match="unknown instrument 'los'; nearest: 'loss', "):
            call("los")
    with pytest.raises(ThalwegError, match=r"unknown part of 'grad_norm' 'fc'; nearest: 'fc\."):
        run.series("grad_norm", "fc")
    with pytest.raises(ThalwegError, match="unknown part 'fc'"):
        run.table(part="fc")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "it has none"),
        (b"{", "got damage"),
        (b"\xff\xfe", "got damage"),
        (b"[]", "another kind"),
        (b'{"kind": "mlflow"}', "another kind"),
        (b'{"kind": "thalweg.run", "schema_version": 2}', "schema_version 2"),
        (b'{"kind": "thalweg.run", "schema_version": 1, "segments": 3}', "'segments' to be a list"),
    ],
)
def test_a_directory_that_is_no_run_says_so(tmp_path, content, says):
    if content is not None:
        (tmp_path / "run.json").write_bytes(content)
    with pytest.raises(ThalwegError, match=says):
        Run(tmp_path)


def test_missing_paths_and_files_say_so(tmp_path):
    with pytest.raises(ThalwegError, match="none of that name"):
        Run(tmp_path / "missing")
    (tmp_path / "file").write_text("")
    with pytest.raises(ThalwegError, match="it is a file"):
        Run(tmp_path / "file")


def test_events_of_all_ranks_come_by_time(tmp_path):
    run = Run(make_run(tmp_path))
    lines = [{"time_s": t, "step": 0, "rank": 0, "event": name} for t, name in [(2, "b"), (4, "d")]]
    (tmp_path / "events.jsonl").write_text("\n".join(map(json.dumps, lines)) + '\n{"time_s"')
    (tmp_path / "events-r1.jsonl").write_bytes(
        b'{"time_s": 1.5, "rank": 1, "event": "a"}\n\xff\xfe\n[]\n{"time_s": 3, "event": "c"}\n'
    )
    assert [event["event"] for event in run.events] == ["a", "b", "c", "d"]
    assert run.notes == [
        "events-r1.jsonl: damaged, 2 lines dropped",
        "events.jsonl: torn tail, 9 bytes dropped",
    ]


def test_newest_run(tmp_path):
    with pytest.raises(ThalwegError, match="there is none"):
        newest_run(tmp_path / "runs")
    make_run(tmp_path / "new", created="2026-02-01T00:00:00+00:00")
    make_run(tmp_path / "old", created="2026-01-01T00:00:00+00:00")
    make_run(tmp_path / "odd")
    (tmp_path / "odd" / "run.json").write_text("{")
    assert newest_run(tmp_path) == tmp_path / "new"


def test_reading_imports_no_torch(tmp_path):
    write(make_run(tmp_path), range(3), NAMES)
    code = (
        "import sys, thalweg; run = thalweg.Run(sys.argv[1]); run.table(); run.series('loss');"
        "run.all_series(); run.steps; run.events; run.sketches(); len(run.weights());"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)


def test_what_was_not_measured_is_told_with_its_reason(tmp_path):
    run = Run(make_run(tmp_path))
    writer = MeasurementWriter(tmp_path / "measurements", rank=0, segment=0)
    code = writer.series("sharpness")
    for step, status in enumerate(["ok", "skipped:budget", "skipped:budget", "unsupported:no"]):
        writer.append(step, 0.0, [code], [1.0], None, [status])
    writer.close()
    found = {name: steps.tolist() for name, steps in run.unmeasured().items()}
    assert found == {
        ("sharpness", "", "skipped:budget"): [1, 2],
        ("sharpness", "", "unsupported:no"): [3],
    }
    assert run.unmeasured(rank=1) == {}


@pytest.mark.parametrize("close", [True, False])
def test_some_series_of_a_stretch_are_those_of_the_whole(tmp_path, close):
    run = Run(make_run(tmp_path))
    write(tmp_path, range(0, 8), NAMES, segment=0, close=close)
    write(tmp_path, range(5, 12), NAMES, segment=1, offset=100.0, close=close)
    assert run.names == sorted(NAMES)
    found = run.some_series("grad_norm", ["fc.weight", ""], first=3, last=9)
    assert list(found) == ["fc.weight", ""]
    for part, (steps, values) in found.items():
        whole_steps, whole = run.series("grad_norm", part)
        inside = (whole_steps >= 3) & (whole_steps <= 9)
        assert np.array_equal(steps, whole_steps[inside])
        assert np.array_equal(values, whole[inside])
    whole = run.some_series("grad_norm", ["fc.bias"])["fc.bias"]
    assert np.array_equal(whole[1], run.series("grad_norm", "fc.bias")[1])
    with pytest.raises(ThalwegError, match="unknown part of 'grad_norm'"):
        run.some_series("grad_norm", ["fc.bia"])
