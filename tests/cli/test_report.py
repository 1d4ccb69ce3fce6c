import json

import pytest

from thalweg.cli import main
from thalweg.recorder.measurements import MeasurementWriter


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "runs" / "a"
    path.mkdir(parents=True)
    header = {"schema_version": 1, "kind": "thalweg.run", "created": "2026-01-01"}
    header |= {"status": "closed", "segments": [{"segment": 0}]}
    (path / "run.json").write_text(json.dumps(header))
    writer = MeasurementWriter(path / "measurements", rank=0, segment=0)
    writer.append(1, 0.1, [writer.series("loss")], [2.0])
    writer.close()
    return path


def test_report_writes_into_the_newest_run(run, capsys):
    assert main(["report"]) == 0
    assert capsys.readouterr().out.strip() == "runs/a/report.html"
    assert (run / "report.html").read_text().startswith("<!doctype html>")
    assert main(["check"]) == 0
    assert "report.html" not in capsys.readouterr().out


def test_report_json_and_out(run, capsys, tmp_path):
    assert main(["report", str(run), "-o", "page.html", "--json"]) == 0
    data = json.loads(capsys.readouterr().out)["data"]
    assert data["path"] == "page.html"
    assert data["bytes"] == (tmp_path / "page.html").stat().st_size


def test_report_errors_and_help(run, capsys, tmp_path):
    (tmp_path / "mine.html").write_text("x")
    assert main(["report", "-o", "mine.html"]) == 2
    assert "not a report" in capsys.readouterr().err
    assert main(["report", "nowhere"]) == 2
    assert main(["report", "--help"]) == 0
    assert capsys.readouterr().out.rstrip().endswith("-o digits.html")
