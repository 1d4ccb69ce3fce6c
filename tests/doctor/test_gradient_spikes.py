"""The rule for gradient spikes, on made-up runs and on a real training."""

import numpy as np
import pytest
import torch
from torch import nn

import thalweg
from thalweg.doctor.gradient_spikes import gradient_spikes


def series(values):
    return {("grad_norm", ""): values}


def noise(steps=200, width=0.3, seed=0):
    return np.exp(np.random.default_rng(seed).normal(0, width, steps))


def test_spikes_are_found_and_clipping_is_the_first_treatment(make_run):
    norms = noise()
    norms[[50, 120, 170]] *= 1000
    (found,) = gradient_spikes(make_run(series(norms)))
    assert found.rule == "gradient_spikes" and found.entry == "stable-spam"
    assert found.evidence[1].steps == (51, 121, 171)
    assert found.evidence[0].value == pytest.approx(1000, rel=0.9)
    assert found.treatment.index("clip_grad_norm_") < found.treatment.index("StableSPAM")


def test_the_band_follows_growth_and_decay(make_run):
    norms = noise() * np.geomspace(1e3, 1e-3, 200)
    assert gradient_spikes(make_run(series(norms))) == []
    norms[[150, 180]] *= 100  # still below the norms at the start
    (found,) = gradient_spikes(make_run(series(norms)))
    assert found.evidence[1].steps == (151, 181)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("width", [0.05, 0.3, 0.7, 1.0])
def test_noisy_batches_are_healthy(make_run, width, seed):
    assert gradient_spikes(make_run(series(noise(400, width, seed)))) == []


@pytest.mark.parametrize("degrees", [3, 5])
def test_heavy_tails_are_healthy(make_run, degrees):
    norms = np.abs(np.random.default_rng(0).standard_t(degrees, 400)) + 0.5
    assert gradient_spikes(make_run(series(norms))) == []


def test_one_spike_few_records_a_jump_and_alternation_are_no_finding(make_run):
    once = noise()
    once[60] *= 1000
    short = noise(25)
    short[[5, 15]] *= 1000
    jump = noise() * np.repeat([1.0, 1000.0], 100)
    half = noise() * np.tile([1.0, 1000.0], 100)
    for norms in (once, short, jump, half, np.zeros(100), np.full(100, np.nan)):
        assert gradient_spikes(make_run(series(norms))) == []


def test_spikes_that_clipping_removed_are_no_finding(make_run):
    raw = noise()
    raw[[50, 120]] *= 1000
    run = make_run({("grad_norm_preclip", ""): raw, ("grad_norm", ""): np.minimum(raw, 1.0)})
    assert gradient_spikes(run) == []


@pytest.mark.parametrize("spiky", [False, True])
def test_a_real_training(tmp_path, spiky):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 1))
    adam = torch.optim.Adam(model.parameters(), 1e-3)
    with thalweg.record(model, adam, tmp_path / "run", overhead=20.0):
        for step in range(120):
            adam.zero_grad()
            x = torch.randn(4, 8)
            (model(x) - x[:, :1]).square().mean().backward()
            if spiky and step in (40, 70, 100):
                for p in model.parameters():
                    p.grad.mul_(1000)
            adam.step()
    found = gradient_spikes(thalweg.Run(tmp_path / "run"))
    assert [d.rule for d in found] == ["gradient_spikes"] * spiky
    assert found == [d for d in thalweg.diagnose(tmp_path / "run") if d.rule == "gradient_spikes"]
