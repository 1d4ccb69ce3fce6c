"""Mean-square thresholds: closed forms, all batches enumerated, someone else's numbers."""

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from thalweg.instruments import ms_threshold, second_moment_radius

CI = settings(max_examples=25, deadline=None, derandomize=True)
VECTORS = Path(__file__).parents[1] / "vectors" / "sgd-dynamical-stability.npz"


def gradients(seed, n, d, k=None):
    shape = (n, d) if k is None else (n, k, d)
    g = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=g, dtype=torch.float64)


def enumerated_radius(G, batch_size, lr):
    """Spectral radius of E[(I − ηA_S) ⊗ (I − ηA_S)] on range(H), over every batch S."""
    n, d = len(G), G.shape[-1]
    A = torch.einsum("nkd,nke->nde", G.reshape(n, -1, d), G.reshape(n, -1, d))
    steps = [
        torch.eye(d, dtype=G.dtype) - lr * A[list(S)].mean(0)
        for S in itertools.combinations(range(n), batch_size)
    ]
    second = torch.stack([torch.kron(s, s) for s in steps]).mean(0)
    H = A.mean(0)
    values, vectors = torch.linalg.eigh(H)
    V = vectors[:, values > 1e-10 * values.max()]
    P = torch.kron(V, V)
    return torch.linalg.eigvals(P.T @ second @ P).abs().max().item()


def test_orthogonal_gradients_see_the_whole_trace():
    n = 5
    G = n**0.5 * torch.eye(n, dtype=torch.float64)  # H = I
    assert ms_threshold(G, 1) == pytest.approx(2 / n, rel=1e-12)
    assert ms_threshold(G, n) == pytest.approx(2.0, rel=1e-12)


def test_single_samples_of_equal_norm_are_stable_up_to_two_over_the_trace():
    G = torch.nn.functional.normalize(gradients(0, 9, 4), dim=1)
    assert ms_threshold(G, 1) == pytest.approx(2.0, rel=1e-9)  # tr H = 1


def test_one_sample_is_gradient_descent():
    G = gradients(1, 1, 3)
    top = G.square().sum().item()
    assert ms_threshold(G, 1) == pytest.approx(2 / top, rel=1e-12)
    assert ms_threshold(torch.zeros(3, 2), 1) == math.inf
    assert second_moment_radius(torch.zeros(3, 2), 1, 0.1) == 1.0
    assert math.isnan(ms_threshold(torch.full((3, 2), math.nan), 1))


@CI
@given(
    seed=st.integers(0, 10**6),
    n=st.integers(2, 6),
    d=st.integers(1, 4),
    k=st.sampled_from([None, 1, 2]),
    data=st.data(),
)
def test_it_is_the_average_over_all_batches(seed, n, d, k, data):
    G = gradients(seed, n, d, k)
    batch_size = data.draw(st.integers(1, n))
    edge = ms_threshold(G, batch_size)
    assert enumerated_radius(G, batch_size, edge) == pytest.approx(1.0, abs=1e-6)
    lr = data.draw(st.floats(0.1, 3.0)) * edge
    expected = enumerated_radius(G, batch_size, lr)
    assert second_moment_radius(G, batch_size, lr) == pytest.approx(expected, rel=1e-6)


@CI
@given(seed=st.integers(0, 10**6), n=st.integers(2, 8), d=st.integers(1, 6))
def test_bounds_and_growth_in_the_batch_size(seed, n, d):
    G = gradients(seed, n, d)
    H = G.T @ G / n
    thresholds = [ms_threshold(G, b) for b in range(1, n + 1)]
    slack = 1 + 1e-8
    assert all(a <= b * slack for a, b in itertools.pairwise(thresholds))
    assert thresholds[-1] == pytest.approx(2 / torch.linalg.eigvalsh(H)[-1].item(), rel=1e-8)
    assert thresholds[0] <= 2 / H.trace().item() * slack
    assert ms_threshold(G, 2, replacement=True) <= thresholds[1] * slack
    assert ms_threshold(3 * G, 1) == pytest.approx(thresholds[0] / 9, rel=1e-6)


@pytest.mark.parametrize("group", ["stab0", "stab1", "stabunit"])
def test_vectors(group):
    """Dense Kronecker products in float64 elsewhere: equal but for their round-off."""
    z = np.load(VECTORS, allow_pickle=False)
    G = torch.from_numpy(z[f"{group}__G"])
    for i, b in enumerate(z[f"{group}__batch_sizes"].tolist()):
        assert ms_threshold(G, b) == pytest.approx(z[f"{group}__eta_exact"][i], rel=1e-9)
        for j, lr in enumerate(z[f"{group}__etas"].tolist()):
            rho = z[f"{group}__rho"][i, j]
            assert second_moment_radius(G, b, lr) == pytest.approx(rho, rel=1e-9)


def test_errors():
    G = gradients(0, 4, 3)
    for batch_size in (0, 5, 1.5):
        with pytest.raises(ValueError, match=r"batch_size must be in \[1, 4\]"):
            ms_threshold(G, batch_size)
    for bad in (torch.ones(3), torch.ones(2, 3, dtype=torch.long), torch.ones(0, 3)):
        with pytest.raises(ValueError, match="expected floating gradients"):
            ms_threshold(bad, 1)
    for lr in (0.0, -1.0, math.inf):
        with pytest.raises(ValueError, match="lr must be positive"):
            second_moment_radius(G, 1, lr)
