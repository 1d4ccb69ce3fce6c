from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from thalweg.instruments import effective_rank, frobenius_rank, stable_rank

CI = settings(max_examples=25, deadline=None, derandomize=True)
VECTORS = Path(__file__).parents[1] / "vectors" / "adamo-isometry.npz"
ALL = (effective_rank, stable_rank, frobenius_rank)


def test_known_spectra():
    eye = torch.eye(5)
    assert [f(eye).item() for f in ALL] == pytest.approx([5.0, 5.0, 5.0])
    rank_one = torch.outer(torch.arange(1.0, 4.0), torch.ones(6))
    assert [f(rank_one).item() for f in ALL] == pytest.approx([1.0, 1.0, 1.0], abs=1e-4)
    two = torch.diag(torch.tensor([100.0, 1.0, 0.0]))
    assert [stable_rank(two, d).item() for d in (0.001, 0.01)] == [2.0, 1.0]
    assert [f(torch.zeros(3, 2)).item() for f in ALL] == [0.0, 0.0, 0.0]


def test_vectors():
    data = np.load(VECTORS, allow_pickle=False)
    M = torch.from_numpy(data["M"])
    assert effective_rank(M).item() == pytest.approx(data["effective_rank_float64"].item())
    assert stable_rank(M).item() == data["approx_rank_099_abs_eq_srank_001"]


@CI
@given(seed=st.integers(0, 10**6), n=st.integers(1, 8), d=st.integers(1, 8))
def test_bounds_and_invariance(seed, n, d):
    g = torch.Generator().manual_seed(seed)
    H = torch.randn(n, d, generator=g).double()
    Q = torch.linalg.qr(torch.randn(n, n, generator=g).double()).Q
    for f in ALL:
        value = f(H).item()
        assert 1 - 1e-9 <= value <= min(n, d) + 1e-9
        assert f(7 * Q @ H).item() == pytest.approx(value)
        assert f(torch.stack([H, H.flip(0)])).tolist() == pytest.approx([value, value])


def test_nan_dtype_and_errors():
    bad = torch.eye(2).clone()
    bad[0, 0] = float("inf")
    for f in ALL:
        assert f(bad).isnan() and f(torch.eye(2, dtype=torch.bfloat16)).dtype == torch.float32
        assert f(torch.eye(2).double()).dtype == torch.float64
        for H in (torch.ones(3), torch.ones(0, 2), torch.ones(2, 2, dtype=torch.int64)):
            with pytest.raises(ValueError, match="floating"):
                f(H)
    with pytest.raises(ValueError, match="delta"):
        stable_rank(torch.eye(2), 1.0)
