import json

import pytest
from starlette.testclient import TestClient

from thalweg.recorder.measurements import MeasurementWriter
from thalweg.web import create_app

BASE = "http://127.0.0.1:8000"


@pytest.fixture
def runs(tmp_path):
    folder = tmp_path / "runs"
    folder.mkdir()
    return folder


@pytest.fixture
def client(runs, tmp_path, monkeypatch):
    monkeypatch.setenv("THALWEG_DATA", str(tmp_path / "data"))
    app = create_app(runs)
    return TestClient(app, base_url=BASE, raise_server_exceptions=False)


@pytest.fixture(scope="session")
def plant():
    return _plant


@pytest.fixture(scope="session")
def append():
    return _append


def _plant(path, series, *, status="closed", close=True, events=(), **header):
    """A run of {(instrument, part): values}, as the recorder leaves it; gives the writer."""
    path.mkdir(parents=True)
    facts = {"kind": "thalweg.run", "schema_version": 1, "status": status, "segments": [],
             "created": "2026-11-24T00:00:00Z", **header}  # fmt: skip
    (path / "run.json").write_text(json.dumps(facts))
    (path / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    writer = MeasurementWriter(path / "measurements", rank=0, segment=0)
    _append(writer, series)
    if close:
        writer.close()
    return writer


def _append(writer, series, first=0):
    codes = [writer.series(*name) for name in series]
    for step, row in enumerate(zip(*series.values(), strict=True)):
        writer.append(first + step, 0.1 * step, codes, [float(v) for v in row])
    writer.flush()
