"""numerics/exponent.py"""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from thalweg.numerics import ExponentFit, fit_exponent


def test_an_exact_power_law_is_found_exactly():
    x = torch.tensor([1.0, 2.0, 4.0, 8.0, 16.0])
    fit = fit_exponent(x, 5 * x**-0.5)
    assert isinstance(fit, ExponentFit) and fit.num_points == 5
    assert abs(fit.exponent + 0.5) < 1e-7 and abs(fit.intercept - math.log(5)) < 1e-6
    assert fit.stderr < 1e-6 and fit.r2 > 1 - 1e-9 and fit.window == (1.0, 16.0)


def test_a_constant_has_exponent_zero_and_is_fitted():
    fit = fit_exponent([1, 2, 4], [3, 3, 3])
    assert abs(fit.exponent) < 1e-12 and fit.r2 == 1.0


def test_two_points_have_no_uncertainty():
    fit = fit_exponent([1, 4], [1, 2])
    assert math.isclose(fit.exponent, 0.5) and math.isnan(fit.stderr)


def test_against_the_covariance_matrix_of_numpy():
    rng = np.random.default_rng(0)
    x = np.exp(rng.normal(size=20))
    y = 3 * x**-0.7 * np.exp(0.2 * rng.normal(size=20))
    fit = fit_exponent(torch.tensor(x), torch.tensor(y))
    (slope, intercept), cov = np.polyfit(np.log(x), np.log(y), 1, cov=True)
    assert math.isclose(fit.exponent, slope) and math.isclose(fit.intercept, intercept)
    assert math.isclose(fit.stderr, cov[0, 0] ** 0.5)
    assert math.isclose(fit.r2, np.corrcoef(np.log(x), np.log(y))[0, 1] ** 2)


def test_the_standard_error_is_what_repetition_scatters_by():
    g = torch.Generator().manual_seed(0)
    x = torch.logspace(0, 2, 8, dtype=torch.float64)
    fits = [
        fit_exponent(x, x * (0.3 * torch.randn(8, generator=g, dtype=x.dtype)).exp())
        for _ in range(400)
    ]
    found = torch.tensor([f.exponent for f in fits])
    stated = torch.tensor([f.stderr for f in fits]).square().mean().sqrt()
    assert abs(found.std() / stated - 1) < 0.15  # 400 draws: 3.5 %


def test_the_window_decides_and_is_stated():
    x = [1, 2, 4, 8, 16]
    y = [100, 2, 4, 8, 0]  # outside the window anything may stand
    fit = fit_exponent(x, y, window=(2, 8))
    assert math.isclose(fit.exponent, 1.0) and fit.window == (2.0, 8.0) and fit.num_points == 3


@given(seed=st.integers(0, 10**6), n=st.integers(3, 12))
def test_units_do_not_change_the_exponent_and_powers_scale_it(seed, n):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(n, generator=g, dtype=torch.float64).exp()
    y = torch.randn(n, generator=g, dtype=torch.float64).exp()
    fit = fit_exponent(x, y)
    other = fit_exponent(7 * x, 0.1 * y)
    squared = fit_exponent(x, y**2)
    assert math.isclose(fit.exponent, other.exponent, rel_tol=1e-9, abs_tol=1e-9)
    assert math.isclose(2 * fit.exponent, squared.exponent, rel_tol=1e-9, abs_tol=1e-9)
    assert 0 <= fit.r2 <= 1 and fit.stderr >= 0


@pytest.mark.parametrize(
    ("x", "y", "window", "said"),
    [
        ([1, 2], [1, 2, 3], None, "one shape"),
        ([1, 2, 3], [1, -2, 3], None, "y must be positive"),
        ([0, 2, 3], [1, 2, 3], None, "x must be positive"),
        ([1, 2, 3], [1, math.nan, 3], None, "y must be positive"),
        ([2, 2, 2], [1, 2, 3], None, "two distinct x"),
        ([1, 2, 3], [1, 2, 3], (5, 9), "two distinct x"),
    ],
)
def test_errors(x, y, window, said):
    with pytest.raises(ValueError, match=said):
        fit_exponent(x, y, window=window)
