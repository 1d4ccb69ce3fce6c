import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from thalweg.numerics import (
    curve_from_gram,
    kernel_regression,
    kernel_spectrum,
    predict_learning_curve,
    sample_gaussian_field,
)

F64 = torch.float64


def gram(n, seed, rank=None):
    A = torch.randn(n, rank or 2 * n, generator=torch.Generator().manual_seed(seed), dtype=F64)
    return A @ A.T / A.shape[1]


def test_the_spectrum_of_a_rotation_invariant_kernel_is_its_fourier_series():
    # cos(θ − φ) on n equal angles: two eigenvalues 1/2 for cos and sin.
    angles = torch.arange(12, dtype=F64) * 2 * math.pi / 12
    found = kernel_spectrum((angles[:, None] - angles).cos())
    assert torch.allclose(found, torch.tensor([0.5, 0.5] + [0.0] * 10, dtype=F64), atol=1e-14)


@given(st.integers(1, 12), st.integers(0, 100))
def test_the_spectrum_is_sorted_and_sums_to_the_mean_diagonal(n, seed):
    K = gram(n, seed)
    found = kernel_spectrum(K)
    assert (found.diff() <= 0).all() and found.sum() == pytest.approx(K.diagonal().mean().item())
    assert kernel_spectrum(K.float()).dtype == torch.float32


def test_draws_have_the_covariance_even_of_a_singular_kernel():
    K = gram(6, 0, rank=3)
    y = sample_gaussian_field(K, 40_000, torch.Generator().manual_seed(1))
    assert y.shape == (6, 40_000)
    # Standard error of a covariance of unit size: √(2/40000) = 0.007.
    assert torch.allclose(y @ y.T / 40_000, K, atol=0.03)
    again = sample_gaussian_field(K, 40_000, torch.Generator().manual_seed(1))
    assert torch.equal(y, again)


def test_a_draw_does_not_hang_on_round_off():
    # Equal eigenvalues, so that the eigenvectors are anything.
    n = 40
    K = torch.eye(n, dtype=F64) + torch.ones(n, n, dtype=F64)
    noise = torch.randn(n, n, generator=torch.Generator().manual_seed(0), dtype=F64) * 1e-14
    y, z = (
        sample_gaussian_field(k, 3, torch.Generator().manual_seed(1))
        for k in (K, K + noise + noise.T)
    )
    assert torch.allclose(y, z, atol=1e-10)


@given(st.integers(1, 10), st.integers(1, 5), st.integers(0, 100), st.sampled_from([0.0, 0.3]))
def test_it_is_the_inverse_written_out(n, m, seed, ridge):
    K = gram(n + m, seed)
    y = torch.randn(n, 2, generator=torch.Generator().manual_seed(seed), dtype=F64)
    found = kernel_regression(K[:n, :n], y, K[n:, :n], ridge)
    naive = K[n:, :n] @ torch.linalg.inv(K[:n, :n] + ridge * torch.eye(n, dtype=F64)) @ y
    assert torch.allclose(found, naive, atol=1e-8 * (1 + naive.abs().max().item()))
    assert kernel_regression(K[:n, :n], y[:, 0], K[n:, :n], ridge).shape == (m,)


def test_without_ridge_it_interpolates_and_duplicates_do_no_harm():
    x = torch.rand(60, 1, generator=torch.Generator().manual_seed(3), dtype=F64)
    K = lambda a, b: torch.exp(-(a - b.T).abs())  # noqa: E731
    y = torch.sin(5 * x[:, 0])
    assert (kernel_regression(K(x, x), y, K(x, x)) - y).abs().max() < 1e-8
    twice = torch.cat([x, x])
    told = kernel_regression(K(twice, twice), torch.cat([y, y]), K(x, twice))
    assert (told - y).abs().max() < 1e-6


def test_ridge_is_ridge_regression():
    x = torch.randn(30, 4, generator=torch.Generator().manual_seed(4), dtype=F64)
    y = x @ torch.arange(4, dtype=F64)
    w = torch.linalg.solve(x.T @ x + 2 * torch.eye(4, dtype=F64), x.T @ y)
    assert torch.allclose(kernel_regression(x @ x.T, y, x @ x.T, ridge=2.0), x @ w)


@given(st.integers(1, 40), st.floats(0.01, 0.99), st.floats(0.1, 10))
def test_equal_modes_in_closed_form(modes, part, scale):
    # All Λ equal: κ/(Λ + κ) = 1 − n/M and the error is that part of the power.
    lam, power = torch.full((modes,), scale), torch.full((modes,), 1 / modes)
    found = predict_learning_curve(lam, power, part * modes)
    assert found.item() == pytest.approx(1 - part, rel=1e-5)


def test_the_curve_is_that_of_linear_regression_with_ridge():
    # Gaussian features of unequal variance, the known setting of the formula.
    generator = torch.Generator().manual_seed(5)
    lam = torch.logspace(0, -2, 60, dtype=F64)
    sizes, ridge = [15, 40, 90], 0.5
    power = torch.rand(60, generator=generator, dtype=F64)
    seen = torch.zeros(3, dtype=F64)
    for _ in range(60):
        x, new = (torch.randn(n, 60, generator=generator, dtype=F64) for n in (90, 400))
        target = power.sqrt() * torch.randn(60, generator=generator, dtype=F64)
        for i, n in enumerate(sizes):
            a = x[:n] * lam.sqrt()
            out = kernel_regression(a @ a.T, x[:n] @ target, (new * lam.sqrt()) @ a.T, ridge)
            seen[i] += (out - new @ target).square().mean() / 60
    told = predict_learning_curve(lam, power, torch.tensor(sizes), ridge)
    assert torch.allclose(seen, told, rtol=0.1)


def test_limits_and_monotone():
    lam = torch.tensor([1.0, 0.5, 0.1, 0.0], dtype=F64)
    power = torch.tensor([1.0, 1.0, 1.0, 0.25], dtype=F64)
    sizes = torch.tensor([[1e-9, 1.0], [2.0, 2.9], [3.0, 50.0]])
    found = predict_learning_curve(lam, power, sizes)
    assert found.shape == sizes.shape and found.dtype == F64
    assert found[0, 0].item() == pytest.approx(3.25) and found[2].tolist() == [0.25, 0.25]
    with_ridge = predict_learning_curve(lam, power, sizes, ridge=0.1)
    assert with_ridge[2, 1] > 0.25
    assert predict_learning_curve(torch.zeros(2), torch.ones(2), 3.0).item() == 2.0


def test_a_gram_matrix_tells_the_curve():
    # Gaussian features of unequal variance: told from 1500 points, against the exact coefficients.
    generator = torch.Generator().manual_seed(6)
    lam = torch.logspace(0, -2, 40, dtype=F64)
    x = torch.randn(1500, 40, generator=generator, dtype=F64)
    targets = torch.randn(40, 50, generator=generator, dtype=F64)
    sizes = torch.tensor([5.0, 20.0, 35.0])
    told = curve_from_gram((x * lam) @ x.T, x @ targets, sizes, ridge=0.01)
    exact = predict_learning_curve(lam, targets.square().mean(1), sizes, ridge=0.01)
    assert torch.allclose(told, exact, rtol=0.05)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: kernel_spectrum(torch.ones(2, 3)), "square"),
        (lambda: kernel_spectrum(torch.tensor([[1.0, 0.0], [0.5, 1.0]])), "not symmetric"),
        (lambda: kernel_spectrum(torch.full((2, 2), math.nan)), "not finite"),
        (lambda: sample_gaussian_field(torch.eye(2), 0), "n_draws"),
        (lambda: sample_gaussian_field(-torch.eye(2)), "not positive semidefinite"),
        (lambda: kernel_regression(torch.eye(2), torch.ones(3), torch.ones(1, 2)), "K_st"),
        (lambda: kernel_regression(torch.eye(2), torch.ones(2), torch.ones(1, 3)), "K_st"),
        (lambda: kernel_regression(torch.eye(2), torch.ones(2), torch.ones(1, 2), -1.0), "ridge"),
        (lambda: kernel_regression(-torch.eye(2), torch.ones(2), torch.ones(1, 2)), "definite"),
        (lambda: predict_learning_curve(torch.ones(2), torch.ones(3), 1.0), r"\(M,\)"),
        (lambda: predict_learning_curve(-torch.ones(2), torch.ones(2), 1.0), "at least 0"),
        (lambda: predict_learning_curve(torch.ones(2), torch.ones(2), 0.0), "above 0"),
        (lambda: curve_from_gram(torch.eye(3), torch.ones(3), 3.0), "below the 3"),
        (lambda: curve_from_gram(torch.eye(3), torch.ones(2), 1.0), "expected y"),
    ],
)
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call()
