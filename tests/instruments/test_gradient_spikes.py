"""The monitor of gradient spikes."""

import pytest
import torch
from torch import nn

import thalweg
from thalweg.instruments import GradientSpikeMonitor, SpikeHistory


def noise(steps, shape=(40,), seed=0):
    return torch.randn(steps, *shape, generator=torch.Generator().manual_seed(seed))


def test_a_planted_spike_is_counted_where_it_is():
    a, b = nn.Parameter(torch.zeros(40)), nn.Parameter(torch.zeros(40))
    monitor = GradientSpikeMonitor([a, b], warmup=20)
    g, h = noise(60), noise(60, seed=1)
    h[50, 7] = 1e4
    for i in range(60):
        a.grad, b.grad = g[i], h[i]
        monitor.after_step()
    history = monitor.history()
    assert isinstance(history, SpikeHistory) and history.counts.shape == (40, 2)
    assert history.counts.nonzero().tolist() == [[30, 1]]
    assert history.share.sum().item() == pytest.approx(1 / 80)
    assert history.largest[30, 1] > 1e6 and history.largest[30, 0] < 5000
    both = torch.cat([g[50], h[50]])
    assert history.norms[30].item() == pytest.approx(both.norm().item(), rel=1e-5)


def test_the_ratio_by_hand():
    p = nn.Parameter(torch.zeros(1, dtype=torch.float64))
    monitor = GradientSpikeMonitor([p], beta=0.5, warmup=2, theta=3.0)
    for g in (1.0, 2.0, 4.0):
        p.grad = torch.tensor([g], dtype=torch.float64)
        figures = monitor.after_step()
    # Average of earlier squares, corrected: (0.25·1 + 0.5·4)/(1 − 0.25) = 3.
    assert figures["spike_ratio"].item() == pytest.approx(16 / 3)
    assert figures["spike_share"].item() == 1


def test_names_of_a_model_absent_gradients_and_frozen_parameters():
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    model[0].weight.requires_grad_(False)
    monitor = GradientSpikeMonitor(model, warmup=1)
    model[1].bias.grad = torch.ones(1)
    for _ in range(3):
        monitor.after_step()
    history = monitor.history()
    assert history.names == ("0.bias", "1.weight", "1.bias")
    assert history.largest[0].isnan().tolist() == [True, True, False]
    assert history.counts.sum() == 0


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_counts_and_does_not_stay(value):
    p = nn.Parameter(torch.zeros(2))
    monitor = GradientSpikeMonitor([p], warmup=2)
    for g in (1.0, 1.0, value, 1.0):
        p.grad = torch.tensor([1.0, g])
        monitor.after_step()
    assert monitor.history().counts.flatten().tolist() == [1, 0]


def test_nothing_of_the_training_is_touched_and_no_value_is_read():
    p = nn.Parameter(torch.zeros(3, device="meta"))
    monitor = GradientSpikeMonitor([p], warmup=1)
    for _ in range(3):  # on the meta device there is nothing to read
        p.grad = torch.empty_like(p)
        monitor.after_step()
    q = nn.Parameter(torch.ones(3))
    q.grad = torch.ones(3)
    version = q.grad._version, q._version
    GradientSpikeMonitor([q]).after_step()
    assert version == (q.grad._version, q._version)


def test_in_a_recording(tmp_path):
    model = nn.Linear(2, 1)
    sgd = torch.optim.SGD(model.parameters(), 0.01)
    monitor = GradientSpikeMonitor(model, warmup=2)
    with thalweg.record(model, sgd, tmp_path / "run") as recording:
        for step in range(6):
            sgd.zero_grad()
            (model(torch.ones(4, 2)).square().mean() * (1e6 if step == 4 else 1)).backward()
            sgd.step()
            recording.log(monitor.after_step())
    steps, values = thalweg.Run(tmp_path / "run").all_series()["user/spike_share", ""]
    assert steps.tolist() == [1, 2, 3, 4, 5, 6]
    assert values.tolist()[:5] == [0, 0, 0, 0, 1]


def test_clear_errors():
    p = nn.Parameter(torch.zeros(2))
    with pytest.raises(ValueError, match="before gradients are cleared"):
        GradientSpikeMonitor([p]).after_step()
    with pytest.raises(ValueError, match="more than warmup=10"):
        GradientSpikeMonitor([p]).history()
    with pytest.raises(ValueError, match="no parameter"):
        GradientSpikeMonitor([])
    with pytest.raises(ValueError, match="theta"):
        GradientSpikeMonitor([p], theta=0)
