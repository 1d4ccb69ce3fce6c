"""Weight and update norms."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from thalweg.instruments import distance_from_init, update_norm, update_ratio, weight_norm


def _pair(seed, n=4):
    g = torch.Generator().manual_seed(seed)
    a = [torch.randn(i + 1, 2, generator=g, dtype=torch.float64) for i in range(n)]
    return a, [t + 0.1 * torch.randn(t.shape, generator=g, dtype=torch.float64) for t in a]


@given(seed=st.integers(0, 10_000))
def test_against_flat_vectors(seed):
    before, after = _pair(seed)
    x, y = torch.cat([t.flatten() for t in before]), torch.cat([t.flatten() for t in after])
    assert torch.allclose(weight_norm(after).total, y.norm())
    assert torch.allclose(update_norm(after, before).total, (y - x).norm())
    assert torch.allclose(update_ratio(after, before).total, (y - x).norm() / x.norm())
    assert torch.allclose(distance_from_init(after, before).total, (y - x).norm())
    each = torch.stack([(b - a).norm() for a, b in zip(before, after, strict=True)])
    assert torch.allclose(update_norm(after, before).each, each)


@given(seed=st.integers(0, 10_000), scale=st.floats(0.01, 100))
def test_ratio_is_scale_free_and_norms_scale(seed, scale):
    before, after = _pair(seed)
    scaled = [[scale * t for t in ts] for ts in (after, before)]
    assert torch.allclose(update_ratio(*scaled).each, update_ratio(after, before).each)
    assert torch.allclose(update_norm(*scaled).each, scale * update_norm(after, before).each)


def test_zero_weights_and_zero_moves():
    zero, one = [torch.zeros(2)], [torch.ones(2)]
    assert math.isinf(update_ratio(one, zero).total)
    assert math.isnan(update_ratio(zero, zero).total)
    assert update_norm(one, one).each.tolist() == [0.0]


def test_lists_that_do_not_match():
    with pytest.raises(ValueError, match=r"update_norm: the two lists must hold tensors"):
        update_norm([torch.ones(2)], [torch.ones(3)])
    with pytest.raises(ValueError, match="distance_from_init"):
        distance_from_init([torch.ones(2)], [])
