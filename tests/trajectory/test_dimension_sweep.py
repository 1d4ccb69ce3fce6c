import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from thalweg.trajectory import IntrinsicDimensionResult
from thalweg.trajectory.dimension_sweep import best_scores, offer

CI = settings(max_examples=25, deadline=None, derandomize=True)


def result(scores, dims=(10, 20, 40), baseline=1.0, chance=0.0):
    scores = torch.as_tensor(scores, dtype=torch.float64)
    full = torch.full((scores.shape[1],), baseline, dtype=torch.float64)
    return IntrinsicDimensionResult(dims, scores, full, 0.9, chance, 100)


def test_interpolates_in_the_logarithm():
    found = result([[0.5], [0.8], [1.0]])
    assert found.d90 == 40
    assert found.interpolated == pytest.approx(20 * 2**0.5)
    assert found.ci == (40, 40)


def test_chance_takes_more():
    found = result([[0.6], [0.69], [0.75]], baseline=0.75, chance=0.5)
    assert found.d90 == 40 and found.plain.d90 == 20
    np.testing.assert_allclose(found.curve()[1], [0.4, 0.76, 1.0])


def test_the_first_and_no_dimension():
    assert result([[0.95], [0.8], [0.99]]).d90 == 10
    assert result([[0.95], [0.8], [0.99]]).interpolated == 10
    assert result([[0.1], [0.2], [0.3]]).d90 == math.inf
    low, high = result([[0.1, 0.2], [0.2, 0.8], [0.3, 1.0]]).ci
    assert (low, high) == (40, math.inf)


@CI
@given(seed=st.integers(0, 10**6), K=st.integers(1, 8), S=st.integers(1, 6))
def test_the_slow_way(seed, K, S):
    generator = torch.Generator().manual_seed(seed)
    scores = torch.rand(K, S, generator=generator, dtype=torch.float64).sort(0).values
    dims = tuple((torch.rand(K, generator=generator) * 20 + 1).int().cumsum(0).tolist())
    found = result(scores, dims, baseline=0.8)
    shares = scores.mean(1) / 0.8
    grid = between = math.inf
    for k in range(K):
        if shares[k] >= 0.9:
            grid = between = float(dims[k])
            if k:
                between = float(np.interp(0.9, shares[k - 1 : k + 1], np.log(dims[k - 1 : k + 1])))
                between = math.exp(between)
            break
    assert found.d90 == grid and found.interpolated == pytest.approx(between)
    low, high = found.interpolated_ci
    assert low <= high
    assert found.interpolated <= found.d90


def test_offer():
    assert offer(lambda: 1, lr=2) == 1
    assert offer(lambda m, **more: more, 0, lr=2, seed=3) == {"lr": 2, "seed": 3}
    assert offer(lambda m, a, b: (a, b), 0, lr=2, seed=3) == (2, 3)
    assert offer(lambda m, seed, a=5: (a, seed), 0, lr=2, seed=3) == (5, 3)


def test_nothing_finite():
    with pytest.raises(ValueError, match="lower the learning rates"):
        best_scores(lambda s: torch.nn.Linear(1, 1), lambda m: 0, lambda m: math.nan, [1.0], [0])
