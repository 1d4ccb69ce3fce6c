"""From a name to a directory, and nowhere else."""

import json

import pytest

from thalweg.errors import ThalwegError
from thalweg.web import run_folder
from thalweg.web.run_folder import RunFolder

HEADER = {"kind": "thalweg.run", "schema_version": 1, "created": "2026-01-01", "segments": []}


def plant(path):
    (path / "measurements").mkdir(parents=True)
    (path / "run.json").write_text(json.dumps(HEADER))
    return path


def test_runs_are_found_by_name(tmp_path):
    plant(tmp_path / "runs" / "b")
    plant(tmp_path / "runs" / "<script>")
    (tmp_path / "runs" / "no run").mkdir()
    folder = RunFolder(tmp_path / "runs")
    assert folder.names() == ["<script>", "b"]
    assert folder.open("<script>").header["created"] == "2026-01-01"
    assert RunFolder(tmp_path / "nowhere").names() == []


@pytest.mark.parametrize(
    "name", ["..", "../other", ".", "", "a/b", "a\\b", "a\0b", "/etc", ".hidden", "x" * 300, "no"]
)
def test_no_name_leads_out(tmp_path, name):
    plant(tmp_path / "other")
    plant(tmp_path / "runs" / "a" / "b")
    plant(tmp_path / "runs" / ".hidden")
    with pytest.raises(ThalwegError, match="unknown run"):
        RunFolder(tmp_path / "runs").open(name)
    with pytest.raises(ThalwegError, match="unknown run"):
        RunFolder(tmp_path / "runs").open(str(tmp_path / "other"))


@pytest.mark.parametrize("what", ["", "run.json", "measurements", "measurements/r0-s0-0000.parquet",
                                  "events.jsonl", "weights"])  # fmt: skip
def test_no_link_leads_out(tmp_path, what):
    outside = plant(tmp_path / "outside")
    (outside / "secret").write_text("secret")
    run = tmp_path / "runs" / "a"
    if what:
        plant(run)
        target = outside / "secret" if "." in what else outside / "measurements"
        target = outside / "run.json" if what == "run.json" else target
        place = run / what
        if place.is_dir():
            place.rmdir()
        place.unlink(missing_ok=True)
        place.symlink_to(target)
    else:
        run.parent.mkdir()
        run.symlink_to(outside)
    folder = RunFolder(tmp_path / "runs")
    assert folder.names() == []
    with pytest.raises(ThalwegError, match="unknown run"):
        folder.open("a")


def test_links_inside_the_folder_are_fine(tmp_path):
    plant(tmp_path / "runs" / "a")
    (tmp_path / "runs" / "best").symlink_to(tmp_path / "runs" / "a")
    assert RunFolder(tmp_path / "runs").names() == ["a", "best"]


def test_a_swollen_header_is_not_read(tmp_path, monkeypatch):
    plant(tmp_path / "a")
    monkeypatch.setattr(run_folder, "MAX_HEADER", 10)
    with pytest.raises(ThalwegError, match="too large"):
        RunFolder(tmp_path).open("a")
