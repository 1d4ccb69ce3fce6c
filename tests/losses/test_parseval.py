import pytest
import torch
from torch import nn

from thalweg.losses import ParsevalRegularizer, isometry_penalty


def net():
    return nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Conv1d(2, 3, 2)).double()


def test_a_slow_reference():
    model, want = net(), 0.0
    for W in (model[0].weight, model[2].weight.flatten(1)):
        for i in range(len(W)):
            for j in range(len(W)):
                want += (torch.dot(W[i], W[j]) - 2.0 * (i == j)) ** 2
    found = ParsevalRegularizer(model, weight=0.3, scale=2.0).penalty()
    assert torch.allclose(found, 0.3 * want)


def test_wide_matrices_have_the_isometry_penalty_and_tall_ones_that_and_a_constant():
    wide, tall = nn.Linear(7, 3).double(), nn.Linear(3, 7).double()
    assert torch.allclose(
        ParsevalRegularizer(wide, weight=1.0).penalty(), isometry_penalty(wide.weight)
    )
    gap = ParsevalRegularizer(tall, weight=1.0).penalty() - isometry_penalty(tall.weight)
    assert gap.item() == pytest.approx(4)  # |out − in|: rows that cannot be orthogonal


def test_zero_on_orthogonal_rows_and_gradients_reach_the_weights():
    model = nn.Linear(4, 4)
    nn.init.orthogonal_(model.weight)
    regularizer = ParsevalRegularizer(model)
    assert regularizer.penalty() < 1e-9
    with torch.no_grad():
        model.weight.mul_(2)  # followed, not copied
    regularizer.penalty().backward()
    assert model.weight.grad.any() and model.bias.grad is None


def test_skipped_matrices_are_left_out_and_weight_zero_is_zero():
    model = net()
    alone = ParsevalRegularizer(model[0], weight=1.0).penalty()
    assert torch.equal(ParsevalRegularizer(model, weight=1.0, skip=("2.weight",)).penalty(), alone)
    assert ParsevalRegularizer(model, weight=0.0).penalty() == 0


def test_errors():
    with pytest.raises(ValueError, match=r"skip names \['head'\]"):
        ParsevalRegularizer(net(), skip=("head",))
    with pytest.raises(ValueError, match="no parameter of at least two"):
        ParsevalRegularizer(nn.LayerNorm(2))
    with pytest.raises(ValueError, match="weight must be ≥ 0"):
        ParsevalRegularizer(net(), weight=-1.0)
    with pytest.raises(ValueError, match="scale must be positive"):
        ParsevalRegularizer(net(), scale=0.0)
