"""Activation statistics."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from thalweg.instruments import activation_rms, dormant_fraction

VECTORS = Path(__file__).parents[1] / "vectors" / "adamo-isometry.npz"


def _naive_dormant(h, tau):
    """Unit by unit, as the definition reads; units last."""
    flat = h.reshape(-1, h.shape[-1])
    size = [flat[:, i].abs().mean().item() for i in range(flat.shape[1])]
    mean = sum(size) / len(size)
    return sum(s <= tau * mean for s in size) / len(size)


@given(
    seed=st.integers(0, 10_000),
    tau=st.sampled_from([0.0, 0.025, 0.1, 0.5, 1.0]),
    shape=st.sampled_from([(5, 7), (2, 3, 4), (1, 9), (6, 1)]),
)
def test_dormant_fraction_against_the_definition(seed, tau, shape):
    h = torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).relu().double()
    h[..., 0] = 0
    assert dormant_fraction(h, tau).item() == pytest.approx(_naive_dormant(h, tau))


@given(seed=st.integers(0, 1000), scale=st.floats(1e-3, 1e3))
def test_dormancy_is_scale_and_permutation_invariant_and_grows_with_tau(seed, scale):
    g = torch.Generator().manual_seed(seed)
    h = torch.randn(8, 16, generator=g).relu().double()
    order = torch.randperm(16, generator=g)
    assert dormant_fraction(scale * h, 0.1) == dormant_fraction(h, 0.1)
    assert dormant_fraction(h[:, order], 0.1) == dormant_fraction(h, 0.1)
    at = [dormant_fraction(h, t).item() for t in (0, 0.1, 0.5, 2)]
    assert at == sorted(at) and 0 <= at[0] and at[-1] <= 1


def test_known_answers():
    assert dormant_fraction(torch.zeros(4, 3)) == 1  # all dead: the guarded 0/0
    channels = torch.ones(2, 4, 3, 3)
    channels[:, 1] = 0
    assert dormant_fraction(channels, dim=1) == 0.25
    assert activation_rms(torch.full((3, 5), -2.0)) == 2
    half = torch.full((4096,), 300.0, dtype=torch.float16)  # squares overflow half precision
    assert activation_rms(half) == 300


def test_vectors():
    """Scores of a hidden layer: the share at or below each of them is what tau finds."""
    data = np.load(VECTORS, allow_pickle=False)
    x = torch.from_numpy(data["gnt_X_steps"]).flatten(0, 1)
    h = torch.relu(x @ torch.from_numpy(data["gnt_w1"]).T + torch.from_numpy(data["gnt_b1"]))
    for tau in (0.0, *data["redo_scores"]):
        expected = (data["redo_scores"] <= tau * (1 + 1e-9)).mean()
        assert dormant_fraction(h, tau=tau * (1 + 1e-9)).item() == pytest.approx(expected)


def test_empty_nonfinite_and_bad_input():
    assert activation_rms(torch.zeros(0, 3)).isnan()
    assert dormant_fraction(torch.zeros(0, 3)).isnan()
    assert dormant_fraction(torch.tensor([[1.0, float("nan")]])).isnan()
    assert dormant_fraction(torch.tensor([[1.0, float("inf")]])).isnan()
    with pytest.raises(ValueError, match="tau must be >= 0"):
        dormant_fraction(torch.ones(2, 2), -0.1)
    with pytest.raises(ValueError, match="0-d"):
        dormant_fraction(torch.tensor(1.0))
