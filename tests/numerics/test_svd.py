import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from thalweg.numerics import randomized_svd

CI = settings(max_examples=25, deadline=None, derandomize=True)


@CI
@given(seed=st.integers(0, 10**6), m=st.integers(1, 40), n=st.integers(1, 40), r=st.integers(1, 5))
def test_low_rank_is_exact_and_factors_are_orthonormal(seed, m, n, r):
    g = torch.Generator().manual_seed(seed)
    r = min(r, m, n)
    A = torch.randn(m, r, generator=g).double() @ torch.randn(r, n, generator=g).double()
    U, S, Vh = randomized_svd(A, r)
    torch.testing.assert_close((U * S) @ Vh, A, atol=1e-9, rtol=1e-9)
    eye = torch.eye(r, dtype=A.dtype)
    torch.testing.assert_close(U.T @ U, eye)
    torch.testing.assert_close(Vh @ Vh.T, eye)


def test_leading_values_of_a_decaying_spectrum():
    g = torch.Generator().manual_seed(0)
    s = 0.8 ** torch.arange(60).double()
    Q = torch.linalg.qr(torch.randn(100, 60, generator=g).double()).Q
    W = torch.linalg.qr(torch.randn(60, 60, generator=g).double()).Q
    S = randomized_svd((Q * s) @ W, 5).S
    torch.testing.assert_close(S, s[:5], rtol=1e-8, atol=0)
    assert (randomized_svd((Q * s) @ W, 5, power_iterations=0, oversample=0).S <= s[:5]).all()


def test_dtype_is_kept():
    for dtype in (torch.bfloat16, torch.float32, torch.float64):
        assert randomized_svd(torch.eye(4, dtype=dtype), 2).U.dtype == dtype


def test_errors():
    for args in ((torch.ones(3), 1), (torch.ones(3, 3), 4), (torch.full((2, 2), float("inf")), 1)):
        with pytest.raises(ValueError, match="randomized_svd"):
            randomized_svd(*args)
