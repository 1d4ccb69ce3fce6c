"""Clipping at the running maximum, rescaling to the running norm."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from thalweg.optim import ClipState, NormState, adaclip, adagn


def test_the_first_gradient_is_not_clipped_and_gets_norm_one():
    g = torch.tensor([3.0, -4.0], dtype=torch.float64)
    clipped, clip = adaclip(g)
    assert torch.allclose(clipped, g, rtol=1e-12) and clip.num_steps == 1
    scaled, norm = adagn(clipped)
    assert torch.allclose(scaled, g / 5, rtol=1e-7)  # ε
    assert isinstance(clip, ClipState) and isinstance(norm, NormState)
    assert norm.norm.item() == pytest.approx(0.3 * 5)
    assert norm.square.item() == pytest.approx(0.1 * 25)


def test_a_spike_after_steady_gradients_is_clipped_to_twice_their_maximum():
    state, steady = None, torch.tensor([1.0, 0.5], dtype=torch.float64)
    for _ in range(20_000):  # the average forgets its start as 0.999^t
        _, state = adaclip(steady, state)
    clipped, _ = adaclip(torch.tensor([1000.0, 0.5], dtype=torch.float64), state)
    assert clipped.tolist() == pytest.approx([0.999 + 0.001 * 1000, 0.5])


def test_entries_over_the_limit_keep_their_ratios_and_the_others_are_untouched():
    state = None
    for _ in range(100):
        _, state = adaclip(torch.ones(3, dtype=torch.float64), state)
    g = torch.tensor([1000.0, -500.0, 1.0], dtype=torch.float64)
    clipped, _ = adaclip(g, state)
    assert clipped[0] / clipped[1] == pytest.approx(-2) and clipped[2] == 1
    assert clipped[0] < 20 and g[0] == 1000


def test_zero_gradients_stay_zero():
    zero = torch.zeros(3)
    clipped, clip = adaclip(zero)
    scaled, norm = adagn(clipped)
    assert torch.equal(scaled, zero)
    assert torch.equal(adagn(adaclip(zero, clip)[0], norm)[0], zero)


@given(st.integers(0, 10**6), st.floats(1e-3, 1e3))
def test_the_scale_of_all_gradients_does_not_matter(seed, scale):
    generator = torch.Generator().manual_seed(seed)
    states = [(None, None), (None, None)]
    for g in torch.randn(6, 5, generator=generator, dtype=torch.float64):
        found = []
        for i, factor in enumerate((1.0, scale)):
            u, clip = adaclip(factor * g, states[i][0])
            u, norm = adagn(u, states[i][1], eps=0.0)
            states[i] = clip, norm
            found.append(u)
        assert torch.allclose(*found, rtol=1e-9)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_is_kept_and_its_statistics_are_float32(dtype):
    u, clip = adaclip(torch.ones(3, dtype=dtype))
    u, norm = adagn(u)
    assert u.dtype == dtype
    assert {clip.maximum.dtype, norm.norm.dtype, norm.square.dtype} == {torch.float32}
