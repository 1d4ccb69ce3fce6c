from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from thalweg.numerics import LinearOperator, lanczos
from thalweg.numerics.lanczos import tail_mass

CI = settings(max_examples=25, deadline=None, derandomize=True)
VECTORS = Path(__file__).parents[1] / "vectors" / "sgd-dynamical-stability.npz"


def symmetric(seed, p):
    g = torch.Generator().manual_seed(seed)
    A = torch.randn(p, p, generator=g, dtype=torch.float64)
    return A + A.T, torch.randn(p, generator=g, dtype=torch.float64)


def test_all_steps_give_the_spectrum():
    A, v = symmetric(0, 12)
    alpha, beta, _ = lanczos(A, v, 12)
    T = torch.diag(alpha) + torch.diag(beta, 1) + torch.diag(beta, -1)
    torch.testing.assert_close(torch.linalg.eigvalsh(T), torch.linalg.eigvalsh(A))


@CI
@given(seed=st.integers(0, 10**6), p=st.integers(2, 30))
def test_the_basis_is_orthonormal_and_reduces_A_to_T(seed, p):
    A, v = symmetric(seed, p)
    m = max(1, p // 2)
    alpha, beta, Q = lanczos(A, v, m)
    eye = torch.eye(m, dtype=torch.float64)
    torch.testing.assert_close(Q @ Q.T, eye, atol=1e-12, rtol=0)
    T = torch.diag(alpha) + torch.diag(beta, 1) + torch.diag(beta, -1)
    torch.testing.assert_close(Q @ A @ Q.T, T, atol=1e-10, rtol=0)


@CI
@given(seed=st.integers(0, 10**6), p=st.integers(3, 40), m=st.integers(1, 20))
def test_the_mass_bound_holds(seed, p, m):
    A, v = symmetric(seed, p)
    alpha, beta, _ = lanczos(A, v, m)
    T = torch.diag(alpha) + torch.diag(beta, 1) + torch.diag(beta, -1)
    edge = torch.linalg.eigvalsh(T)[-1].item()
    values, vectors = torch.linalg.eigh(A)
    weights = (vectors.T @ (v / v.norm())) ** 2
    for mu in (edge * 1.001 + 1e-9, edge + 0.1, edge + 2.0):
        true = weights[values >= mu].sum().item()
        assert true <= tail_mass(alpha.tolist(), beta.tolist(), mu) + 1e-12


def test_vectors():
    data = np.load(VECTORS, allow_pickle=False)
    A, v = torch.from_numpy(data["est__A"]), torch.from_numpy(data["est__Omega"][:, 0])
    alpha, beta, _ = lanczos(A, v, 10)
    np.testing.assert_allclose(alpha, data["est__lanczos_alpha"], atol=1e-12)
    np.testing.assert_allclose(beta, data["est__lanczos_beta"], atol=1e-12)


def test_a_start_in_an_invariant_subspace_ends_early():
    A = torch.diag(torch.tensor([1.0, 2.0, 3.0, 4.0]).double())
    alpha, beta, Q = lanczos(A, torch.tensor([1.0, 1.0, 0.0, 0.0]).double(), 4)
    assert Q.shape == (len(alpha), 4) and len(beta) == len(alpha) - 1
    torch.testing.assert_close(alpha[:2].sum(), torch.tensor(3.0).double())


def test_errors():
    A = torch.eye(3)
    skew = LinearOperator(lambda v: v, 3, symmetric=False)
    for args, what in [
        ((A, torch.zeros(3), 2), "zero"),
        ((A, torch.ones(2), 2), "shape"),
        ((A, torch.ones(3), 0), "num_steps"),
        ((skew, torch.ones(3), 2), "symmetric"),
    ]:
        with pytest.raises(ValueError, match=what):
            lanczos(*args)
    with pytest.raises(FloatingPointError):
        lanczos(lambda v: v * float("nan"), torch.ones(3), 2, dim=3)
