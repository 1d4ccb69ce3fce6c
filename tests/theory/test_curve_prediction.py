import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from thalweg.theory import (
    NoiseAndSNR,
    Prediction,
    estimate_noise_and_snr,
    predict_from_data,
    simulate_student_teacher,
)

F64 = torch.float64


@pytest.mark.parametrize("P", [150, 300, 900])
def test_noise_and_signal_are_found(P):
    found = []
    for seed in range(6):
        data = simulate_student_teacher(300, P, sigma_w=2.0, sigma_eps=0.8, seed=seed)
        found.append(estimate_noise_and_snr(data.X, data.y))
    # Standard errors of one estimate are 5 to 15 %; the mean of six is held to 15 %.
    assert sum(f.sigma_eps for f in found) / 6 == pytest.approx(0.8, rel=0.15)
    assert sum(f.sigma_w for f in found) / 6 == pytest.approx(2.0, rel=0.1)
    assert found[0].snr == pytest.approx((found[0].sigma_w / found[0].sigma_eps) ** 2)


def test_it_maximises_the_likelihood():
    data = simulate_student_teacher(6, 9, sigma_eps=0.7, seed=4)
    found = estimate_noise_and_snr(data.X, data.y)

    def likelihood(w, eps):
        covariance = w**2 * data.X @ data.X.T + eps**2 * torch.eye(9, dtype=F64)
        normal = torch.distributions.MultivariateNormal(torch.zeros(9, dtype=F64), covariance)
        return normal.log_prob(data.y).item()

    best = likelihood(found.sigma_w, found.sigma_eps)
    for a in (0.9, 1.0, 1.1):
        for b in (0.9, 1.0, 1.1):
            assert likelihood(a * found.sigma_w, b * found.sigma_eps) <= best + 1e-9


@given(st.integers(0, 50), st.floats(0.1, 10), st.floats(0.1, 10))
def test_the_estimate_follows_the_units(seed, a, b):
    data = simulate_student_teacher(8, 20, sigma_eps=0.5, seed=seed)
    one, two = (
        estimate_noise_and_snr(data.X, data.y),
        estimate_noise_and_snr(a * data.X, b * data.y),
    )
    assert two.sigma_eps == pytest.approx(b * one.sigma_eps, rel=1e-5)
    assert two.sigma_w == pytest.approx(b / a * one.sigma_w, rel=1e-4)


def test_all_noise_and_none():
    X = torch.randn(400, 20, generator=torch.Generator().manual_seed(0), dtype=F64)
    y = X @ torch.ones(20, dtype=F64)
    clean = estimate_noise_and_snr(X, y)
    assert clean.sigma_eps < 1e-5 and clean.sigma_w == pytest.approx(1.0)
    # Labels that no sample explains: orthogonal to the columns of X.
    away = y.roll(1) - X @ torch.linalg.lstsq(X, y.roll(1)).solution
    none = estimate_noise_and_snr(X, away)
    assert none.snr == 0 and none.sigma_eps**2 == pytest.approx((away**2).mean().item())
    assert estimate_noise_and_snr(X, 0 * y)[:1] == (0.0,)


def test_the_predicted_curve_is_the_measured_one():
    ratios = []
    for seed in range(5):
        data = simulate_student_teacher(300, 450, sigma_eps=0.5, seed=seed)
        told = predict_from_data(data.X, data.y, data.t, input_var=1 / 300)
        assert isinstance(told, Prediction) and isinstance(told.noise, NoiseAndSNR)
        ratios.append((told.test_error / data.test_error, told.train_error / data.train_error))
        at_stop = predict_from_data(data.X, data.y, input_var=1 / 300).stopping
        assert at_stop.time == pytest.approx(told.stopping.time)
        best = data.test_error.min().item()
        near = data.test_error[(data.t - at_stop.time).abs().argmin()].item()
        assert near <= 1.05 * best  # stopping there costs 5 % at most
    for of_test, of_train in [map(torch.Tensor.log, r) for r in ratios]:
        assert of_test.abs().max() < 0.25 and of_train.abs().max() < 0.35


def test_unlabelled_inputs_stand_for_a_covariance():
    generator = torch.Generator().manual_seed(1)
    scale = torch.linspace(0.2, 3, 30, dtype=F64)
    t = torch.tensor([0.0, 0.01, 0.1, 1.0], dtype=F64)
    errors, told, wrong = [], [], []
    for _ in range(60):
        X, more = (torch.randn(n, 30, generator=generator, dtype=F64) * scale for n in (20, 4000))
        w = torch.randn(30, generator=generator, dtype=F64)
        y = X @ w + 0.5 * torch.randn(20, generator=generator, dtype=F64)
        args = {"sigma_eps": 0.5, "sigma_w": 1.0}
        guess = predict_from_data(X, y, t, X_test=more, **args)
        lam, V = torch.linalg.eigh(X.T @ X)
        decay, grown = guess.dynamics.decay(t, lam.clamp(min=0))
        path = (grown * (torch.linalg.pinv(X) @ y @ V)) @ V.T
        errors.append(((path - w) * scale).square().sum(1) + 0.25)
        told.append(guess.test_error)
        wrong.append(predict_from_data(X, y, t, **args).test_error)
        assert decay.shape == (4, 30)
    seen, expected, isotropic = (torch.stack(e).mean(0) for e in (errors, told, wrong))
    assert torch.allclose(seen, expected, rtol=0.1)
    assert ((isotropic / seen - 1).abs() > 0.2).any()


def test_default_times_span_the_training():
    data = simulate_student_teacher(30, 50, sigma_eps=0.5, seed=2)
    told = predict_from_data(data.X, data.y)
    assert told.t[0] == 0 and len(told.t) == 201
    assert told.test_error[-1].item() == pytest.approx(told.dynamics.asymptote(), rel=1e-4)
    steps = predict_from_data(data.X, data.y, lr=0.1, reduction="mean")
    assert (steps.t == steps.t.round()).all() and steps.stopping.time == round(steps.stopping.time)


@pytest.mark.parametrize(
    ("X", "y", "message"),
    [
        (torch.eye(4), torch.ones(4), "told apart"),
        (torch.randn(2, 5), torch.ones(2), "told apart"),
        (torch.ones(4, 3), torch.ones(3), r"y \(P,\)"),
        (torch.ones(4, 3), torch.full((4,), math.nan), "not finite"),
        (torch.ones(0, 3), torch.ones(0), r"expected X \(P, N\)"),
    ],
)
def test_errors(X, y, message):
    for call in (estimate_noise_and_snr, predict_from_data):
        with pytest.raises(ValueError, match=message):
            call(X, y)


def test_error_of_other_inputs():
    data = simulate_student_teacher(5, 9, sigma_eps=0.5)
    with pytest.raises(ValueError, match="X_test"):
        predict_from_data(data.X, data.y, X_test=torch.ones(3, 4))
