"""The rule for delayed generalisation, on made-up runs and on a real one."""

import numpy as np
import pytest
import torch
from torch import nn

import thalweg
from thalweg.doctor.delayed_generalisation import delayed_generalisation
from thalweg.doctor.generalisation import overfitting

STEPS = np.arange(400)
MEMORISED = np.exp(-STEPS / 12) + 0.01  # a twentieth of the first is reached at step 40
LATE = 0.6 + 0.4 * np.exp(-STEPS[::20] / 200)


def run_of(make_run, loss, held_out, gap=None):
    series = {
        ("loss", ""): loss,
        ("val_loss", ""): dict(zip(range(1, 20 * len(held_out), 20), held_out, strict=True)),
    }
    if gap is not None:
        series["user/generalisation_gap", ""] = dict.fromkeys(range(1, 400, 20), gap)
    return make_run(series)


def test_late_improvement_is_found_with_its_dates(make_run):
    (found,) = delayed_generalisation(run_of(make_run, MEMORISED, LATE))
    assert found.severity == "warning" and found.entry == "grokalign"
    assert "GrokAlign" in found.treatment and "weight_decay" in found.treatment
    assert "by step 40 and has waited 360 steps" in found.symptom and "slowly" in found.symptom
    assert [e.series for e in found.evidence] == [("loss", ""), ("val_loss", "")]
    assert "improves late" in found.evidence[1].text


def test_a_plateau_is_found_and_an_accuracy_is_quoted(make_run):
    rng = np.random.default_rng(0)
    (found,) = delayed_generalisation(
        run_of(make_run, MEMORISED, 0.9 + 0.01 * rng.normal(size=20), 0.4)
    )
    assert "not learnt" in found.symptom and "stays where it was" in found.evidence[1].text
    assert found.evidence[2].value == pytest.approx(0.4)
    assert found.evidence[2].series == ("user/generalisation_gap", "")


@pytest.mark.parametrize("seed", range(3))
def test_healthy_trainings_and_other_symptoms_are_no_finding(make_run, seed):
    rng = np.random.default_rng(seed)
    learns = np.exp(-STEPS[::20] / 60) + 0.1 + 0.01 * rng.normal(size=20)
    for loss, held_out, gap in (
        (MEMORISED, learns, None),
        (MEMORISED, 0.6 * learns + 0.2, None),  # learns less well, but with the training data
        (np.full(400, 0.5), LATE, None),  # nothing memorised
        (0.3 * MEMORISED + 0.7, LATE, None),
        (np.exp(-STEPS / 80), LATE, None),  # hardly memorised yet: 240 of 400 steps
        (MEMORISED, LATE[:5], None),  # no evaluation of late
        (MEMORISED, LATE, 0.01),  # by accuracy it has generalised
        (MEMORISED[:20], LATE[:1], None),
        (np.full(400, np.nan), LATE, None),
        (np.zeros(400), LATE, None),
    ):
        assert delayed_generalisation(run_of(make_run, loss, held_out, gap)) == []


def test_what_gets_worse_is_overfitting_alone(make_run):
    for worse in (0.6 + STEPS[::20] / 400, np.r_[1.0, 0.6, 0.5, 0.7 + STEPS[:340:20] / 1000]):
        run = run_of(make_run, MEMORISED, worse)
        assert [d.rule for d in overfitting(run) + delayed_generalisation(run)] == ["overfitting"]


def test_one_batch_in_a_hundred_may_be_bad(make_run):
    loss = MEMORISED.copy()
    loss[[150, 250, 350]] = 0.5
    (found,) = delayed_generalisation(run_of(make_run, loss, LATE))
    assert "by step 40" in found.symptom


def test_a_real_training_that_waits(tmp_path):
    torch.manual_seed(0)
    x = torch.randint(2, (300, 2000)) * 2.0 - 1
    y = x[:, 0] * x[:, 1]
    x[:, 2:] *= 0.22
    model = nn.Sequential(
        nn.Linear(2000, 64, bias=False), nn.ReLU(), nn.Linear(64, 1, bias=False), nn.Flatten(0)
    )
    optimizer = torch.optim.SGD(model.parameters(), 0.1, weight_decay=0.1)
    watched = ["loss", "val_loss"]
    with thalweg.record(model, optimizer, tmp_path / "run", overhead=1e9, instruments=watched):
        for step in range(150):
            loss = nn.functional.mse_loss(model(x[:200]), y[:200])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if step % 10 == 0:
                with torch.no_grad():
                    nn.functional.mse_loss(model(x[200:]), y[200:])
    rules = [d.rule for d in thalweg.diagnose(tmp_path / "run")]
    assert rules == ["delayed_generalisation"]
