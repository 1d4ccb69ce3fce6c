import json
import textwrap

import numpy as np
import pytest
import torch
from torch import nn

import thalweg
from thalweg.cli import main

MODELS = """
import numpy as np
import torch
from torch import nn


def relu():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))


def sampled():
    return relu(), torch.randn(5, 4)


def linear():
    return nn.Sequential(nn.Linear(4, 2, bias=False), nn.Linear(2, 1, bias=False))


def small():
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    return model, torch.randn(5, 2)


def normed():
    return nn.Sequential(nn.Linear(4, 6), nn.LayerNorm(6), nn.Tanh(), nn.Linear(6, 3))


def recurrent():
    return nn.LSTM(4, 3), torch.randn(5, 4)


def batch():
    return torch.randn(7, 4), torch.zeros(7)


def number():
    return 3


def broken():
    raise RuntimeError("no such data")
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    (tmp_path / "model.py").write_text(textwrap.dedent(MODELS))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    return tmp_path


def _said(capsys, *arguments, code=0):
    assert main(["laws", *arguments]) == code
    out = capsys.readouterr()
    return out.out if code == 0 else " ".join(out.err.split())


def _data(capsys, *arguments):
    document = json.loads(_said(capsys, *arguments, "--json"))
    assert set(document) == {"schema_version", "data"} and document["schema_version"] == 1
    return document["data"]


def _recorded(path, *, instruments, optimizer=torch.optim.SGD, bug=False):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))
    opt = optimizer(model.parameters(), 0.05)
    if bug:
        model[0].weight.register_hook(lambda g: 0.5 * g)
    with thalweg.record(model, opt, path, overhead=1e9, instruments=instruments):
        for _ in range(40):
            x, y = torch.randn(8, 4), torch.randint(3, (8,))
            opt.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            opt.step()


# What it finds


def test_without_a_sample_laws_are_unverified(capsys):
    out = _said(capsys, "model.py:relu")
    assert out.startswith("model.py:relu: 51 trainable parameters\n")
    assert "balance: 2, 0 (6 laws, unverified)" in out
    assert "  ‖2.weight[:,j]‖² − ‖0.weight[j]‖² − ‖0.bias[j]‖²\n" in out
    assert "6 known scalar laws in 1 family" in out and "not checked: give a sample" in out


@pytest.mark.parametrize("data", [None, "model.py:batch", "digits.npz"])
def test_with_a_sample_they_are_checked(capsys, data):
    np.savez("digits.npz", x=np.random.default_rng(0).normal(size=(7, 4)), y=np.zeros(7))
    arguments = ["model.py:sampled"] if data is None else ["model.py:relu", "--data", data]
    out = _said(capsys, *arguments)
    assert "balance: 2, 0 (6 laws, checked)" in out and "not checked" not in out


def test_small_models_are_counted_by_brackets(capsys):
    out = " ".join(_said(capsys, "model.py:small").split())
    assert "independent laws by brackets and polynomials: 3, gap" in out
    assert "3 of them polynomials: complete" in out
    assert "more than 40 parameters" in _said(capsys, "model.py:sampled")


def test_symmetric_data_add_laws(capsys):
    out = " ".join(_said(capsys, "model.py:linear", "--group", "symmetric:4").split())
    assert "1, 0 (3 laws" in out and "independent laws by brackets: 5" in out
    assert "3 from the architecture, 2 more from the symmetry of the data" in out
    assert "dimension 1 × 1 (trivial), dimension 3 × 1 (real)" in out


def test_a_group_that_does_nothing_adds_none(capsys):
    data = _data(capsys, "model.py:linear", "--group", "symmetric:4")
    assert (data["count"]["n_laws"], data["count"]["n_extra"]) == (5, 2)
    shifts = _data(capsys, "model.py:linear", "--group", "cyclic:4")
    assert shifts["count"]["n_laws"] == 3 and shifts["count"]["n_extra"] == 0


def test_cross_entropy_adds_its_laws(capsys):
    assert "sums: 2.weight" not in _said(capsys, "model.py:relu")
    assert "sums: 2.weight" in _said(capsys, "model.py:relu", "--loss", "cross-entropy")


def test_what_is_not_covered_is_listed(capsys):
    out = " ".join(_said(capsys, "model.py:recurrent").split())
    assert "0 known scalar laws in 0 families" in out
    assert "not covered: the model: operation 'lstm' is not known" in out


def test_json(capsys):
    data = _data(capsys, "model.py:sampled")
    assert set(data) == {"laws", "count", "not_covered"}
    (law,) = data["laws"]
    assert law["count"] == 6 and law["order"] == 2 and law["verified"] is True
    assert law["defect"] < 1e-9 and law["run"] == [] and law["note"] == ""
    assert law["parameters"] == ["2.weight", "0.weight", "0.bias"]
    assert data["count"] == {"refused": "not counted by brackets: more than 40 parameters"}
    counted = _data(capsys, "model.py:small")["count"]
    assert counted["complete"] is True and counted["lower"] == counted["upper"] == 3
    assert len(counted["formulas"]) == 3


# Beside a run


def test_a_run_shows_drift_and_what_is_left(capsys):
    _recorded("sound", instruments=["default", "laws"])
    _recorded("halved", instruments=["default", "laws"], bug=True)
    out = _said(capsys, "model.py:relu", "--run", "sound")
    assert "  run: drift 0." in out and "of its size at step 40" in out
    left = {}
    for name in ("sound", "halved"):
        (law,) = _data(capsys, "model.py:relu", "--run", name)["laws"]
        drift, residual = law["run"]
        assert drift.startswith("run: drift ") and "(rounding: " in residual
        left[name] = float(residual.split("optimizer: ")[1].split()[0])
    assert left["sound"] < 1e-5 and left["halved"] > 1e-3


def test_adam_is_not_predicted(capsys):
    _recorded("adam", instruments=["default", "laws"], optimizer=torch.optim.Adam)
    out = " ".join(_said(capsys, "model.py:relu", "--run", "adam").split())
    assert "run: not predicted, unsupported:Adam breaks this law" in out


# Wrong usage


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["model.py"], "BUILD must be FILE.py:FUNCTION, got 'model.py'"),
        (["other.py:build"], "BUILD: no file 'other.py'"),
        (["model.py:relo"], "'relo'"),
        (["model.py:number"], "must return an nn.Module, or the module and a sample input"),
        (["model.py:broken"], "BUILD model.py:broken failed: RuntimeError: no such data"),
        (["model.py:relu", "--group", "cubic:3"], "'cubic'"),
        (["model.py:relu", "--group", "symmetric"], "--group must be symmetric:N"),
        (["model.py:relu", "--group", "symmetric:-1"], "--group must be symmetric:N"),
        (["model.py:linear", "--group", "symmetric:3"], "the group acts on 3 coordinates"),
        (["model.py:relu", "--group", "symmetric:4"], "51 parameters are too many for brackets"),
        (["model.py:relu", "--data", "none.npz"], "--data none.npz: expected an .npz"),
        (["model.py:relu", "--data", "model.py:none"], "'none'"),
        (["model.py:relu", "--data", "wide.npz"], "fails on the sample"),
        (["model.py:relu", "--data", "unnamed.npz"], "expected an .npz with an array x"),
        (["model.py:relu", "--run", "nowhere"], "nowhere"),
    ],
    ids=str,
)
def test_wrong_usage_says_what_to_do(capsys, arguments, message):
    np.savez("wide.npz", x=np.ones((2, 9)))
    np.savez("unnamed.npz", np.ones((2, 4)))
    said = _said(capsys, *arguments, code=2)
    assert said.startswith("thalweg: ") and message in said


def test_unknown_names_list_the_nearest(capsys):
    assert "relu" in _said(capsys, "model.py:relo", code=2).partition("'relo'")[2]
    said = _said(capsys, "model.py:relu", "--group", "dihedrol:4", code=2)
    assert "dihedral" in said.partition("'dihedrol'")[2]


def test_a_run_without_laws_says_how_to_record_them(capsys):
    _recorded("plain", instruments=["loss"])
    said = _said(capsys, "model.py:relu", "--run", "plain", code=2)
    assert "plain holds no laws: record with --instruments default,laws" in said


@pytest.mark.parametrize("build", ["relu", "sampled", "normed", "small", "recurrent"])
def test_lines_fit_in_eighty_columns(capsys, build):
    for line in _said(capsys, f"model.py:{build}", "--loss", "cross-entropy").splitlines():
        assert len(line) <= 80 or max(map(len, line.split())) > 70, line
