import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from thalweg.numerics import dense_projection, sparse_projection

CI = settings(max_examples=25, deadline=None, derandomize=True)


def as_matrix(rows, columns, values, D, d):
    P = torch.zeros(D, d, dtype=values.dtype)
    P[rows, columns] = values
    return P


@CI
@given(seed=st.integers(0, 10**6), D=st.integers(1, 300), d=st.integers(1, 20))
def test_columns_have_unit_length(seed, D, d):
    ones = torch.ones(d, dtype=torch.float64)
    P = dense_projection(D, d, seed, dtype=torch.float64)
    torch.testing.assert_close(P.norm(dim=0), ones)
    rows, columns, values = sparse_projection(D, d, seed, dtype=torch.float64)
    assert len(torch.unique(columns * D + rows)) == len(rows)
    torch.testing.assert_close(as_matrix(rows, columns, values, D, d).norm(dim=0), ones)


def test_dense_is_the_normalised_gaussian_of_its_seed():
    G = torch.randn(7, 3, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    P = dense_projection(7, 3, 5, dtype=torch.float64)
    torch.testing.assert_close(P, G / G.norm(dim=0))
    Q = dense_projection(7, 3, 5, orthonormal=True, dtype=torch.float64)
    torch.testing.assert_close(Q.T @ Q, torch.eye(3).double())
    torch.testing.assert_close(Q @ (Q.T @ P), P)  # the same columns' span
    assert dense_projection(7, 3, 5).dtype == torch.float32


def test_blocks_are_one_matrix(monkeypatch):
    monkeypatch.setattr("thalweg.numerics.projections.BLOCK", 48)
    P = dense_projection(50, 3, 1, dtype=torch.float64)
    torch.testing.assert_close(P.norm(dim=0), torch.ones(3).double())
    assert len(P.unique()) == 150


def test_sparse_entries_are_independent_coin_tosses():
    D, d = 10_000, 40
    rows, columns, values = sparse_projection(D, d, 0, dtype=torch.float64)
    counts = torch.bincount(columns, minlength=d).double()
    # 40 binomial counts of mean 100 and variance 99: mean within 4 sd/√40, spread near 1.
    assert abs(counts.mean() - 100) < 4 * (99 / d) ** 0.5
    assert 0.6 < counts.var() / 99 < 1.7
    assert abs(values.sign().sum()) < 4 * len(values) ** 0.5
    assert abs(rows.double().mean() / D - 0.5) < 4 / (12 * len(rows)) ** 0.5


def test_the_random_state_is_left_alone():
    state = torch.get_rng_state()
    dense_projection(9, 2, 0)
    sparse_projection(9, 2, 0)
    assert torch.equal(state, torch.get_rng_state())


def test_errors():
    with pytest.raises(ValueError, match="1 <= d <= D, got d=4, D=3"):
        dense_projection(3, 4, 0, orthonormal=True)
    for draw in (dense_projection, sparse_projection):
        with pytest.raises(ValueError, match="positive, got d=0"):
            draw(3, 0, 0)
