import json
import shlex
from pathlib import Path

import pytest

from thalweg.cli import main

VECTORS = Path(__file__).parents[1] / "vectors" / "almanac"


@pytest.fixture(autouse=True)
def _own_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("THALWEG_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("COLUMNS", "80")


def printed(capsys, *command):
    assert main(["almanac", *command, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["schema_version"] == 1
    return document["data"]


@pytest.mark.parametrize("verb", ["search", "related", "papers", "ingest", "digest", "export"])
def test_help_ends_in_an_example_that_runs(verb, capsys, tmp_path, monkeypatch):
    main(["almanac", verb, "--help"])
    last = capsys.readouterr().out.strip().splitlines()[-1]
    assert last.startswith(f"Example: thalweg almanac {verb}")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    (tmp_path / "papers.xml").write_bytes((VECTORS / "arxiv_one.xml").read_bytes())
    assert main(shlex.split(last)[2:]) == 0


def test_search(capsys):
    hits = printed(capsys, "search", "what does gradient flow conserve", "--limit", "2")
    assert hits[0]["name"] == "conservation-laws" and len(hits) == 2
    assert main(["almanac", "search", "symmetry", "--kind", "law", "--evidence"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("conservation-laws") and lines[-1].endswith("hit")
    assert max(map(len, lines)) <= 80
    assert main(["almanac", "search", "x", "--topic", "groking"]) == 2
    assert "nearest: 'grokking'" in capsys.readouterr().err


def test_related(capsys):
    rows = printed(capsys, "related", "grokalign", "--limit", "4")
    assert len(rows) == 4 and rows[0]["why"]
    assert main(["almanac", "related", "grokalign", "--sort", "date"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "6 related entries"
    assert main(["almanac", "related", "grokaling"]) == 2


def test_papers(capsys):
    main(["almanac", "ingest", str(VECTORS / "hf_daily.json")])
    capsys.readouterr()
    assert len(printed(capsys, "papers", "--limit", "2")) == 2
    rows = printed(capsys, "papers", "--sort", "hot", "--since", "2024-01-01")
    assert [r["hot"] for r in rows] == sorted((r["hot"] for r in rows), reverse=True)
    assert len(rows) == 2 and rows[0]["concerns"] == ""
    assert main(["almanac", "papers"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "3 papers"
    assert main(["almanac", "papers", "--runs", "nowhere"]) == 2
    assert main(["almanac", "papers", "--since", "soon"]) == 2
