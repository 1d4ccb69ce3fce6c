"""The figures of one tensor, known answers and the control."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from thalweg.trajectory import GeometrySettings, TensorGeometry
from thalweg.trajectory.checkpoint_pairs import WeightPair
from thalweg.trajectory.update_geometry import tensor_geometry


def geometry(W0, W1, **settings) -> TensorGeometry:
    return tensor_geometry(WeightPair("w", "else", None, W0, W1), GeometrySettings(**settings))


def draw(m=24, n=16, seed=0):
    return torch.randn(m, n, generator=torch.Generator().manual_seed(seed))


def test_no_change():
    t = geometry(draw(), draw())
    assert (t.sparsity, t.changed, t.drift, t.angle_left, t.angle_right) == (1, 0, 0, 0, 0)
    assert all(math.isnan(x) for x in (t.low, t.principal, t.energy, t.low_lift, t.energy_lift))


@pytest.mark.parametrize(("eps", "sparsity"), [(2**-6, 0.0), (2**-10, 1.0)])
def test_a_scaled_matrix(eps, sparsity):
    W = draw().bfloat16().float()
    t = geometry(W, (1 + eps) * W, k=16)
    assert t.drift == pytest.approx(eps, rel=1e-4) and t.energy == pytest.approx(1)
    assert t.sparsity == sparsity and t.relative_norm == pytest.approx(eps, rel=1e-4)
    partial = geometry(W, (1 + eps) * W, k=4)
    assert max(partial.angle_left, partial.angle_right) < 1e-3  # float32 inputs


def test_wedin_bounds_the_angles_and_a_closed_gap_is_flagged():
    W = torch.diag(torch.tensor([9.0, 8.0, 2.0, 1.0])).double()
    t = geometry(W, W + 0.1 * draw(4, 4).double(), k=2)
    assert math.sin(math.radians(t.angle_left)) <= t.wedin and t.angles_certain
    assert t.gap == pytest.approx(6)
    flat = geometry(torch.eye(4), torch.eye(4) + 0.1 * draw(4, 4), k=2)
    assert not flat.angles_certain


@given(seed=st.integers(0, 10**4), scale=st.sampled_from([1e-4, 1e-3, 1e-2]))
def test_noise_is_no_more_than_noise(seed, scale):
    W = 0.05 * draw(96, 64, seed)
    t = geometry(W, W + scale * draw(96, 64, seed + 1), k=8, r=8)
    assert t.low_lift == pytest.approx(1, abs=0.12)
    assert t.principal_lift == pytest.approx(1, abs=0.15)
    assert t.drift == pytest.approx(t.drift_control, rel=0.5)


def test_a_change_of_small_weights_alone_shows():
    W = 0.05 * draw(96, 64)
    small = W.abs() < W.abs().median()
    t = geometry(W, W + 1e-3 * draw(96, 64, 1) * small, k=8, r=8)
    assert t.low == 1 and t.low_lift > 1.1 and t.principal_lift < 1


def test_without_control_and_for_vectors():
    t = geometry(draw(), draw() + 1, control=None)
    assert math.isnan(t.low_control) and math.isnan(t.drift_control) and t.low > 0
    bias = geometry(draw()[0], draw()[0] + 1)
    assert bias.k == 0 and bias.changed == 16 and math.isnan(bias.low)
    assert bias.change_norm == pytest.approx(4)


def test_shuffled_control():
    W = 0.05 * draw(96, 64)
    t = geometry(W, W + 1e-3 * draw(96, 64, 1), k=8, r=8, control="shuffle")
    assert t.low_lift == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize(
    "settings",
    [{"alpha": 0}, {"k": 0}, {"control": "pink"}, {"eta": 1}, {"svd": "fast"}, {"n_control": 0}],
)
def test_settings_are_checked(settings):
    with pytest.raises(ValueError, match="expected 0 <= eta < 1"):
        GeometrySettings(**settings)
