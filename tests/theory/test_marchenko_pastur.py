import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from thalweg.theory import mp_density, mp_quadrature, mp_support

ALPHAS = st.floats(0.01, 50)


@given(ALPHAS)
def test_moments_of_the_quadrature_are_exact(alpha):
    nodes, weights, atom = mp_quadrature(alpha)
    # Relative 1e-12: 400 terms, each at round-off.
    assert weights.sum().item() == pytest.approx(min(1, alpha), rel=1e-12)
    assert (weights * nodes).sum().item() == pytest.approx(alpha, rel=1e-12)
    assert (weights * nodes**2).sum().item() == pytest.approx(alpha**2 + alpha, rel=1e-12)
    assert atom == max(0.0, 1 - alpha)
    low, high = mp_support(alpha)
    assert low <= nodes.min() and nodes.max() <= high


@pytest.mark.parametrize("alpha", [0.2, 0.9, 1.1, 3.0])
def test_the_inverse_moment(alpha):
    nodes, weights, _ = mp_quadrature(alpha)
    exact = 1 / (alpha - 1) if alpha > 1 else alpha / (1 - alpha)
    assert (weights / nodes).sum().item() == pytest.approx(exact, rel=1e-10)


def test_the_hard_edge_is_resolved():
    # ∫ρ(1 − e^(−λt))²/λ at α = 1 grows as 2(2 − √2)/√π √t, the derived constant of the hard edge.
    constant = 2 * (2 - math.sqrt(2)) / math.sqrt(math.pi)
    for t in (1e6, 1e10):
        sums = []
        for n in (400, 1200):
            nodes, weights, _ = mp_quadrature(1.0, n)
            sums.append((weights * torch.expm1(-nodes * t) ** 2 / nodes).sum().item())
        assert sums[0] == pytest.approx(sums[1], rel=1e-6)
        assert sums[1] == pytest.approx(constant * math.sqrt(t), rel=2 / math.sqrt(t))


@pytest.mark.parametrize("alpha", [0.3, 1.0, 2.5])
def test_the_density_integrates_to_the_quadrature(alpha):
    low, high = mp_support(alpha)
    grid = torch.linspace(low, high, 2_000_001, dtype=torch.float64)
    density = mp_density(grid, alpha)
    # A plain sum: its error goes as the square root of the spacing where the density is singular.
    assert (density.sum() * (grid[1] - grid[0])).item() == pytest.approx(min(1, alpha), abs=1e-3)
    assert (density[[0, -1]] == 0).all() and (density >= 0).all()


def test_eigenvalues_of_a_drawn_matrix_follow_it():
    n, alpha = 600, 0.5
    X = torch.randn(n, round(n * alpha), generator=torch.Generator().manual_seed(0)).double()
    lam = torch.linalg.eigvalsh(X.T @ X / n)
    nodes, weights, _ = mp_quadrature(alpha)
    below = torch.cumsum(weights, 0) / alpha
    at = np.interp(lam.numpy(), nodes.numpy(), below.numpy())
    uniform = (torch.arange(len(lam)) + 0.5) / len(lam)
    # Eigenvalues repel: the largest distance of the two distributions is a few over N, not 1/√N.
    assert np.abs(at - uniform.numpy()).max() < 0.02


@given(ALPHAS, st.sampled_from([torch.float32, torch.float64]))
def test_dtype_shape_and_nan_are_kept(alpha, dtype):
    lam = torch.tensor([[-1.0, 0.5, math.nan], [2.0, 1e9, 0.0]], dtype=dtype)
    density = mp_density(lam, alpha)
    assert density.shape == lam.shape and density.dtype == dtype
    assert density[0, 2].isnan() and density[0, 0] == 0 and density[1, 1] == 0


@pytest.mark.parametrize("alpha", [0.0, -1.0, math.nan, math.inf])
def test_alpha_must_be_positive(alpha):
    for call in (mp_support, mp_quadrature, lambda a: mp_density(torch.ones(1), a)):
        with pytest.raises(ValueError, match="alpha = P/N"):
            call(alpha)
    with pytest.raises(ValueError, match="at least 1 node"):
        mp_quadrature(1.0, 0)
