"""doctor/width_scaling.py"""

import pytest
import torch
from torch import nn

import thalweg
from thalweg.doctor.width_scaling import width_scaling
from thalweg.nn import MuReadout, set_base_shapes
from thalweg.optim import MuAdam, MuSGD, mup_param_groups

NAMES = ["a.weight", "b.weight", "b.bias"]
ADAM = {"a.weight": 1.0, "b.weight": 0.25, "b.bias": 1.0}
SGD = {"a.weight": 4.0, "b.weight": 1.0, "b.bias": 4.0}


def header(kind, rates, factors=True, label=""):
    model = {"label": label, "tensors": {}, "frozen": []}
    if factors:
        model["width_factors"] = {"adam": ADAM, "sgd": SGD}
    prefix = f"{label}." if label else ""
    groups = [
        {"part": "", "lr": r, "params": [prefix + n]} for n, r in zip(NAMES, rates, strict=True)
    ]
    return {"models": [model], "optimizers": [{"part": "", "class": kind, "groups": groups}]}


OTHER = "mup_param_groups(model.named_parameters(), lr=0.1, kind='adam')"


@pytest.mark.parametrize(
    ("kind", "treatment"),
    [
        ("AdamW", "thalweg.optim.MuAdamW(model.parameters(), lr=0.1)"),
        ("SGD", "thalweg.optim.MuSGD(model.parameters(), lr=0.1)"),
        ("NAdam", f"NAdam(thalweg.optim.{OTHER})"),
    ],
)
def test_equal_rates_for_a_model_in_mup(make_run, kind, treatment):
    (found,) = width_scaling(make_run({}, **header(kind, [0.1, 0.1, 0.1])))
    assert found.rule == "width_scaling" and found.severity == "warning"
    assert found.entry == "large-learning-rates" and treatment in found.treatment
    assert "lr = 0.1 for all 3" in found.evidence[0].text


def test_parameters_of_several_models_bear_their_labels(make_run):
    (found,) = width_scaling(make_run({}, **header("Adam", [0.1] * 3, label="Net")))
    assert "0.25 times the base rate for Net.b.weight" in found.evidence[0].text


@pytest.mark.parametrize(
    ("kind", "rates", "factors"),
    [
        ("MuAdam", [0.1, 0.025, 0.1], True),  # as it should be
        ("Adam", [0.1, 0.05, 0.1], True),  # rates of one's own
        ("Adam", [0.1, 0.1, 0.1], False),  # no muP
        ("Adam", [0.0, 0.0, 0.0], True),  # a warm-up from 0
        ("Lion", [0.1, 0.1, 0.1], True),  # who knows
        ("Adam", [None, None, None], True),  # rates that the header does not have
    ],
)
def test_nothing_to_say(make_run, kind, rates, factors):
    assert width_scaling(make_run({}, **header(kind, rates, factors))) == []


def test_at_the_base_width_all_factors_are_one(make_run):
    facts = header("Adam", [0.1, 0.1, 0.1])
    facts["models"][0]["width_factors"] = {"adam": dict.fromkeys(NAMES, 1.0), "sgd": {}}
    assert width_scaling(make_run({}, **facts)) == []


def net(n):
    return nn.Sequential(nn.Linear(4, n), nn.ReLU(), nn.Linear(n, n), MuReadout(n, 2))


@pytest.mark.parametrize(
    ("make", "wrong"),
    [
        (lambda m: torch.optim.Adam(m.parameters(), lr=0.01), True),
        (lambda m: torch.optim.SGD(m.parameters(), lr=0.01), True),
        (lambda m: MuAdam(m.parameters(), lr=0.01), False),
        (lambda m: MuSGD(m.parameters(), lr=0.01), False),
        (lambda m: torch.optim.NAdam(mup_param_groups(m.parameters(), lr=0.01)), False),
    ],
)
def test_a_recorded_training(tmp_path, make, wrong):
    torch.manual_seed(0)
    model = set_base_shapes(net(16), net(4), net(8))
    optimizer = make(model)
    x, y = torch.randn(32, 4), torch.randint(2, (32,))
    with thalweg.record(model, optimizer, tmp_path / "run", overhead=50.0):
        for _ in range(5):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
    found = [d for d in thalweg.diagnose(tmp_path / "run") if d.rule == "width_scaling"]
    assert len(found) == wrong
    if wrong:
        assert "2.weight" in found[0].evidence[0].text
