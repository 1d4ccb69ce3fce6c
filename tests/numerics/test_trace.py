from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from thalweg.numerics import as_operator, trace
from thalweg.numerics.trace import hutchinson, hutchpp, xtrace

CI = settings(max_examples=25, deadline=None, derandomize=True)
VECTORS = Path(__file__).parents[1] / "vectors" / "sgd-dynamical-stability.npz"
METHODS = ["hutchinson", "hutch++", "xtrace"]


def matrix(spectrum, seed=0):
    g = torch.Generator().manual_seed(seed)
    p = len(spectrum)
    Q = torch.linalg.qr(torch.randn(p, p, generator=g, dtype=torch.float64)).Q
    return (Q * spectrum.double()) @ Q.T


def naive_xtrace(A, Omega):
    """The estimator as it is defined: a fresh basis without each probe."""
    out = []
    for i in range(Omega.shape[1]):
        rest = [j for j in range(Omega.shape[1]) if j != i]
        Q = torch.linalg.qr(A @ Omega[:, rest]).Q
        w = Omega[:, i] - Q @ (Q.T @ Omega[:, i])
        out.append((Q.T @ A @ Q).trace() + w @ A @ w)
    return torch.stack(out)


@CI
@given(seed=st.integers(0, 10**6), p=st.integers(6, 30), N=st.integers(2, 6))
def test_xtrace_is_its_definition(seed, p, N):
    g = torch.Generator().manual_seed(seed)
    A = torch.randn(p, p, generator=g, dtype=torch.float64)
    Omega = torch.randint(2, (p, N), generator=g).double() * 2 - 1
    if torch.linalg.matrix_rank(Omega) < N:
        return
    torch.testing.assert_close(xtrace(as_operator(A), Omega), naive_xtrace(A, Omega))


def test_vectors():
    data = np.load(VECTORS, allow_pickle=False)
    A = as_operator(torch.from_numpy(data["est__A"]))
    Omega, G = torch.from_numpy(data["est__Omega"]), torch.from_numpy(data["est__G"])
    for samples, key in [
        (hutchinson(A, Omega), "hutchinson_8matvecs_Omega"),
        (hutchpp(A, Omega, G), "hutchpp_24matvecs_Omega_then_G"),
        (xtrace(A, Omega), "xtrace_16matvecs_Omega"),
    ]:
        np.testing.assert_allclose(samples.mean(), data[f"est__{key}"], rtol=1e-12)


@pytest.mark.parametrize("method", ["hutch++", "xtrace"])
def test_low_rank_is_exact(method):
    A = matrix(torch.cat([torch.tensor([3.0, -1.0, 2.0]), torch.zeros(40)]))
    value, stderr = trace(A, method, 24)
    assert value == pytest.approx(4.0, abs=1e-9) and stderr < 1e-9


@pytest.mark.parametrize("method", METHODS)
def test_diagonals_small_matrices_and_enough_products_are_exact(method):
    assert trace(torch.eye(3), method) == (3.0, 0.0)
    A = matrix(torch.randn(12, generator=torch.Generator().manual_seed(0)))
    assert trace(A, method, 12).value == pytest.approx(A.trace().item())
    assert trace(torch.diag(torch.arange(30.0)), "hutchinson", 1).value == 435.0


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("num_matvecs", [12, 24, 60])
@pytest.mark.parametrize("power", [0.1, 1.0, 2.0])
def test_unbiased_with_an_honest_error(method, num_matvecs, power):
    """The stated error isn't below the true one, as far as 200 heavy-tailed draws can tell."""
    A = matrix(torch.arange(1, 101).double() ** -power)
    draws = [trace(A, method, num_matvecs, torch.Generator().manual_seed(s)) for s in range(200)]
    values = torch.tensor([d.value for d in draws]).double()
    error = values - A.trace()
    assert abs(error.mean()) < 4 * error.std() / 200**0.5
    typical = torch.tensor([d.stderr for d in draws]).square().mean().sqrt()
    assert 0.85 < typical / error.std() < 2.5


def test_projection_pays_on_a_decaying_spectrum():
    A = matrix(torch.arange(1, 201).double() ** -2.0)

    def rmse(method):
        draws = [trace(A, method, 30, torch.Generator().manual_seed(s)).value for s in range(30)]
        return (torch.tensor(draws) - A.trace()).square().mean().sqrt().item()

    plain, plus, exchangeable = (rmse(m) for m in METHODS)
    assert exchangeable < 1.3 * plus < 0.2 * plain


@pytest.mark.parametrize("method", METHODS)
def test_adaptive_meets_its_goal_and_counts(method):
    A = as_operator(matrix(torch.rand(300, generator=torch.Generator().manual_seed(0)) - 0.2))
    value, stderr = trace(A, method, rel_stderr=0.05, max_matvecs=290)
    assert stderr <= 0.05 * abs(value) and A.num_matvecs <= 290
    assert abs(value - A.dense().trace().item()) < 5 * stderr
    capped = as_operator(A.dense())
    capped.num_matvecs = 0
    trace(capped, method, rel_stderr=1e-9, max_matvecs=40)
    assert 30 <= capped.num_matvecs <= 40


def test_errors():
    A = torch.eye(30)
    for kwargs in ({"method": "hutch"}, {"num_matvecs": 0}, {"num_matvecs": 3}, {"rel_stderr": 0}):
        with pytest.raises(ValueError, match="trace"):
            trace(A, **kwargs)
    with pytest.raises(FloatingPointError):
        trace(lambda v: v / 0, dim=30)
    assert trace(A + 0.1, "hutchinson", 1).stderr != trace(A + 0.1, "hutchinson", 1).stderr  # nan
