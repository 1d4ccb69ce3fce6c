"""The whole doctor, on trainings that were really recorded, and its command line."""

import json
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import thalweg
from thalweg.cli import main
from thalweg.doctor import Diagnosis, Evidence, Examination, diagnose, examine
from thalweg.doctor.diagnosis import SEVERITIES

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.faults import OWN, PAGE, RESULT, healthy, page, summary
from benchmarks.small_trainings import FAULTS, LAW_FAULTS, PATH_FAULTS, Setting, train

# Room for a full record of these models on every step.
OVERHEAD = 20.0


@pytest.mark.parametrize(
    ("architecture", "fault"),
    [
        ("mlp", "lr x 1000"),
        ("mlp", "lr / 100000"),
        ("gru", "nan in one layer"),
        ("autoencoder", "eight sigmoid layers"),
        ("resnet", "dead ReLUs"),
        ("autoencoder", "layer not in the optimizer"),
        ("mlp", "(B, 1) against (B,)"),
        ("gru", "overflow under a gradient scaler"),
        ("mlp", "no zero_grad"),
    ],
)
def test_injected_faults_are_found(run_dir, architecture, fault):
    train(Setting(architecture, fault, steps=120), 5, run_dir, overhead=OVERHEAD)
    found = thalweg.diagnose(run_dir)
    assert FAULTS[fault] & {f.rule for f in found}, found
    order = [SEVERITIES.index(f.severity) for f in found]
    assert order == sorted(order)


@pytest.mark.parametrize(
    "name", ["mlp: default", "gru: adam", "autoencoder: clipping at 1", "mlp: full batch lbfgs"]
)
def test_healthy_trainings_raise_no_alarm(run_dir, name):
    train(healthy()[name], 5, run_dir, overhead=OVERHEAD)
    assert diagnose(thalweg.Run(run_dir)) == []


def test_the_nan_layer_is_named(run_dir):
    train(Setting("mlp", "nan in one layer", steps=60), 5, run_dir, overhead=1e6)
    assert diagnose(run_dir)[0].symptom == "values are not finite from step 31 on, first in 'fc2'"


def _record(path, steps=3, instruments=None):
    model = nn.Linear(2, 1)
    sgd = torch.optim.SGD(model.parameters(), 0.01)
    with thalweg.record(model, sgd, path, instruments=instruments):
        for _ in range(steps):
            sgd.zero_grad()
            model(torch.ones(4, 2)).square().mean().backward()
            sgd.step()


def test_what_was_not_recorded_is_not_judged(run_dir):
    _record(run_dir, instruments=["loss"])
    found = examine(run_dir)
    assert isinstance(found, Examination) and found.findings == ()
    assert found.skipped["dead_units"] == "the run has no dormant_fraction"
    assert "nonfinite" not in found.skipped


def test_an_empty_run_and_none(run_dir, tmp_path):
    _record(run_dir, steps=0)
    assert diagnose(run_dir) == []
    with pytest.raises(thalweg.ThalwegError, match="expected the directory of a run"):
        diagnose(tmp_path / "none")


def test_manual_clearing_and_none_gradients_are_told_apart(run_dir, tmp_path):
    kept = {}
    for how in ("zero_grad", "none", "never"):
        model = nn.Linear(2, 1)
        sgd = torch.optim.SGD(model.parameters(), 0.01)
        with thalweg.record(model, sgd, tmp_path / how):
            for _ in range(3):
                if how == "zero_grad":
                    model.zero_grad()
                if how == "none":
                    model.weight.grad = model.bias.grad = None
                model(torch.ones(4, 2)).square().mean().backward()
                sgd.step()
        kept[how] = thalweg.Run(tmp_path / how).header["gradients_kept"]
    assert kept == {"zero_grad": False, "none": False, "never": True}


def test_fields_of_a_finding():
    assert Evidence("x").series is None
    assert [*Diagnosis.__dataclass_fields__] == [
        *("rule", "severity", "symptom", "evidence", "entry", "source", "treatment", "planned")
    ]


def test_command_line(make_run, capsys):
    run = make_run(
        {("loss", ""): [1.0] * 9 + [float("nan")] * 5},
        outside_optimizers=[{"name": "x", "gradient": False}],
    )
    assert main(["doctor", str(run.path)]) == 1
    text = capsys.readouterr().out
    assert "PROBLEM: values are not finite from step 10 on [nonfinite]" in text
    assert "treatment" in text and "not judged: dead_units" in text
    assert max(map(len, text.replace(str(run.path), "").splitlines())) <= 80
    assert main(["doctor", str(run.path), "--json"]) == 1
    data = json.loads(capsys.readouterr().out)["data"]
    assert [f["severity"] for f in data["findings"]] == ["problem", "note"]
    assert data["findings"][0]["evidence"][0]["series"] == ["loss", ""]


def test_command_line_on_healthy_runs_notes_and_no_run(make_run, tmp_path, capsys):
    run = make_run({("loss", ""): [1.0] * 9}, outside_optimizers=[{"name": "x", "gradient": False}])
    assert main(["doctor", str(run.path)]) == 0
    assert "NOTE:" in capsys.readouterr().out
    assert main(["doctor", str(tmp_path / "none")]) == 2
    assert main(["doctor", "--root", str(tmp_path / "none")]) == 2


def test_the_page_is_made_from_the_result_and_the_result_adds_up():
    result = json.loads(RESULT.read_text())
    assert PAGE.read_text() == page(result)
    again = summary(result["faulted"], result["healthy"])
    assert all(result[key] == figures for key, figures in again.items())
    laws = {f"laws: {fault}": sorted(rules) for fault, rules in LAW_FAULTS.items()}
    own = {fault: [rule] for fault, (_, rule) in OWN.items()}
    plain = {fault: sorted(rules) for fault, rules in FAULTS.items()}
    paths = {f"path: {fault}": sorted(rules) for fault, rules in PATH_FAULTS.items()}
    assert result["accepted"] == plain | laws | paths | own
    assert {row["fault"] for row in result["faulted"]} == result["accepted"].keys()
