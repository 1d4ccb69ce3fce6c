import pytest
import torch
from torch import nn

from thalweg.trajectory import DeltaStore, Extrapolated, ExtrapolationCallback


def trained(steps=8, **options):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
    goal = 12.0
    with torch.no_grad():
        model[0].bias.zero_()
    ahead = ExtrapolationCallback(
        model,
        lambda m: -abs(m[0].bias[0].item() - goal),
        **({"cut": 6, "targets": [12, 30]} | options),
    )
    for _ in range(steps):
        with torch.no_grad():
            model[0].bias += 1
            model[1].num_batches_tracked += 1
        ahead.after_step()
    return model, ahead.result


def test_keeps_the_better():
    model, result = trained(6)
    assert isinstance(result, Extrapolated)
    assert result.step == 6 and result.score == -6.0 and result.best == 12
    assert result.scores[30] == pytest.approx(-18, abs=1e-4)
    assert result.foresight.go is False  # 5 times further than six steps can test
    assert model[0].bias[0].item() == pytest.approx(12, abs=1e-4)
    assert model[1].num_batches_tracked == 6


def test_or_only_tells():
    model, result = trained(6, load=False)
    assert result.best == 12 and model[0].bias[0].item() == 6


def test_worse_predictions_are_dropped():
    model, result = trained(6, targets=[30])
    assert result.best is None and model[0].bias[0].item() == 6
    model, result = trained(6, targets=[12], maximize=False)
    assert result.best is None


def test_every_and_folder(tmp_path):
    _, result = trained(9, cut=8, every=2, path=tmp_path / "s", targets=[12])
    assert result.step == 8
    assert DeltaStore(tmp_path / "s").steps == [2, 4, 6, 8]


def test_nothing_before_the_cut():
    assert trained(5)[1] is None


def test_a_failing_evaluation_puts_the_weights_back():
    calls = []

    def evaluate(m):
        calls.append(m[0].bias[0].item())
        if len(calls) > 1:
            raise RuntimeError("no data")
        return 0.0

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4))
    ahead = ExtrapolationCallback(model, evaluate, cut=4, targets=[9])
    with pytest.raises(RuntimeError, match="no data"):
        for t in range(4):
            with torch.no_grad():
                model[0].bias.fill_(float(t + 1))
            ahead.after_step()
    assert model[0].bias.tolist() == [4.0] * 4 and calls[1] != 4.0


@pytest.mark.parametrize(
    "options", [{"cut": 3}, {"cut": 6, "every": 2}, {"targets": []}, {"targets": [6]}, {"every": 0}]
)
def test_bad_input(options):
    with pytest.raises(ValueError, match="4 checkpoints up to the cut"):
        trained(**options)
