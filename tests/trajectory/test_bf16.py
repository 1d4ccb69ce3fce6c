"""The spacing of bfloat16 and what it hides, against closed forms and own vectors."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from thalweg.trajectory import bf16_ulp, bf16_visible

V = np.load(Path(__file__).parents[1] / "vectors" / "rlvr-off-principals.npz", allow_pickle=False)


def test_one_and_its_neighbours():
    one = torch.ones((), dtype=torch.float64)
    assert bf16_ulp(one).item() == 2**-7 and bf16_ulp(one).dtype == torch.float64
    # half a spacing is a tie and goes to the even number, below 1 the spacing halves
    seen = {2**-8: False, 2**-8 * 1.01: True, -(2**-9): False, -(2**-8): True}
    for step, visible in seen.items():
        assert bool(bf16_visible(one, one + step)) is visible
    assert (one + 2**-8 * 1.01).bfloat16().item() == 1.0078125
    assert bf16_ulp(torch.tensor(0.02)).item() == pytest.approx(1.2207e-4, rel=1e-4)


def test_the_ends_of_the_range():
    w = torch.tensor([0.0, 1e-40, 2.0**-126, float("inf"), float("nan"), -3.0])
    assert bf16_ulp(w)[:3].tolist() == [2.0**-133] * 3
    assert bf16_ulp(w)[3:5].isnan().all() and bf16_ulp(w)[5] == 2**-6
    assert not bf16_visible(torch.zeros(1), -torch.zeros(1))
    assert bf16_visible(torch.ones(1), torch.full((1,), float("nan")))


def test_vectors():
    ulp = bf16_ulp(torch.from_numpy(V["ulp_x"]))
    assert ulp.tolist() == V["ulp"].tolist()  # powers of two: exact
    W0, W1 = torch.from_numpy(V["W0"]), torch.from_numpy(V["W1"])
    mask = bf16_visible(W0, W1, float(V["eta"]))
    assert torch.equal(mask, torch.from_numpy(V["update_mask"]))
    assert 1 - mask.double().mean().item() == pytest.approx(float(V["sparsity"]), abs=1e-15)


@given(seed=st.integers(0, 10**6), eta=st.sampled_from([0.0, 1e-3, 0.02, 0.3]))
def test_visible_is_the_definition_and_symmetric(seed, eta):
    g = torch.Generator().manual_seed(seed)
    a = torch.randn(200, generator=g)
    b = a * (1 + 10 ** -torch.empty(200).uniform_(0, 4, generator=g))
    x, y = a.bfloat16().double(), b.bfloat16().double()
    expected = (y - x).abs() > eta * torch.maximum(x.abs(), y.abs())
    assert torch.equal(bf16_visible(a, b, eta), expected)
    assert torch.equal(bf16_visible(b, a, eta), expected)


@given(seed=st.integers(0, 10**6), dtype=st.sampled_from([torch.float32, torch.bfloat16]))
def test_next_number_lies_one_ulp_away(seed, dtype):
    g = torch.Generator().manual_seed(seed)
    w = torch.randn(50, generator=g).mul(10).bfloat16()
    after = (w.abs().view(torch.int16) + 1).view(torch.bfloat16)
    assert torch.equal(after.float() - w.float().abs(), bf16_ulp(w.to(dtype)))


def test_errors():
    with pytest.raises(TypeError, match=r"floating tensors, got torch\.int64"):
        bf16_ulp(torch.ones(2, dtype=torch.int64))
    with pytest.raises(TypeError, match="got list"):
        bf16_visible([1.0], torch.ones(1))
    with pytest.raises(ValueError, match="one shape"):
        bf16_visible(torch.ones(2), torch.ones(1))
    with pytest.raises(ValueError, match="eta < 1"):
        bf16_visible(torch.ones(2), torch.ones(2), eta=1.0)
