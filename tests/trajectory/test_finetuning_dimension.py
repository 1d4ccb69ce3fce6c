import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from thalweg.trajectory import Bound, compression_bound, intrinsic_dimension_of_finetuning

CI = settings(max_examples=25, deadline=None, derandomize=True)
VECTORS = Path(__file__).parents[1] / "vectors" / "intrinsic-dimension-finetuning.npz"


def test_bound_vectors():
    data = np.load(VECTORS, allow_pickle=False)
    for (error, d, n, bits, delta), expected in zip(data["bound_args"], data["bound"], strict=True):
        found = compression_bound(error, int(d), int(n), bits=bits, delta=delta)
        assert found == pytest.approx(expected, abs=1e-12)


def test_bound_of_two_hundred_dimensions():
    bound = compression_bound(0.0, 200, 10_000, bits=8, delta=0.05)
    assert round(bound, 5) == 0.23580 and not bound.vacuous and isinstance(bound, Bound)
    far = compression_bound(0.1, 10**6, 100)
    assert far == 1 and far.vacuous and far.gap > 1


@CI
@given(
    d=st.integers(0, 500),
    n=st.integers(1, 10**5),
    candidates=st.integers(1, 99),
    error=st.floats(0, 1),
)
def test_bound_grows_with_what_was_tried(d, n, candidates, error):
    bound = compression_bound(error, d, n, candidates=candidates)
    assert error <= bound <= 1
    assert bound.gap <= compression_bound(error, d + 1, n, candidates=candidates).gap
    assert bound.gap >= compression_bound(error, d, n + 1, candidates=candidates).gap
    # ln K candidates cost as much as a delta of 1/K of it
    same = compression_bound(error, d, n, delta=0.05 / candidates)
    assert bound.gap == pytest.approx(same.gap)


@pytest.mark.parametrize(
    "options", [{"train_error": 1.1}, {"n": 0}, {"delta": 0.0}, {"d": -1}, {"candidates": 0}]
)
def test_bound_errors(options):
    with pytest.raises(ValueError, match="need"):
        compression_bound(**{"train_error": 0.0, "d": 1, "n": 10, **options})


def separable(seed=0):
    torch.manual_seed(seed)
    x = torch.randn(80, 6)
    return x, (x[:, 0] > 0).long()


def train(model, lr):
    x, y = separable()
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr)
    for _ in range(30):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()


def accuracy(model):
    x, y = separable()
    return float((model(x).argmax(1) == y).double().mean())


def test_a_linear_head_needs_no_more_than_its_own_size():
    model = nn.Linear(6, 2)
    before = model.weight.clone()
    found = intrinsic_dimension_of_finetuning(
        model, train, accuracy, [2, 7, 14], [0.03, 0.3], [0, 1], said=False, chance=0.5
    )
    assert found.d90 <= 14 and found.D == 14
    assert found.scores[0].mean() < found.scores[-1].mean()
    assert torch.equal(model.weight, before)
    assert found.plain.d90 <= found.d90


def test_scales_are_paid_out_of_d():
    seen = []

    def look(model, lr):
        seen.append((len(model.theta), len(model.scales), model.granularity))

    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    found = intrinsic_dimension_of_finetuning(
        lambda seed: model, look, lambda m: 1.0, [5], [0.1], [0], baseline=1.0
    )
    assert seen == [(3, 2, "tensor")] and found.d90 == 5
    with pytest.raises(ValueError, match="leaves no room"):
        intrinsic_dimension_of_finetuning(model, look, lambda m: 1.0, [2], [0.1], [0], baseline=1.0)


def test_errors():
    with pytest.raises(ValueError, match="learning rate"):
        intrinsic_dimension_of_finetuning(nn.Linear(1, 1), train, accuracy, [1], [], [0])
    with pytest.raises(ValueError, match="ascending"):
        intrinsic_dimension_of_finetuning(nn.Linear(6, 2), train, accuracy, [2, 1], [1], [0])
    with pytest.raises(ValueError, match="not above"):
        intrinsic_dimension_of_finetuning(
            nn.Linear(1, 1), train, lambda m: 0.5, [2], [1], [0], baseline=0.5, chance=0.5
        )
    assert math.isclose(compression_bound(0, 0, 1, delta=math.exp(-2)), 1)
