import json

import pytest

from thalweg.almanac import standings, verification
from thalweg.cli import main
from thalweg.cli.progress import _duration, _line
from thalweg.studies import Figures, executor
from thalweg.studies.executor import Outcome


@pytest.fixture(autouse=True)
def made(tmp_path, monkeypatch):
    """Seeds are made up at once; evidence goes to a folder of the test's own."""

    def run(self, tasks):
        for i, task in enumerate(tasks):
            x = {"recursion_exact": 1e-15}
            curves = {"loss": ([1.0, 2.0], [1.0, 0.5])}
            held, naive = {"recursion_exact": 0.5}, {"recursion_exact": 0.1}
            yield Outcome(i, Figures(x, held, naive, curves, "d"), task.config.lr)

    monkeypatch.setattr(executor.LocalExecutor, "run", run)
    monkeypatch.setenv("THALWEG_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(standings, "SHIPPED", tmp_path / "shipped")
    monkeypatch.setattr(verification, "SHIPPED", tmp_path / "shipped")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_run_writes_evidence_of_the_users_own(made, capsys):
    assert main(["study", "run", "broken_laws"]) == 0
    out = capsys.readouterr()
    assert "conservation-laws/recursion_exact: pass" in out.out
    assert "seed 2 took" in out.err and "(3 of 3)" in out.err
    files = list((made / "data" / "evidence" / "conservation-laws").glob("*.json"))
    assert len(files) == 1
    assert not list((made / "data" / "unfinished").glob("*/*"))
    assert main(["study", "list"]) == 0
    assert "conservation-laws/recursion_exact: pass" in capsys.readouterr().out
    assert main(["almanac", "verify"]) == 0
    assert "1 files of evidence: 0 wrong, 0 stale" in capsys.readouterr().out


def test_a_forged_verdict_is_found(made, capsys):
    main(["study", "run", "broken_laws"])
    path = next((made / "data" / "evidence").glob("*/*.json"))
    path.write_text(path.read_text().replace('"reproduced"', '"not"'))
    assert main(["almanac", "verify"]) == 1
    assert "samples say 'reproduced'" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    "options", [["--preset", "smoke"], ["--set", "lr=0.5"], ["--seeds", "2"], ["--sweep", "lr=1,2"]]
)
def test_trials_are_no_evidence(made, capsys, options):
    assert main(["study", "run", "broken_laws", *options]) == 0
    assert "a trial, no evidence" in capsys.readouterr().out
    assert not (made / "data" / "evidence").exists()


def test_a_sweep_tries_all_combinations(capsys):
    command = ["study", "run", "broken_laws", "--sweep", "lr=1,2", "--sweep", "batch=4,8", "--json"]
    assert main(command) == 0
    data = json.loads(capsys.readouterr().out)["data"]
    assert [(r["config"]["lr"], r["config"]["batch"]) for r in data] == [
        (1.0, 4), (1.0, 8), (2.0, 4), (2.0, 8)
    ]  # fmt: skip


def test_show_and_plot(made, capsys):
    assert main(["study", "plot", "broken_laws"]) == 2
    assert "no evidence of broken_laws yet" in capsys.readouterr().err
    main(["study", "run", "broken_laws"])
    capsys.readouterr()
    assert main(["study", "show", "broken_laws"]) == 0
    out = capsys.readouterr().out
    assert "PASS  " in out and "quick" in out and "num_steps=10000" in out
    assert max(map(len, out.splitlines())) <= 120
    assert main(["study", "plot", "broken_laws", "-o", "a.svg"]) == 0
    assert (made / "a.svg").read_text().startswith("<svg")
    assert main(["study", "plot", "broken_laws", "-o", "no/a.svg"]) == 2


def test_almanac_list_and_show(capsys):
    assert main(["almanac", "list", "--kind", "law", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["data"]
    assert {r["kind"] for r in rows} == {"law"}
    assert main(["almanac", "list"]) == 0
    assert "46 entries, 0 with evidence" in capsys.readouterr().out
    assert main(["almanac", "show", "conservation-laws"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "Conservation Laws from Data Symmetry" in out and "UNTESTED" in out
    main(["study", "run", "broken_laws"])
    capsys.readouterr()
    assert main(["almanac", "show", "conservation-laws", "--json"]) == 0
    claims = json.loads(capsys.readouterr().out)["data"]["claims"]
    tested = next(c for c in claims if c["id"] == "recursion_exact")
    assert tested["verdict"] == "pass" and tested["samples"] == [1e-15] * 3
    assert main(["almanac", "show", "conservation-laws", "--evidence", "shipped", "--json"]) == 0
    assert '"untested"' in capsys.readouterr().out


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["study", "run"], "name a study"),
        (["study", "run", "broken"], "nearest: 'broken_laws'"),
        (["study", "run", "broken_laws", "--seeds", "0"], "at least 1"),
        (["study", "run", "broken_laws", "--workers", "0"], "at least 1"),
        (["study", "run", "broken_laws", "--set", "lr"], "expected NAME=VALUE"),
        (["study", "run", "broken_laws", "--sweep", "lr=a,b"], "must be float"),
        (["study", "run", "broken_laws", "--preset", "huge"], "huge"),
        (["study", "show", "grokking_"], "unknown study"),
        (["almanac", "show", "conservation"], "nearest: 'conservation-laws'"),
        (["almanac", "list", "--verdict", "maybe"], "unknown verdict"),
    ],
)
def test_wrong_usage(command, said, capsys):
    assert main(command) == 2
    assert said in capsys.readouterr().err


def test_progress_lines():
    assert _line("x", 1, 3, 0, 10.0) == "x: seed 0 took 10 s (1 of 3, about 20 s left)"
    assert _line("x", 2, 3, None, 1.0) == "x: 2 of 3 seeds were finished before"
    assert _duration(125) == "2 min 5 s"


def test_what_a_paper_preset_costs_is_said_beforehand(made, capsys):
    assert main(["study", "run", "broken_laws", "--preset", "paper", "--set", "lr=0.5"]) == 0
    said = " ".join(capsys.readouterr().err.split())
    assert said.startswith("broken_laws paper: about ") and "186 times the work of quick" in said
    assert main(["study", "list", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["data"]["studies"]
    costs = {row["name"]: row["paper_cost"] for row in rows}
    assert costs["broken_laws"]["times_quick"] == 186 and costs["broken_laws"]["seeds"] == 3
    assert all(cost["memory_bytes"] > 0 and cost["estimate"] for cost in costs.values())
    assert main(["study", "show", "broken_laws"]) == 0
    assert "paper: " in capsys.readouterr().out


def test_a_failing_setting_of_a_sweep_does_not_hide_the_others(made, capsys, monkeypatch):
    def run(self, tasks):
        for i, task in enumerate(tasks):
            good = task.config.lr < 1
            figures = Figures({"recursion_exact": 1e-15}) if good else None
            yield Outcome(i, figures, 1.0, "" if good else "ValueError: diverged")

    monkeypatch.setattr(executor.LocalExecutor, "run", run)
    assert main(["study", "run", "broken_laws", "--sweep", "lr=9,0.5"]) == 2
    out = capsys.readouterr()
    assert "lr=0.5 (3 seeds)" in out.out and "lr=9 (" not in out.out
    assert "seed 0 failed:\nValueError: diverged\n2 more failed" in out.err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--address", "auto"], "--address is that of a Ray cluster"),
        (["--on", "ray", "--address", "here"], "must be HOST:PORT or auto"),
        (["--on", "ray", "--workers", "0"], "workers must be at least 1"),
        (["--on", "slurm"], "slurm"),
    ],
)
def test_where_seeds_cannot_run(made, capsys, options, said):
    assert main(["study", "run", "broken_laws", *options]) == 2
    assert said in capsys.readouterr().err
