from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from thalweg.numerics import gradient_flow
from thalweg.theory import LinearDynamics, StudentTeacher, simulate_student_teacher

VECTORS = Path(__file__).parents[1] / "vectors" / "generalization-dynamics.npz"
F64 = torch.float64


def test_it_is_the_flow_integrated_by_brute_force():
    t = torch.linspace(0, 5, 6, dtype=F64)
    for P in (3, 8):
        draw = simulate_student_teacher(5, P, t, sigma_eps=0.4, sigma_0=0.7, tau=2.0, seed=3)
        loss = lambda w, d=draw: (d.X @ w - d.y).square().sum() / 4  # noqa: E731
        path = gradient_flow(loss, draw.initial, 5.0, num_points=6)
        assert torch.allclose(draw.weights, path, atol=1e-9)
        residual = (path @ draw.X.T - draw.y).square().mean(1)
        assert torch.allclose(draw.train_error, residual, atol=1e-9)


def test_vectors_of_one_trajectory():
    v = {k: torch.from_numpy(a) for k, a in np.load(VECTORS, allow_pickle=False).items()}
    X, y, w = v["X"].T, v["y"], v["w0"]
    lam, V = torch.linalg.eigh(X.T @ X)
    assert torch.allclose(lam, v["eigs"], atol=1e-12)
    theory = LinearDynamics(6 / 9, eigenvalues=lam)
    decay, grown = theory.decay(v["t"], lam.clamp(min=0))
    pinv = torch.linalg.pinv(X) @ y
    frozen = torch.eye(9, dtype=F64) - torch.linalg.pinv(X) @ X
    weights = (decay * (w @ V) + grown * (pinv @ V)) @ V.T
    assert torch.allclose(weights, v["w_t"], atol=1e-9)
    assert torch.allclose((v["w_t"] - w) @ frozen, torch.zeros(10, 9, dtype=F64), atol=1e-12)
    excess = (v["w_t"] - v["teacher"]).square().sum(1) / 9
    assert torch.allclose(excess, v["excess_err_isotropic"], atol=1e-12)


def test_steps_are_gradient_descent():
    steps = torch.arange(6, dtype=F64)
    draw = simulate_student_teacher(
        4, 7, steps, sigma_eps=0.3, sigma_0=1.0, lr=0.3, input_var=1.0, reduction="mean", seed=5
    )
    w = draw.initial
    for k in range(6):
        assert torch.allclose(draw.weights[k], w, atol=1e-12)
        w = w - 0.3 * draw.X.T @ (draw.X @ w - draw.y) / 7
    test = 0.09 + (draw.weights - draw.teacher).square().sum(1)
    assert torch.allclose(draw.test_error, test)


def test_the_mean_of_draws_is_the_theory_at_their_spectrum():
    t = torch.tensor([0.0, 0.5, 3.0, 30.0], dtype=F64)
    draws = [
        simulate_student_teacher(100, 60, t, sigma_eps=0.5, sigma_0=0.3, seed=s) for s in range(40)
    ]
    told = [
        LinearDynamics(0.6, eigenvalues=d.eigenvalues, sigma_eps=0.5, sigma_0=0.3) for d in draws
    ]
    for name in ("test_error", "train_error"):
        seen = torch.stack([getattr(d, name) for d in draws])
        expected = torch.stack([getattr(a, name)(t) for a in told])
        error = (seen - expected).mean(0).abs()
        assert (error <= 4 * (seen - expected).std(0) / 40**0.5).all()


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 100))
def test_directions_without_data_keep_their_weights(N, P, seed):
    draw = simulate_student_teacher(N, P, sigma_eps=1.0, sigma_0=1.0, seed=seed)
    frozen = torch.eye(N, dtype=F64) - torch.linalg.pinv(draw.X) @ draw.X
    moved = (draw.weights - draw.initial) @ frozen
    assert moved.abs().max() <= 1e-10 * (1 + draw.weights.abs().max())
    assert isinstance(draw, StudentTeacher) and draw.eigenvalues.shape == (N,)
    assert (draw.train_error.diff() <= 1e-12 * draw.train_error[0]).all()


def test_seed_generator_and_dtype():
    a, b = (simulate_student_teacher(3, 4, sigma_0=1.0, seed=s) for s in (1, 2))
    again = simulate_student_teacher(
        3, 4, sigma_0=1.0, generator=torch.Generator().manual_seed(1), dtype=torch.float32
    )
    assert torch.equal(a.X.float(), again.X) and not torch.equal(a.X, b.X)
    assert again.test_error.dtype == torch.float32 == again.t.dtype


def test_errors():
    with pytest.raises(ValueError, match="at least 1"):
        simulate_student_teacher(0, 3)
    with pytest.raises(ValueError, match="sigma_eps"):
        simulate_student_teacher(3, 3, sigma_eps=-1.0)
    with pytest.raises(ValueError, match="input_var"):
        simulate_student_teacher(3, 3, input_var=0.0)
