from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import hadamard

from thalweg.numerics import (
    fastfood,
    fastfood_factors,
    fwht,
    reduced_factors,
    reduced_fastfood,
)

CI = settings(max_examples=25, deadline=None, derandomize=True)
VECTORS = Path(__file__).parents[1] / "vectors" / "intrinsic-dimension.npz"


@CI
@given(seed=st.integers(0, 10**6), levels=st.integers(0, 8), dim=st.integers(-2, 1))
def test_fwht_is_the_hadamard_matrix(seed, levels, dim):
    n = 2**levels
    x = torch.randn(n, n, generator=torch.Generator().manual_seed(seed)).double()
    H = torch.from_numpy(hadamard(n)).double()
    expected = H @ x if dim in (-2, 0) else x @ H
    torch.testing.assert_close(fwht(x, dim), expected)
    torch.testing.assert_close(fwht(fwht(x, dim, True), dim, True), x)


def test_fwht_vectors():
    data = {k: v for k, v in np.load(VECTORS, allow_pickle=False).items()}
    x = torch.from_numpy(data["fwht_x"])
    np.testing.assert_allclose(fwht(x), data["fwht_unnormalised"], atol=1e-12)
    np.testing.assert_allclose(fwht(x, normalize=True), data["fwht_normalised"], atol=1e-12)
    y = fwht(torch.from_numpy(data["fwht_axis_x"]), 1, normalize=True)
    np.testing.assert_allclose(y, data["fwht_axis1_normalised"], atol=1e-12)


@pytest.mark.parametrize("case", ["a", "b", "c"])
def test_fastfood_vectors(case):
    data = np.load(VECTORS, allow_pickle=False)
    B, Pi, G, theta = (torch.from_numpy(data[f"ff_{case}_{k}"]) for k in ("B", "Pi", "G", "theta"))
    D = int(data[f"ff_{case}_D"])
    np.testing.assert_allclose(
        fastfood(theta, D, factors=(B, Pi, G)), data[f"ff_{case}_y"], atol=1e-12
    )
    P = fastfood(torch.eye(len(theta)).double(), D, factors=(B, Pi, G, None)).T
    np.testing.assert_allclose(P, data[f"ff_{case}_P"], atol=1e-12)
    np.testing.assert_allclose(P.norm(dim=0), data[f"ff_{case}_colnorm"], atol=1e-12)
    if case == "b":
        theta.requires_grad_()
        target = torch.from_numpy(data["ff_b_target"])
        loss = 0.5 * (fastfood(theta, D, factors=(B, Pi, G)) - target).square().sum()
        np.testing.assert_allclose(torch.autograd.grad(loss, theta)[0], data["ff_b_grad"])


@CI
@given(seed=st.integers(0, 10**6), d=st.integers(1, 16))
def test_columns_have_unit_length_without_padding(seed, d):
    P = fastfood(torch.eye(d).double(), 16, seed=seed).T
    torch.testing.assert_close(P.norm(dim=0), torch.ones(d).double())


def test_gradcheck_and_scale():
    x = torch.randn(3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda t: fastfood(t, 6, seed=1), x)
    B, Pi, G = torch.ones(8), torch.arange(8), torch.ones(8)
    # with no signs, no mixing and S = 1/8, the two transforms undo each other
    y = fastfood(torch.tensor([1.0, 2.0]), 8, factors=(B, Pi, G, 1 / 8))
    assert y.tolist() == [1.0, 2.0, 0, 0, 0, 0, 0, 0]


def test_dtype_is_kept_and_the_seed_is_all():
    for dtype in (torch.bfloat16, torch.float32, torch.float64):
        assert fastfood(torch.ones(2, dtype=dtype), 5, seed=0).dtype == dtype
    state = torch.get_rng_state()
    fastfood(torch.ones(2), 5, seed=0)
    assert torch.equal(state, torch.get_rng_state())


def test_errors():
    x = torch.ones(4)
    for kwargs in ({"D": 3, "seed": 0}, {"D": 8}, {"D": 8, "seed": 0, "factors": ()}):
        with pytest.raises(ValueError, match="fastfood"):
            fastfood(x, **kwargs)
    with pytest.raises(ValueError, match="length 8"):
        fastfood(x, 8, factors=(x, torch.arange(4), x))
    with pytest.raises(ValueError, match="power of two"):
        fwht(torch.ones(6))
    with pytest.raises(ValueError, match="floating"):
        fwht(torch.ones(4, dtype=torch.int64))


@CI
@given(seed=st.integers(0, 10**6), d=st.integers(1, 40), D=st.integers(1, 40))
def test_reduced_factors_give_the_three_step_map(seed, d, D):
    factors = fastfood_factors(max(d, D), seed, dtype=torch.float64)
    B, Pi, G, _ = factors
    H = torch.from_numpy(hadamard(len(G))).double()
    x = torch.randn(d, generator=torch.Generator().manual_seed(seed)).double()
    padded = torch.zeros(len(G)).double()
    padded[:d] = x
    slow = (H @ (G * (H @ (B * padded))[Pi]))[:D] / (D * G.square().sum()).sqrt()
    torch.testing.assert_close(reduced_fastfood(x, D, *reduced_factors(factors, d, D)), slow)


def test_half_precision_is_computed_in_single():
    x = torch.randn(5, generator=torch.Generator().manual_seed(0)).bfloat16()
    expected = fastfood(x.float(), 9, seed=0).bfloat16()
    assert torch.equal(fastfood(x, 9, seed=0), expected)


def test_factors_that_are_too_short():
    with pytest.raises(ValueError, match="length 8 do not reach d=2, D=9"):
        reduced_factors(fastfood_factors(8, 0), 2, 9)
