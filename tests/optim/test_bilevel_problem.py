from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.func import functional_call

from thalweg.optim import BilevelProblem, hypergradient

VECTORS = Path(__file__).parent.parent / "vectors" / "bilevel-bo-rep.npz"
F64 = torch.float64
METHODS = ["neumann", "cg", "unroll", "exact", "lsgd"]


@pytest.fixture(scope="module")
def vectors():
    with np.load(VECTORS, allow_pickle=False) as z:
        return {name: torch.from_numpy(np.asarray(z[name])) for name in z.files}


def quadratic(H, B, c, rho):
    """g = ½yᵀHy − yᵀBx, f = ½‖y − c‖² + ½ρ‖x‖²."""
    return BilevelProblem(
        lambda x, y, batch: 0.5 * (y - c).square().sum() + 0.5 * rho * x.square().sum(),
        lambda x, y, batch: 0.5 * y @ H @ y - y @ B @ x,
    )


def drawn(seed, dx=3, dy=5):
    generator = torch.Generator().manual_seed(seed)
    q = torch.linalg.qr(torch.randn(dy, dy, dtype=F64, generator=generator))[0]
    H = (q * torch.linspace(1, 3, dy, dtype=F64)) @ q.T
    B, c = (torch.randn(s, dtype=F64, generator=generator) for s in ((dy, dx), (dy,)))
    return H, B, c, torch.randn(dx, dtype=F64, generator=generator)


def test_vectors_of_the_quadratic(vectors):
    z = vectors
    problem = quadratic(z["H"], z["B"], z["c"], z["rho"])
    for method in ("exact", "cg"):
        found = hypergradient(problem, z["x"], z["y_star"], method=method)
        assert (found - z["hypergrad_exact"]).abs().max() < 1e-13
    for terms in (1, 3, 10, 50):
        # Steps on the system from 0 and unrolled steps from the solution are the same series.
        for method in ("neumann", "lsgd", "unroll"):
            found = hypergradient(
                problem, z["x"], z["y_star"], method=method, num_terms=terms, lr=1 / float(z["l"])
            )
            assert (found - z[f"hypergrad_neumann_Q{terms}"]).abs().max() < 1e-12, (method, terms)


def test_vectors_of_ridge_regression(vectors):
    z = vectors
    problem = BilevelProblem(
        lambda s, y, batch: 0.5 * (z["ridge_Xv"] @ y - z["ridge_bv"]).square().sum(),
        lambda s, y, batch: (
            0.5 * (z["ridge_X"] @ y - z["ridge_b"]).square().sum()
            + 0.5 * s.exp() * y.square().sum()
        ),
    )
    for method in ("exact", "cg"):
        found = hypergradient(problem, z["ridge_loglam"], z["ridge_y"], method=method)
        assert abs(float(found / z["ridge_hypergrad"]) - 1) < 1e-10


@pytest.mark.parametrize("terms", [1, 5, 20])
def test_the_series_is_as_wrong_as_its_bound_says(terms):
    H, B, c, x = drawn(0)
    y = torch.linalg.solve(H, B @ x)
    problem = quadratic(H, B, c, 0.0)
    exact = B.T @ torch.linalg.solve(H, y - c)
    found = hypergradient(problem, x, y, num_terms=terms)
    bound = (1 - 1 / 3) ** terms  # λ_min = 1, λ_max = 3 found by Lanczos
    z_error = torch.linalg.matrix_norm(B, 2) * torch.linalg.solve(H, y - c).norm() * bound
    assert 0 < (found - exact).norm() <= 1.01 * z_error


@given(seed=st.integers(0, 10**6), method=st.sampled_from(METHODS))
def test_linear_in_the_upper_loss_and_equal_to_differences(seed, method):
    H, B, c, x = drawn(seed)
    y = torch.linalg.solve(H, B @ x)
    problem = quadratic(H, B, c, 0.3)
    settings = {"method": method, "num_terms": 80, "lr": 0.3}
    found = hypergradient(problem, x, y, **settings)

    def phi(x):
        return problem.upper_loss(x, torch.linalg.solve(H, B @ x), None)

    steps = 1e-5 * torch.eye(3, dtype=F64)
    differences = torch.stack([(phi(x + s) - phi(x - s)) / 2e-5 for s in steps])
    # differences of a quadratic are exact but for round-off; 80 terms leave (1 − .3)^80
    assert (found - differences).abs().max() < 1e-7 * (1 + differences.abs().max())
    tripled = BilevelProblem(lambda *a: 3 * problem.upper_loss(*a), problem.lower_loss)
    assert torch.allclose(hypergradient(tripled, x, y, **settings), 3 * found, rtol=1e-9)


@pytest.mark.parametrize("method", METHODS)
def test_nests_are_as_one_vector(method):
    H, B, c, x = drawn(3, dx=3, dy=5)
    y = torch.linalg.solve(H, B @ x)
    whole = quadratic(H, B, c, 0.3)

    def joined(loss):
        return lambda x, y, batch: loss(
            torch.cat([x["a"], x["b"][0]]), torch.cat([y[0].reshape(-1), y[1]]), batch
        )

    nested = BilevelProblem(joined(whole.upper_loss), joined(whole.lower_loss))
    found = hypergradient(
        nested, {"a": x[:1], "b": (x[1:],)}, [y[:4].reshape(2, 2), y[4:]], method=method
    )
    assert set(found) == {"a", "b"} and isinstance(found["b"], tuple)
    expected = hypergradient(whole, x, y, method=method)
    assert torch.allclose(torch.cat([found["a"], found["b"][0]]), expected, rtol=1e-9)


def test_damping_is_added_to_the_hessian():
    H, B, c, x = drawn(1)
    y = torch.linalg.solve(H, B @ x)
    expected = B.T @ torch.linalg.solve(H + 2 * torch.eye(5, dtype=F64), y - c)
    for method in ("neumann", "cg", "exact", "lsgd"):
        found = hypergradient(
            quadratic(H, B, c, 0.0), x, y, method=method, damping=2.0, num_terms=100
        )
        assert (found - expected).norm() < 1e-9, method


def test_a_callable_gives_each_factor_its_own_batch():
    """The mean over draws of a product of independent factors is the series of the mean."""
    H, B, c, x = drawn(2)
    y = torch.linalg.solve(H, B @ x)
    signs = []

    def lower(x, y, sign):
        signs.append(sign)
        return 0.5 * (1 + 0.3 * sign) * (y @ H @ y) - y @ B @ x

    problem = BilevelProblem(quadratic(H, B, c, 0.0).upper_loss, lower)
    generator = torch.Generator().manual_seed(0)

    def draw():
        return 1 - 2 * int(torch.randint(2, (), generator=generator))

    found = [hypergradient(problem, x, y, batch=draw, num_terms=4, lr=0.25) for _ in range(400)]
    expected = hypergradient(quadratic(H, B, c, 0.0), x, y, num_terms=4, lr=0.25)
    mean, spread = torch.stack(found).mean(0), torch.stack(found).std(0) / 20
    assert ((mean - expected).abs() < 4 * spread + 1e-12).all()
    assert (spread > 0).all() and len(set(signs)) == 2
    assert len(signs) >= 400 * 5  # three products, the next batch, and the cross term


@pytest.mark.parametrize("block", ["conv", "attention"])
def test_parameters_of_modules(block):
    """Weights of samples; damped, since these lower losses are not convex at their start."""
    torch.manual_seed(0)
    if block == "conv":
        model = nn.Sequential(
            *(nn.Conv2d(1, 2, 3), nn.Softplus(), nn.Flatten(), nn.Linear(2 * 9, 2)),
        )
        data = torch.randn(6, 1, 5, 5, dtype=F64)
    else:
        model = nn.Sequential(
            nn.TransformerEncoderLayer(4, 1, 4, dropout=0.0, activation="gelu", batch_first=True),
            *(nn.Flatten(), nn.Linear(8, 2)),
        )
        data = torch.randn(6, 2, 4, dtype=F64)
    model.double()
    labels = torch.tensor([0, 1, 0, 1, 0, 1])

    def losses(y):
        return nn.functional.cross_entropy(
            functional_call(model, y, (data,)), labels, reduction="none"
        )

    problem = BilevelProblem(
        lambda x, y, batch: losses(y)[3:].mean(),
        lambda x, y, batch: (
            (x.sigmoid() * losses(y)).mean() + sum(t.square().sum() for t in y.values())
        ),
    )
    x, y = torch.zeros(6, dtype=F64), dict(model.named_parameters())
    found = hypergradient(problem, x, y, method="cg", num_terms=200, damping=5.0)
    expected = hypergradient(problem, x, y, method="exact", damping=5.0)
    assert (found - expected).norm() < 1e-8 * expected.norm()
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dtype_and_arguments_stay(dtype):
    H, B, c, x = (t.to(dtype) for t in drawn(4))
    y = torch.linalg.solve(H, B @ x).requires_grad_()
    before = y.detach().clone()
    for method in METHODS:
        found = hypergradient(quadratic(H, B, c, 0.1), x, y, method=method)
        assert found.dtype == dtype and not found.requires_grad
    assert torch.equal(y.detach(), before) and y.grad is None


@pytest.mark.parametrize("method", METHODS)
def test_without_influence_there_is_a_warning_and_the_direct_part(method):
    problem = BilevelProblem(
        lambda x, y, batch: (y.sum() - x.sum()) ** 2, lambda x, y, batch: y.square().sum()
    )
    x, y = torch.tensor([2.0]), torch.tensor([1.0])
    if method == "unroll":  # y is 0 after a step of 1/λ_max
        expected, noise = torch.tensor([4.0]), None
    else:
        expected, noise = torch.tensor([2.0]), "no upper parameter influences"
    if noise:
        with pytest.warns(UserWarning, match=noise):
            found = hypergradient(problem, x, y, method=method)
    else:
        found = hypergradient(problem, x, y, method=method)
    assert torch.allclose(found, expected)


def test_an_upper_loss_without_direct_part_and_without_influence_gives_zeros():
    problem = BilevelProblem(lambda x, y, b: y.sum(), lambda x, y, b: y.square().sum())
    for method in METHODS:
        with pytest.warns(UserWarning, match="no upper parameter influences"):
            found = hypergradient(problem, torch.ones(3), torch.ones(2), method=method)
        assert torch.equal(found, torch.zeros(3))


def test_indefinite_and_too_long_steps_are_refused():
    H, B, c, x = drawn(5)
    saddle = quadratic(H - 2 * torch.eye(5, dtype=F64), B, c, 0.0)
    y = torch.ones(5, dtype=F64)
    with pytest.raises(ValueError, match="add damping"):
        hypergradient(saddle, x, y, method="cg")
    with pytest.raises(ValueError, match="add damping="):
        hypergradient(saddle, x, y, method="neumann", num_terms=60)
    fine = hypergradient(saddle, x, y, method="cg", damping=2.0)
    assert (fine - B.T @ torch.linalg.solve(H, y - c)).norm() < 1e-9
    with pytest.raises(ValueError, match=r"its lr \(lower_lr\) 0.8"):
        hypergradient(quadratic(H, B, c, 0.0), x, y, lr=0.8)  # λ_max = 3
    with pytest.raises(ValueError, match=r"its lr \(lower_lr\)"):
        hypergradient(quadratic(H, B, c, 0.0), x, y, lr=0.8, method="lsgd")
    with pytest.raises(ValueError, match="convex in y"):
        hypergradient(quadratic(-H, B, c, 0.0), x, y)


def test_nan_comes_through_as_nan():
    H, B, c, x = drawn(6)
    for method in METHODS:
        lr = None if method in ("cg", "exact") else 0.3
        y = torch.full((5,), torch.nan, dtype=F64)
        found = hypergradient(quadratic(H, B, c, 0.0), x, y, method=method, lr=lr)
        assert found.isnan().all()


def test_errors():
    H, B, c, x = drawn(7)
    problem, y = quadratic(H, B, c, 0.0), c
    for settings, said in (
        ({"method": "newton"}, "method must be one of"),
        ({"num_terms": 0}, "num_terms must be at least 1"),
        ({"lr": 0.0}, "lr must be positive"),
        ({"damping": -1.0}, "damping must not be negative"),
        ({"method": "unroll", "damping": 1.0}, "damping belongs"),
    ):
        with pytest.raises(ValueError, match=said):
            hypergradient(problem, x, y, **settings)
    with pytest.raises(TypeError, match=r"y must consist .* got torch.int64"):
        hypergradient(problem, x, torch.arange(5))
    with pytest.raises(TypeError, match="x must consist of real floating tensors, got float"):
        hypergradient(problem, [1.0], y)
    with pytest.raises(ValueError, match="x must hold a tensor"):
        hypergradient(problem, {}, y)
    vector = BilevelProblem(lambda x, y, b: y, problem.lower_loss)
    with pytest.raises(ValueError, match=r"upper_loss must return a scalar .* got \(5,\)"):
        hypergradient(vector, x, y)
    detached = BilevelProblem(problem.upper_loss, lambda x, y, b: y.detach().sum())
    with pytest.raises(ValueError, match="lower_loss must return a scalar"):
        hypergradient(detached, x, y)
    big = BilevelProblem(lambda x, y, b: y.sum(), lambda x, y, b: (y - x).square().sum())
    with pytest.raises(ValueError, match="take 'cg'"):
        hypergradient(big, torch.ones(()), torch.ones(5000), method="exact")
