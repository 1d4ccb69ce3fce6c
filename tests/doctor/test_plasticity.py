"""The rule for loss of plasticity, on made-up runs and on real trainings."""

import numpy as np
import pytest
import torch
from torch import nn

import thalweg
from thalweg.data import digits
from thalweg.doctor.plasticity import loss_of_plasticity
from thalweg.optim import AdamO


def tasks(worst=2.3, steps=640, seed=0):
    """A loss that falls within each of 16 tasks, to less and less good an end."""
    rng = np.random.default_rng(seed)
    within = np.exp(-(np.arange(steps) % (steps // 16)) / 10.0)
    floor = np.linspace(0.1, worst, steps)
    return floor + (2.3 - floor).clip(0) * within * 0.3 + 0.02 * rng.normal(size=steps)


def run_of(make_run, loss, dormant=None, rank=None):
    series = {("loss", ""): loss}
    if dormant is not None:
        series["dormant_fraction", "1"] = dormant
        series["dormant_fraction", "3"] = np.full(len(dormant), 0.2)
    if rank is not None:
        series["user/kernel_rank", ""] = rank
    return make_run(series)


WORN, SOUND = np.linspace(0.1, 0.9, 640), np.full(640, 0.3)


def test_dormant_units_and_a_loss_that_rises_are_found(make_run):
    (found,) = loss_of_plasticity(run_of(make_run, tasks(), WORN))
    assert found.rule == "loss_of_plasticity" and found.severity == "problem"
    assert found.entry == "adamo-isometry" and "AdamO" in found.treatment
    assert [e.series for e in found.evidence] == [("loss", ""), ("dormant_fraction", "1")]
    assert found.evidence[0].value > 2 and 0.8 < found.evidence[1].value < 0.9


def test_a_collapsed_rank_is_found_without_dormant_units(make_run):
    rank = dict(zip(range(1, 641, 20), np.geomspace(120, 4, 32), strict=True))
    (found,) = loss_of_plasticity(run_of(make_run, tasks(), SOUND, rank))
    assert found.evidence[1].series == ("user/kernel_rank", "")


@pytest.mark.parametrize("seed", range(4))
def test_healthy_trainings_and_half_the_symptoms_are_no_finding(make_run, seed):
    rng = np.random.default_rng(seed)
    falling = 2 * np.exp(-np.arange(640) / 100) + 0.3 + 0.1 * rng.normal(size=640)
    for loss, dormant in (
        (falling, WORN),  # sparse, and learning
        (np.full(640, 1.0) + 0.3 * rng.normal(size=640), WORN),  # never fell
        (tasks(seed=seed), SOUND),  # for another reason
        (tasks(seed=seed), np.full(640, 0.7)),  # they were so from the beginning
        (tasks(0.1, seed=seed), WORN),
        (tasks(seed=seed)[:60], WORN[:60]),  # too short to say
        (np.full(640, np.nan), WORN),
    ):
        assert loss_of_plasticity(run_of(make_run, loss, dormant)) == []
    assert loss_of_plasticity(run_of(make_run, tasks(), SOUND, np.full(640, 0.0))) == []
    assert loss_of_plasticity(run_of(make_run, tasks(), SOUND, np.linspace(120, 80, 640))) == []


@pytest.mark.parametrize("kind", ["Adam", "AdamO"])
def test_a_real_stream_of_tasks(tmp_path, kind):
    torch.manual_seed(0)
    data = digits()
    model = nn.Sequential()
    for _ in range(3):
        model += nn.Sequential(nn.Linear(64, 64), nn.ReLU())
    model.append(nn.Linear(64, 10))
    kinds = {
        "Adam": lambda p: torch.optim.Adam(p, 1e-2),
        "AdamO": lambda p: AdamO(p, 1e-2, isometry=0.02),
    }
    optimizer = kinds[kind](model.parameters())
    watched = ["loss", "dormant_fraction"]
    with thalweg.record(model, optimizer, tmp_path / "run", overhead=1e9, instruments=watched):
        for _ in range(12):
            rows = torch.randperm(len(data.x))[:64]
            y = torch.randint(10, (64,))
            for _ in range(100):
                batch = torch.randint(64, (32,))
                loss = nn.functional.cross_entropy(model(data.x[rows[batch]]), y[batch])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
    rules = [d.rule for d in thalweg.diagnose(tmp_path / "run")]
    assert ("loss_of_plasticity" in rules) == (kind == "Adam")
