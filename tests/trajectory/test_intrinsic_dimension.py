import math

import pytest
import torch
from torch import nn

from thalweg.trajectory import description_length, measure_intrinsic_dimension


class Sums(nn.Module):
    """1000 numbers in ten groups, each of which should sum to its index."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.randn(1000, dtype=torch.float64))

    def forward(self):
        return (self.w.view(10, 100).sum(1) - torch.arange(10)).square().sum()


def solve(module):
    optimizer = torch.optim.LBFGS(
        [p for p in module.parameters() if p.requires_grad],
        max_iter=300,
        tolerance_grad=1e-14,
        tolerance_change=1e-30,
        line_search_fn="strong_wolfe",
    )

    def closure():
        optimizer.zero_grad()
        loss = module()
        loss.backward()
        return loss

    optimizer.step(closure)


def solved(module):
    return float(module() < 1e-8)


def test_ten_constraints_are_ten_dimensions():
    state = torch.get_rng_state()
    found = measure_intrinsic_dimension(
        Sums, solve, solved, [8, 9, 10, 11], seeds=[0, 1], projection="dense"
    )
    assert found.d90 == 10 and found.ci == (10, 10) and found.D == 1000
    assert found.curve() == ([8, 9, 10, 11], [0, 0, 1, 1])
    assert torch.equal(torch.get_rng_state(), state)


def test_scores_that_are_never_reached_and_a_given_baseline():
    found = measure_intrinsic_dimension(
        Sums, lambda module: None, lambda module: 0.5, [1, 2], seeds=[0], baseline=1.0
    )
    assert found.d90 == found.interpolated == math.inf
    assert found.curve()[1] == [0.5, 0.5]


def test_learning_rates_are_chosen_by_dimension():
    rates = {}

    def train(module, lr, seed):
        rates[id(module)] = lr

    def score(module):
        lr = rates[id(module)]
        return 1.0 if not hasattr(module, "d") else 1 - abs(lr - 1 / module.d)

    found = measure_intrinsic_dimension(
        lambda seed: nn.Linear(3, 1), train, score, [2, 4], seeds=[0, 1], lrs=[0.25, 0.5]
    )
    assert found.lrs == (0.5, 0.25) and found.scores.min() == 1


def test_stops_at_the_first_dimension_that_is_enough():
    tried = []

    def score(module):
        tried.append(module.d)
        return module.d / 4

    found = measure_intrinsic_dimension(
        lambda: nn.Linear(9, 1),
        lambda m: None,
        score,
        [1, 3, 4, 5],
        seeds=[0],
        baseline=0.8,
        stop_when_reached=True,
    )
    assert tried == [1, 3] and found.d90 == 3 and found.ci == (3, 3)
    assert math.isnan(found.curve()[1][-1])


def test_description_length():
    assert description_length(750) == 32 * 750 + 64
    assert description_length(100, bits=8, seed_bits=0) == 800
    with pytest.raises(ValueError, match="negative"):
        description_length(-1)


@pytest.mark.parametrize(
    ("dims", "options", "said"),
    [
        ([2, 2], {}, "ascending"),
        ([], {}, "ascending"),
        ([0, 1], {}, "ascending"),
        ([1], {"seeds": []}, "seed"),
        ([1], {"baseline": -0.2}, "-0.2, which is not above 0"),
        ([1], {"baseline": 0.5, "chance": 0.5}, r"not above 0\.5"),
        ([1], {"projection": "none"}, "projection"),
    ],
)
def test_bad_arguments(dims, options, said):
    with pytest.raises(ValueError, match=said):
        measure_intrinsic_dimension(
            lambda: nn.Linear(2, 1), lambda m: None, lambda m: 1.0, dims, **options
        )
