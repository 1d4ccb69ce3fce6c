"""Conservation laws in a recording: right, predicted, and without a trace on the training."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import thalweg
from thalweg.recorder.plan import LAWS, Plan

LOSS_AND_LAWS = ["loss", "laws"]


def _train(run_dir, *, bug=None, optimizer=torch.optim.SGD, steps=60, record=True, **options):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Dropout(0.1), nn.Linear(6, 3)).double()
    model[0].bias.requires_grad_(bug is not _move_the_frozen)
    trained = [p for p in model.parameters() if p.requires_grad]
    options = options or (
        {"momentum": 0.9, "weight_decay": 0.01} if optimizer is torch.optim.SGD else {}
    )
    opt = optimizer(trained, 0.05, **options)
    if bug is _rescale:
        model[0].weight.register_hook(lambda g: 0.5 * g)

    def loop():
        for _ in range(steps):
            x, y = torch.randn(8, 4).double(), torch.randint(3, (8,))
            opt.zero_grad()
            F.cross_entropy(model(x), y).backward()
            opt.step()
            if bug is not None and bug is not _rescale:
                bug(model)

    if not record:
        loop()
        return model, None
    with thalweg.record(model, opt, run_dir, overhead=1e9, instruments=LOSS_AND_LAWS):
        loop()
    return model, thalweg.Run(run_dir)


def _rescale(model):
    """Done by a hook."""


@torch.no_grad()
def _decay_again(model):
    for p in model.parameters():
        p.mul_(0.999)


@torch.no_grad()
def _move_the_frozen(model):
    model[0].bias.mul_(0.999)


def test_a_sound_training_leaves_round_off(run_dir):
    _, run = _train(run_dir)
    parts = run.parts("law_residual")
    assert any("balance" in p for p in parts)
    for part in parts:
        rows = run.table("law_residual", part).to_pylist()
        assert len(rows) > 5 and {r["status"] for r in rows} == {"ok"}
        assert max(r["value"] for r in rows) < 1e-12
        assert all(0 <= r["uncertainty"] < 1e-12 for r in rows)
    (balance,) = [p for p in parts if "balance" in p]
    assert run.series("law_drift", balance)[1][-1] > 1e-3
    described = run.header["laws"]
    assert {d["name"] for d in described} == set(parts) and all(d["formula"] for d in described)


@pytest.mark.parametrize("bug", [_rescale, _decay_again, _move_the_frozen])
def test_a_loop_with_a_bug_is_found_by_the_doctor(run_dir, bug):
    _, run = _train(run_dir, bug=bug)
    found = [d for d in thalweg.diagnose(run) if d.rule == "broken_law"]
    assert len(found) == 1
    assert ("frozen" in found[0].symptom) == (bug is _move_the_frozen)


def test_a_sound_training_is_not_accused(run_dir):
    _, run = _train(run_dir)
    assert [d for d in thalweg.diagnose(run) if d.rule == "broken_law"] == []


def test_adam_drifts_and_is_not_predicted(run_dir):
    _, run = _train(run_dir, optimizer=torch.optim.Adam)
    part = next(p for p in run.parts("law_residual") if "balance" in p)
    statuses = {r["status"] for r in run.table("law_residual", part).to_pylist()}
    assert all(s.startswith("unsupported:Adam breaks") for s in statuses)
    assert run.series("law_drift", part)[1][-1] > 1e-3
    assert [d for d in thalweg.diagnose(run) if d.rule == "broken_law"] == []


def test_the_training_is_bit_identical(run_dir):
    bare, _ = _train(run_dir, record=False)
    after_bare = torch.rand(1)
    recorded, _ = _train(run_dir)
    assert torch.equal(after_bare, torch.rand(1))
    for a, b in zip(bare.parameters(), recorded.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_pause_ends_the_prediction(run_dir):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))
    sgd = torch.optim.SGD(model.parameters(), 0.05)

    def step():
        sgd.zero_grad()
        F.cross_entropy(model(torch.randn(8, 4)), torch.randint(3, (8,))).backward()
        sgd.step()

    with thalweg.record(model, sgd, run_dir, overhead=1e9, instruments=LOSS_AND_LAWS) as run:
        for _ in range(10):
            step()
        with run.paused():
            step()
        for _ in range(5):
            step()
    rows = thalweg.Run(run_dir).table("law_residual").to_pylist()
    assert rows[-1]["status"] == "skipped:recording was paused"
    assert math.isnan(rows[-1]["value"])
    assert "ok" in {r["status"] for r in rows}


def test_what_costs_too_much_is_not_predicted(run_dir):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))
    sgd = torch.optim.SGD(model.parameters(), 0.05)
    with thalweg.record(model, sgd, run_dir, overhead=1e-6, instruments=LOSS_AND_LAWS):
        for _ in range(40):
            sgd.zero_grad()
            F.cross_entropy(model(torch.randn(8, 4)), torch.randint(3, (8,))).backward()
            sgd.step()
    run = thalweg.Run(run_dir)
    last = run.table("law_residual").to_pylist()[-1]
    assert last["status"] == "skipped:budget"
    assert any("Raise --overhead" in e.get("message", "") for e in run.events)
    assert np.isfinite(run.series("law_drift", run.parts("law_drift")[0])[1]).all()


def test_a_model_without_laws_says_so(run_dir):
    model = nn.Sequential(nn.Linear(3, 4), nn.GELU(), nn.Linear(4, 1))
    sgd = torch.optim.SGD(model.parameters(), 0.1)
    with thalweg.record(model, sgd, run_dir, overhead=1e9, instruments=LOSS_AND_LAWS):
        for _ in range(6):
            sgd.zero_grad()
            model(torch.randn(8, 3)).square().mean().backward()
            sgd.step()
    rows = thalweg.Run(run_dir).table("law_residual").to_pylist()
    assert {r["status"] for r in rows} == {"unsupported:no law is known for this architecture"}


def test_laws_are_asked_for_by_group():
    assert not set(LAWS) & set(Plan().names)
    assert set(LAWS) <= set(Plan(["default", "laws"]).names) & set(Plan(["all"]).names)
