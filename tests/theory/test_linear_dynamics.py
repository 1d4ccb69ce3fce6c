import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from thalweg.theory import LinearDynamics, Stopping

VECTORS = Path(__file__).parents[1] / "vectors" / "generalization-dynamics.npz"
F64 = torch.float64
TIMES = torch.tensor([0.0, 0.01, 0.3, 1.0, 4.0, 20.0, 1e3], dtype=F64)


def naive(lam, t, P, N, sw2, se2, s02):
    """Both errors, one eigenvalue at a time, straight from the definition."""
    test, train = se2, 0.0
    for value in lam:
        d = math.exp(-value * t)
        noise = se2 / value * (1 - d) ** 2 if value > 1e-12 else 0.0
        test += ((sw2 + s02) * d**2 + noise) / N
        if value > 1e-12:
            train += ((sw2 + s02) * value + se2) * d**2 / P
    rank = sum(value > 1e-12 for value in lam)
    return test, train + (P - rank) / P * se2


def test_known_ends():
    assert LinearDynamics(2.0, sigma_eps=0.5**0.5).asymptote() == pytest.approx(1.0, rel=1e-14)
    assert LinearDynamics(0.5, sigma_eps=0.5**0.5).asymptote() == pytest.approx(1.5, rel=1e-14)
    assert LinearDynamics(0.25, sigma_eps=0.5**0.5).asymptote() == pytest.approx(17 / 12)
    assert LinearDynamics(1.5, sigma_eps=0.5**0.5).asymptote() == pytest.approx(1.5, rel=1e-14)
    assert LinearDynamics(1.0, sigma_eps=0.1).asymptote() == math.inf
    assert LinearDynamics(1.0).asymptote() == 0
    theory = LinearDynamics(1.0, snr=5.0)
    # Independent: 132.30 at t = 1e6; σ_ε²(0.6610 √t + O(1)).
    assert theory.test_error(1e6).item() == pytest.approx(132.30, abs=0.005)


@given(st.floats(0.05, 5), st.floats(0, 2), st.floats(0, 2), st.floats(0, 2))
def test_start_end_and_monotone_training(alpha, w, eps, w0):
    theory = LinearDynamics(alpha, sigma_w=w, sigma_eps=eps, sigma_0=w0)
    start = w**2 + w0**2 + eps**2
    assert theory.test_error(0.0).item() == pytest.approx(start, rel=1e-12, abs=1e-300)
    assert theory.train_error(0.0).item() == pytest.approx(start, rel=1e-12, abs=1e-300)
    assert (theory.train_error(TIMES).diff() <= 1e-14 * start).all()
    # The two variances matter as a sum only.
    other = LinearDynamics(alpha, sigma_w=math.hypot(w, w0), sigma_eps=eps)
    assert torch.allclose(other.test_error(TIMES), theory.test_error(TIMES), rtol=1e-12)
    if abs(alpha - 1) > 0.1:
        assert theory.test_error(1e9).item() == pytest.approx(theory.asymptote(), rel=1e-8)
    assert theory.test_error(math.inf).item() == theory.asymptote()


@given(st.integers(1, 8), st.integers(1, 8), st.integers(0, 1000))
def test_it_is_the_naive_sum_over_an_actual_spectrum(N, P, seed):
    X = torch.randn(P, N, generator=torch.Generator().manual_seed(seed), dtype=F64)
    lam = torch.linalg.eigvalsh(X.T @ X)
    theory = LinearDynamics(P / N, eigenvalues=lam, sigma_w=1.3, sigma_eps=0.7, sigma_0=0.4)
    lam = [v if v > 1e-10 else 0.0 for v in lam.tolist()]
    for t in (0.0, 0.1, 2.0, 30.0):
        test, train = naive(lam, t, P, N, 1.69, 0.49, 0.16)
        assert theory.test_error(t).item() == pytest.approx(test, rel=1e-10)
        assert theory.train_error(t).item() == pytest.approx(train, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("i", range(5))
def test_vectors(i):
    v = np.load(VECTORS, allow_pickle=False)
    alpha, w2, e2, i2 = v[f"c{i}_params_alpha_sw2_se2_s02"]
    theory = LinearDynamics(float(alpha), sigma_w=w2**0.5, sigma_eps=e2**0.5, sigma_0=i2**0.5)
    t = torch.from_numpy(v["t"])
    # The vectors come from another quadrature, good to 1e-10 or so at the longest time.
    np.testing.assert_allclose(theory.test_error(t).numpy(), v[f"c{i}_test"], rtol=1e-9)
    np.testing.assert_allclose(theory.train_error(t).numpy(), v[f"c{i}_train"], rtol=1e-9)


def test_a_single_mode_stops_when_it_should():
    lam, eps = 0.7, 0.6
    theory = LinearDynamics(
        1.0, eigenvalues=torch.tensor([lam]), sigma_w=1.2, sigma_eps=eps, tau=3.0
    )
    stop = theory.optimal_stopping()
    assert stop.time == pytest.approx(3 / 0.7 * math.log(1 + lam * 1.44 / eps**2), rel=1e-6)
    # For one mode stopping is ridge: both shrink by σ_ε²/(σ_ε² + σ_w²λ).
    assert stop.error == pytest.approx(theory.ridge(), rel=1e-6)


@pytest.mark.parametrize(
    ("alpha", "stop", "ridge"),
    [(0.5, 0.8261, 0.8217), (1.0, 0.5675, 0.5583), (2.0, 0.3541, 0.3483)],
)
def test_stopping_is_near_ridge_and_never_better(alpha, stop, ridge):
    theory = LinearDynamics(alpha, snr=5.0)  # figures of an independent implementation
    assert theory.optimal_stopping().error == pytest.approx(stop, abs=5e-5)
    assert theory.ridge() == pytest.approx(ridge, abs=5e-5)


@given(st.floats(0.1, 4), st.floats(0.05, 50))
def test_the_best_time_and_the_best_ridge_are_best(alpha, snr):
    theory = LinearDynamics(alpha, snr=snr)
    stop = theory.optimal_stopping()
    around = torch.linspace(0.2, 5, 300, dtype=F64) * stop.time
    assert (theory.test_error(around) >= stop.error * (1 - 1e-12)).all()
    best, gamma = theory.ridge(), 1 / snr
    assert best <= stop.error + 1e-12
    assert all(theory.ridge(gamma * f) >= best - 1e-12 for f in (0.1, 0.8, 1.2, 10.0))


def test_limits_of_stopping_and_ridge():
    assert LinearDynamics(2.0).optimal_stopping() == Stopping(math.inf, 0.0)
    assert LinearDynamics(0.5, sigma_0=0.5).optimal_stopping().error == pytest.approx(0.625)
    assert LinearDynamics(2.0, sigma_w=0.0, sigma_eps=1.0).optimal_stopping() == (0.0, 1.0)
    assert LinearDynamics(2.0, snr=1e-6).optimal_stopping().time < 1e-5
    pure = LinearDynamics(2.0, sigma_w=0.0, sigma_eps=0.5)
    assert pure.ridge() == pytest.approx(0.25)
    theory = LinearDynamics(2.0, snr=5.0, sigma_0=1.0)
    assert theory.ridge(0.0) == pytest.approx(0.4) and theory.ridge(1e12) == pytest.approx(1.2)
    assert theory.ridge(1e-9) == pytest.approx(theory.ridge(0.0))
    rise = LinearDynamics(0.5, snr=5.0, sigma_0=1.0).optimal_stopping().error
    assert rise - LinearDynamics(0.5, snr=5.0).optimal_stopping().error >= 0.5


def test_steps_are_the_iteration_and_tend_to_the_flow():
    lam = torch.tensor([0.0, 0.4, 1.5, 3.0], dtype=F64)
    lr, N = 0.5, 4
    theory = LinearDynamics(1.0, eigenvalues=lam, sigma_w=1.1, sigma_eps=0.6, lr=lr)
    signal, fitted = torch.full((4,), 1.1, dtype=F64), torch.zeros(4, dtype=F64)
    for k in range(12):
        square = signal**2 + 0.36 * fitted**2 * lam  # in units of label noise, per direction
        expected = 0.36 + square.sum().item() / N
        assert theory.test_error(float(k)).item() == pytest.approx(expected, rel=1e-12)
        signal, fitted = (1 - lr * lam) * signal, fitted + lr * (1 - lam * fitted)
    flow = LinearDynamics(2.0, snr=4.0)
    fine = LinearDynamics(2.0, snr=4.0, lr=1e-4)
    steps = torch.tensor([0.0, 3e3, 1e5], dtype=F64)
    assert torch.allclose(fine.test_error(steps), flow.test_error(steps * 1e-4), rtol=1e-3)
    assert fine.optimal_stopping().time * 1e-4 == pytest.approx(
        flow.optimal_stopping().time, rel=1e-3
    )


def test_the_largest_step_and_the_best_step():
    theory = LinearDynamics(2.0, snr=4.0, lr=0.1)
    assert theory.max_lr == pytest.approx(2 / (math.sqrt(2) + 1) ** 2)
    for lr in (0.9 * theory.max_lr, 0.3 * theory.max_lr):
        some = LinearDynamics(2.0, snr=4.0, lr=lr)
        steps = torch.arange(200, dtype=F64)
        errors = some.test_error(steps)
        assert some.optimal_stopping() == (errors.argmin().item(), errors.min().item())
    wild = LinearDynamics(2.0, snr=4.0, lr=1.1 * theory.max_lr)
    assert wild.asymptote() == math.inf and wild.test_error(2e3).item() > 1e6
    with pytest.raises(ValueError, match="diverges"):
        wild.optimal_stopping()


def test_variance_and_mean_reduction_rescale_time():
    t = torch.tensor([0.0, 0.5, 3.0], dtype=F64)
    base = LinearDynamics(2.0, snr=5.0)
    # Entries of variance 1 and the mean over 200 samples: rates λ N/P, and errors N times theirs.
    other = LinearDynamics(
        2.0, snr=5.0 / 100, sigma_w=0.1, dim=100, input_var=1.0, reduction="mean"
    )
    assert other.sigma_eps == pytest.approx(base.sigma_eps)
    assert torch.allclose(other.test_error(2 * t), base.test_error(t), rtol=1e-12)
    assert torch.allclose(other.train_error(2 * t), base.train_error(t), rtol=1e-12)
    assert other.ridge() == pytest.approx(base.ridge())
    slow = LinearDynamics(2.0, snr=5.0, tau=4.0)
    assert torch.allclose(slow.test_error(4 * t), base.test_error(t), rtol=1e-12)


def test_test_inputs_of_another_covariance():
    lam = torch.tensor([0.0, 0.5, 2.0], dtype=F64)
    even = LinearDynamics(1.0, eigenvalues=lam, sigma_eps=0.3)
    same = LinearDynamics(1.0, eigenvalues=lam, sigma_eps=0.3, input_var=torch.full((3,), 1 / 3))
    only = [
        LinearDynamics(1.0, eigenvalues=lam, sigma_eps=0.3, input_var=row).test_error(1.5) - 0.09
        for row in torch.eye(3, dtype=F64) / 3
    ]
    assert same.test_error(1.5) == pytest.approx(even.test_error(1.5).item(), rel=1e-6)
    assert sum(only).item() + 0.09 == pytest.approx(even.test_error(1.5).item())
    assert only[0].item() == pytest.approx(1 / 3)  # a direction without data is never learnt


@given(st.sampled_from([torch.float32, torch.float64, torch.float16]), st.integers(0, 3))
def test_dtype_and_shape_are_kept(dtype, dims):
    t = torch.ones((2,) * dims, dtype=dtype)
    for error in (LinearDynamics(1.5).test_error(t), LinearDynamics(1.5).train_error(t)):
        assert error.shape == t.shape and error.dtype == dtype
    assert LinearDynamics(1.5, lr=0.1).test_error(torch.tensor([1, 2])).dtype == F64


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({}, "alpha = P/N"),
        ({"alpha": 0.0}, "above 0"),
        ({"alpha": 1.0, "sigma_w": -1.0}, "sigma_w"),
        ({"alpha": 1.0, "sigma_eps": -1.0}, "sigma_eps"),
        ({"alpha": 1.0, "sigma_0": math.nan}, "sigma_0"),
        ({"alpha": 1.0, "snr": 0.0}, "snr"),
        ({"alpha": 1.0, "snr": 1.0, "sigma_w": 1.0, "sigma_eps": 1.0}, "leave one out"),
        ({"alpha": 1.0, "tau": 1.0, "lr": 0.1}, "not both"),
        ({"alpha": 1.0, "lr": -0.1}, "lr"),
        ({"alpha": 1.0, "reduction": "none"}, "reduction"),
        ({"alpha": 1.0, "reduction": "mean"}, "dim = N"),
        ({"eigenvalues": torch.tensor([1.0, -1.0])}, "never negative"),
    ],
)
def test_errors_of_arguments(args, message):
    with pytest.raises(ValueError, match=message):
        LinearDynamics(**args)


def test_errors_of_times():
    with pytest.raises(ValueError, match="at least 0"):
        LinearDynamics(1.0).test_error(-1.0)
    with pytest.raises(ValueError, match="at least 0"):
        LinearDynamics(1.0).train_error(math.nan)
    with pytest.raises(ValueError, match="whole numbers"):
        LinearDynamics(1.0, lr=0.1).test_error(0.5)
    with pytest.raises(ValueError, match="do not tell P"):
        LinearDynamics(eigenvalues=torch.ones(3)).train_error(1.0)
    with pytest.raises(ValueError, match="gamma"):
        LinearDynamics(1.0).ridge(-1.0)
