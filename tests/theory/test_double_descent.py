import math

import pytest
import torch

from thalweg.theory import LinearDynamics, double_descent

ALPHAS = [0.25, 0.5, 0.9, 1.0, 1.1, 2.0, 4.0]


def test_the_peak_and_that_stopping_removes_it():
    # Noise variance 1/5; the figures are from an independent implementation (400-node quadrature).
    late = double_descent(ALPHAS, 1e6, snr=5.0)
    expected = torch.tensor([1.017, 0.9, 2.1, 132.3, 2.2, 0.4, 0.267], dtype=torch.float64)
    assert torch.allclose(late, expected, rtol=5e-3)
    best = double_descent(ALPHAS, "t*", snr=5.0)
    expected = torch.tensor([1.001, 0.826, 0.609, 0.568, 0.531, 0.354, 0.263]).double()
    assert torch.allclose(best, expected, atol=6e-4)
    assert (best.diff() < 0).all() and (best <= late).all()


def test_the_end_in_closed_form_and_larger_noise_is_worse():
    end = double_descent(torch.tensor(ALPHAS), snr=5.0)
    exact = [
        0.2 / (1 - a) + 1 - a if a < 1 else 0.2 * a / (a - 1) if a > 1 else math.inf for a in ALPHAS
    ]
    assert end.tolist() == pytest.approx(exact, rel=1e-6)  # alphas passed in float32
    assert (double_descent(ALPHAS, 10.0, sigma_eps=1.0) > double_descent(ALPHAS, 10.0)).all()
    assert double_descent([0.5], 2.0, sigma_0=1.0).item() == pytest.approx(
        LinearDynamics(0.5, sigma_0=1.0).test_error(2.0).item()
    )


def test_errors():
    with pytest.raises(ValueError, match=r"t\*"):
        double_descent([1.0], "best")
    with pytest.raises(ValueError, match="alpha"):
        double_descent([0.0])
