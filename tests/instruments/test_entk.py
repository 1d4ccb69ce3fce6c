import math

import pytest
import torch
from torch import nn

from thalweg.instruments import entk, entk_rank


def test_a_linear_model_has_the_gram_matrix_of_its_inputs():
    torch.manual_seed(0)
    x = torch.randn(5, 3).double()
    K = entk(nn.Linear(3, 2, bias=False).double(), x)
    expected = torch.kron(x @ x.T, torch.eye(2).double())
    torch.testing.assert_close(K, expected)
    torch.testing.assert_close(entk(nn.Linear(3, 2, bias=False).double(), x, "sum"), 2 * x @ x.T)


def test_rank_condition_and_trace():
    model = nn.Linear(3, 1, bias=False).double()
    found = entk_rank(model, 2 * torch.eye(3).double())
    assert (found.value, found.rank, found.size) == (pytest.approx(3.0), 3, 3)
    assert (found.condition, found.trace) == (pytest.approx(1.0), pytest.approx(12.0))
    low = entk_rank(model, torch.ones(4, 3).double())
    assert low.rank == 1 and math.isinf(low.condition) and low.value == pytest.approx(1.0)


def test_a_dead_network_has_rank_zero_and_nan_is_a_status():
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2, bias=False))
    with torch.no_grad():
        model[0].bias.fill_(-100.0)
    found = entk_rank(model, torch.randn(3, 3))
    assert (found.value, found.rank, found.trace) == (0.0, 0, 0.0)
    with torch.no_grad():
        model[0].bias.fill_(math.nan)
    assert entk_rank(model, torch.randn(3, 3)).status == "nonfinite"
