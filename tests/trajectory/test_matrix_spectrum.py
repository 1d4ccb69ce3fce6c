"""Singular values and directions by Gram matrices, against dense decompositions and vectors."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from thalweg.trajectory import principal_angles, spectral_drift
from thalweg.trajectory.matrix_spectrum import ROWS, matrix_spectrum, times

V = np.load(Path(__file__).parents[1] / "vectors" / "rlvr-off-principals.npz", allow_pickle=False)


def draw(m, n, seed=0, dtype=torch.float64):
    return torch.randn(m, n, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def orthogonal(n, seed=0):
    return torch.linalg.qr(draw(n, n, seed)).Q


@given(m=st.integers(1, 12), n=st.integers(1, 12), k=st.integers(0, 15), seed=st.integers(0, 999))
def test_it_is_the_dense_decomposition(m, n, k, seed):
    W = draw(m, n, seed)
    found = matrix_spectrum(W, k)
    U, S, Vh = torch.linalg.svd(W, full_matrices=False)
    k = min(k, m, n)
    torch.testing.assert_close(found.values, S, atol=1e-8 * float(S[0]), rtol=0)
    assert found.left.shape == (m, k) and found.right.shape == (n, k)
    dense = (U[:, :k] * S[:k]) @ Vh[:k]
    torch.testing.assert_close(found.reconstruction(k), dense.float(), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(found.left.T @ found.left, torch.eye(k).double(), atol=1e-12, rtol=0)


def test_blocks_of_rows():
    W = draw(ROWS + 5, 3, dtype=torch.bfloat16)
    for A in (W, W.T):
        S = torch.linalg.svdvals(A.double())
        torch.testing.assert_close(matrix_spectrum(A, 2).values, S, atol=1e-9, rtol=0)
        V = draw(A.shape[1], 2)
        torch.testing.assert_close(times(A, V), A.double() @ V, atol=1e-9, rtol=0)


def test_randomised_above_a_size():
    W = draw(30, 5) @ draw(5, 20)
    found = matrix_spectrum(W, 5, max_svd_dim=10)
    assert not found.exact and len(found.values) == 5 and math.isnan(found.gap(5))
    torch.testing.assert_close(found.values, torch.linalg.svdvals(W)[:5])
    assert matrix_spectrum(W, 2, svd="randomized").left.shape == (30, 2)


def test_gaps():
    found = matrix_spectrum(torch.diag(torch.tensor([3.0, 2.0])), 2)
    assert found.gap(1) == pytest.approx(1) and found.gap(2) == pytest.approx(2)


# Drift and angles


def test_scaling_moves_the_spectrum_and_no_direction():
    W = draw(8, 5)
    assert spectral_drift(W, 1.25 * W) == pytest.approx(0.25, rel=1e-12)
    assert principal_angles(W, 1.25 * W, k=3).max() < 1e-5
    assert spectral_drift(W, W) == 0


def test_a_rotation_moves_one_side():
    W, Q = draw(8, 5), orthogonal(8)
    assert spectral_drift(W, Q @ W) < 1e-14
    left, right = principal_angles(W, Q @ W, k=2)
    U = torch.linalg.svd(W).U[:, :2]
    cosines = torch.linalg.svdvals(U.T @ Q @ U)
    torch.testing.assert_close(left, cosines.acos().rad2deg(), atol=1e-6, rtol=0)
    assert right.max() < 1e-5
    torch.testing.assert_close(principal_angles(W, Q @ W, 2, side="left"), left)


@pytest.mark.parametrize("phi", [1e-6, 0.01, 0.7])
def test_small_angles_keep_their_digits(phi):
    c, s = math.cos(phi), math.sin(phi)
    W = torch.diag(torch.tensor([2.0, 1.0], dtype=torch.float64))
    Q = torch.tensor([[c, -s], [s, c]], dtype=torch.float64)
    angle = principal_angles(W, Q @ W, k=1, side="left")
    assert angle.item() == pytest.approx(math.degrees(phi), rel=1e-8)


def test_a_bump_on_the_diagonal():
    W, bump = torch.diag(torch.tensor([3.0, 2.0, 1.0])), torch.zeros(3, 3)
    bump[0, 0] = 0.5
    assert spectral_drift(W, W + bump) == pytest.approx(0.5 / math.sqrt(14), rel=1e-6)
    assert principal_angles(W, W + bump, k=1).max() == 0


@given(m=st.integers(2, 9), n=st.integers(2, 9), seed=st.integers(0, 999), s=st.floats(1e-4, 3))
def test_drift_is_below_the_relative_norm(m, n, seed, s):
    W, D = draw(m, n, seed), s * draw(m, n, seed + 1)
    assert spectral_drift(W, W + D) <= float(D.norm() / W.norm()) * (1 + 1e-12)
    k = 1
    S0, S1 = torch.linalg.svdvals(W), torch.linalg.svdvals(W + D)
    gap = float(S0[k - 1] - S1[k])
    if gap > 0:  # Wedin, with the perturbed gap
        sine = principal_angles(W, W + D, k).deg2rad().sin().max()
        assert sine <= torch.linalg.matrix_norm(D, 2) / gap + 1e-9


def test_vectors():
    W0, W1, k = torch.from_numpy(V["W0"]), torch.from_numpy(V["W1"]), int(V["k"])
    left, right = principal_angles(W0, W1, k)
    # By Gram matrices, directions are exact to 1e-8 or so.
    np.testing.assert_allclose(left, V["angles_U_deg"], atol=1e-6)
    np.testing.assert_allclose(right, V["angles_V_deg"], atol=1e-6)
    assert spectral_drift(W0, W1) == pytest.approx(float(V["nss"]), rel=1e-10)


def test_errors():
    W = draw(3, 3)
    with pytest.raises(ValueError, match="one shape"):
        spectral_drift(W, W[:2])
    with pytest.raises(ValueError, match="finite"):
        principal_angles(W, W * float("nan"), k=1)
    with pytest.raises(ValueError, match="side left"):
        principal_angles(W, W, side="top")
    with pytest.raises(ValueError, match="matrix"):
        matrix_spectrum(W[0])
