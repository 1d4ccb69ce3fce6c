import copy
import math

import pytest
import torch
from torch import nn

import thalweg
from thalweg.instruments import (
    PlasticityMonitor,
    PlasticityRow,
    dormant_fraction,
    effective_rank,
    entk_rank,
    isometry_defect,
    stable_rank,
)


def network():
    return nn.Sequential(
        *(nn.Linear(6, 9), nn.ReLU(), nn.Dropout(0.5), nn.Linear(9, 8), nn.Tanh(), nn.Linear(8, 3))
    )


def test_a_row_is_what_the_instruments_say():
    model = nn.Sequential(nn.Linear(6, 9), nn.ReLU(), nn.Linear(9, 8), nn.ReLU(), nn.Linear(8, 3))
    x, probe = torch.randn(16, 6), torch.randn(4, 6)
    monitor = PlasticityMonitor(model, probe=probe, every=2, tau=0.1)
    model(x)
    assert monitor.after_step() == {} and monitor.rows == []
    model(x)
    figures = monitor.after_step()
    (row,) = monitor.rows
    first, last = model[:2](x), model[:4](x)
    assert isinstance(row, PlasticityRow) and row.step == 2
    assert row.dormant == {"0": dormant_fraction(first, 0.1), "2": dormant_fraction(last, 0.1)}
    assert row.effective_rank == pytest.approx(float(effective_rank(last)))
    assert row.stable_rank == float(stable_rank(last))
    weights = [m.weight for m in model[::2]]
    assert row.isometry_defect == pytest.approx(float(isometry_defect(weights).total))
    assert row.weight_size == pytest.approx(
        sum(float(w.detach().abs().mean()) for w in weights) / 3
    )
    assert row.kernel_rank == pytest.approx(entk_rank(model, probe).value)
    assert figures["dormant"] == pytest.approx(sum(row.dormant.values()) / 2)
    assert figures["kernel_rank"] == row.kernel_rank


def test_it_changes_nothing_of_the_training():
    torch.manual_seed(1)
    model = network()
    model[2].eval()  # a mode that is not that of the whole
    alone = copy.deepcopy(model)
    probe = torch.randn(3, 6)
    results = []
    for net, monitor in ((model, PlasticityMonitor(model, probe=probe, every=1)), (alone, None)):
        torch.manual_seed(2)
        sgd = torch.optim.SGD(net.parameters(), 0.1)
        for _ in range(4):
            sgd.zero_grad()
            net(torch.randn(8, 6)).square().mean().backward()
            sgd.step()
            if monitor:
                monitor.after_step()
        results.append([*net.parameters()])
        assert net.training and not net[2].training
        results[-1] += [p.grad for p in net.parameters()]
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_in_a_recording_its_figures_are_series(tmp_path):
    model = network()
    adam = torch.optim.Adam(model.parameters(), 1e-2)
    monitor = PlasticityMonitor(model, every=5)
    with thalweg.record(model, adam, tmp_path / "run") as recording:
        for _ in range(20):
            adam.zero_grad()
            model(torch.randn(8, 6)).square().mean().backward()
            adam.step()
            recording.log(monitor.after_step())
    run = thalweg.Run(tmp_path / "run")
    assert len(run.series("user/feature_effective_rank")[1]) == 4 == len(monitor.rows)
    assert math.isnan(monitor.rows[0].kernel_rank)
    monitor.close()
    assert not any(m._forward_pre_hooks for m in model.modules())


def test_convolutional_maps_count_positions_as_samples():
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2))
    monitor = PlasticityMonitor(model, every=1)
    x = torch.randn(2, 1, 8, 8)
    model(x)
    monitor.after_step()
    rows = model[:2](x).movedim(1, -1).reshape(-1, 4)
    assert monitor.rows[0].effective_rank == pytest.approx(float(effective_rank(rows)), rel=1e-5)
    assert monitor.units.layers[0].name == "0"


@pytest.mark.parametrize("options", [{"every": 0}, {"tau": -1.0}])
def test_settings_out_of_range(options):
    with pytest.raises(ValueError, match=f"{next(iter(options))} must be"):
        PlasticityMonitor(nn.Linear(2, 2), **options)
