import json
import socket

import numpy as np
import pytest
from safetensors.numpy import save_file

from thalweg.errors import ThalwegError
from thalweg.recorder.integrity import Problem, check
from thalweg.recorder.measurements import MeasurementWriter


@pytest.fixture
def run(tmp_path):
    """A sound run of two segments."""
    header = {"schema_version": 1, "kind": "thalweg.run", "created": "2026-01-01T00:00:00+00:00"}
    header |= {"status": "closed", "segments": [{"segment": 0, "pid": 1}]}
    (tmp_path / "run.json").write_text(json.dumps(header))
    for segment in (0, 1):
        writer = MeasurementWriter(tmp_path / "measurements", rank=0, segment=segment)
        for step in range(5):
            writer.append(step, 0.0, [writer.series("loss")], [1.0])
        writer.close()
    (tmp_path / "events.jsonl").write_text('{"time_s": 0.0, "event": "start"}\n')
    (tmp_path / "weights").mkdir()
    snapshot = tmp_path / "weights" / "step-000000000-r0-s0.safetensors"
    save_file({"w": np.ones(3, np.float32)}, snapshot)
    return tmp_path


def found(run):
    return [(problem.severity, problem.file) for problem in check(run)]


def set_header(run, **changes):
    header = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(header | changes))


def test_a_sound_run_has_no_problem(run):
    assert check(run) == []


def test_no_run_raises(tmp_path):
    with pytest.raises(ThalwegError, match="expected the directory of a run"):
        check(tmp_path)


def test_damage_everywhere_is_found(run):
    (run / "run.json").write_text("{")
    parquet = run / "measurements" / "r0-s0-0000.parquet"
    parquet.write_bytes(parquet.read_bytes()[:-30])
    (run / "events.jsonl").write_text('not json\n{"time_s": 0.0, "event": "start"}\n')
    (run / "weights" / "step-000000000-r0-s0.safetensors").write_bytes(b"x")
    (run / "weights" / "sketches-r0-s0.arrows").write_bytes(bytes(1000))
    assert {file for severity, file in found(run) if severity == "damage"} == {
        "run.json",
        "measurements/r0-s0-0000.parquet",
        "events.jsonl",
        "weights/step-000000000-r0-s0.safetensors",
        "weights/sketches-r0-s0.arrows",
    }


def test_what_a_kill_leaves_is_a_note(run):
    writer = MeasurementWriter(run / "measurements", rank=1, segment=0)
    writer.append(0, 0.0, [writer.series("loss")], [1.0])
    writer.flush()
    stream = run / "measurements" / "r1-s0-0000.arrows"
    stream.write_bytes(stream.read_bytes() + b"\xff\xff\xff\xff\x10")
    (run / "measurements" / "r1-s0-0001.parquet.tmp").write_bytes(b"")
    with (run / "events.jsonl").open("a") as file:
        file.write('{"time_s"')
    set_header(run, status="running", segments=[{"pid": 2**22 + 1, "host": socket.gethostname()}])
    assert {severity for severity, _ in found(run)} == {"note"}
    assert {file for _, file in found(run)} == {
        "run.json",
        "events.jsonl",
        "measurements/r1-s0-0000.arrows",
        "measurements/r1-s0-0001.parquet.tmp",
    }
    set_header(run, segments=[{"pid": 2**22 + 1, "host": "elsewhere"}])
    assert "run.json" not in {file for _, file in found(run)}
    writer.close()


def test_what_never_comes_from_a_crash_is_damage(run):
    set_header(run, created=None)
    (run / "run.json").write_text((run / "run.json").read_text().replace("created", "made"))
    writer = MeasurementWriter(run / "measurements", rank=3, segment=0)
    for step in (5, 2):
        writer.append(step, 0.0, [writer.series("loss")], [1.0], None, ["fine"])
    writer.close()
    (run / "measurements" / "r3-s0-0000.parquet").rename(
        run / "measurements" / "r4-s0-0001.parquet"
    )
    name = "measurements/r4-s0-0001.parquet"
    assert check(run) == [
        Problem(name, "damage", "part 0 before it is missing"),
        Problem(name, "damage", "holds rows of another rank than 4"),
        Problem(name, "damage", "unknown status 'fine'"),
        Problem(name, "damage", "steps of loss go backwards"),
        Problem("run.json", "damage", "lacks created"),
    ]


def test_unknown_files_are_noted(run):
    (run / "notes.txt").write_text("mine")
    assert check(run) == [Problem("notes.txt", "note", "unknown; not read")]
