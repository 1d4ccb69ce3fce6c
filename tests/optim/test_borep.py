import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from thalweg.optim import BOREP, BilevelProblem, hypergradient
from thalweg.optim.borep import norm

VECTORS = Path(__file__).parent.parent / "vectors" / "bilevel-bo-rep.npz"
F64 = torch.float64


@pytest.fixture(scope="module")
def vectors():
    with np.load(VECTORS, allow_pickle=False) as z:
        return {name: torch.from_numpy(np.asarray(z[name])) for name in z.files}


def quadratic(H, B, c, scale=1.0):
    return BilevelProblem(
        lambda x, y, noise: (
            scale * (0.5 * (y - c).square().sum() + 0.1 * x.square().sum() + _tilt(noise, y))
        ),
        lambda x, y, noise: 0.5 * y @ H @ y - y @ B @ x + _tilt(noise, y),
    )


def _tilt(noise, y):
    return 0.0 if noise is None else noise @ y


def drawn(seed, dx=3, dy=4):
    generator = torch.Generator().manual_seed(seed)
    q = torch.linalg.qr(torch.randn(dy, dy, dtype=F64, generator=generator))[0]
    H = (q * torch.linspace(1, 2, dy, dtype=F64)) @ q.T
    B, c, x, y = (torch.randn(s, dtype=F64, generator=generator) for s in ((dy, dx), dy, dx, dy))
    return H, B, c, x, y


def test_vectors(vectors):
    z = vectors
    problem = BilevelProblem(
        lambda x, y, batch: 0.5 * (y - z["c"]).square().sum() + 0.5 * z["rho"] * x.square().sum(),
        lambda x, y, batch: 0.5 * y @ z["H"] @ y - y @ z["B"] @ x,
    )
    lower_lr = 1 / float(z["l"])
    solver = BOREP(
        *(problem, z["x"], torch.zeros(6, dtype=F64)),
        lr=0.02,
        lower_lr=lower_lr,
        refine_steps=20,
        num_terms=10,
    )
    for k in range(30):
        solver.step()
        # Round-off of thirty float64 steps.
        assert (solver.x - z["borep_x"][k]).abs().max() < 1e-12
        assert (solver.y - z["borep_y"][k]).abs().max() < 1e-12


def slow(H, B, c, x, y, noises, lr, beta, lower_lr, period, lower_steps, refine, radius):
    """Plain numpy, gradients by hand, exact adjoint."""
    H, B, c, x, y = (t.numpy().copy() for t in (H, B, c, x, y))
    m, trail = np.zeros_like(x), []
    draws = iter(noises)
    for k in range(12):
        steps = refine if k == 0 else lower_steps * (k % period == 0)
        centre = y.copy()
        for _ in range(steps):
            y = y - lower_lr * (H @ y - B @ x + next(draws).numpy())
            if k > 0 and (far := np.linalg.norm(y - centre)) > radius:
                y = centre + radius * (y - centre) / far
        h = 0.2 * x + B.T @ np.linalg.solve(H, y - c)
        m = beta * m + (1 - beta) * h
        x = x - lr * m / (np.linalg.norm(m) + 1e-10)
        trail.append(np.concatenate([x, y]))
    return torch.from_numpy(np.stack(trail))


@given(
    seed=st.integers(0, 10**6),
    period=st.integers(1, 5),
    lower_steps=st.integers(1, 3),
    refine=st.integers(0, 4),
    radius=st.sampled_from([0.05, 100.0]),
    beta=st.sampled_from([0.0, 0.9]),
)
def test_equals_the_algorithm_by_hand(seed, period, lower_steps, refine, radius, beta):
    H, B, c, x, y = drawn(seed)
    generator = torch.Generator().manual_seed(seed)
    noises = [0.1 * torch.randn(4, dtype=F64, generator=generator) for _ in range(50)]
    draws = iter(noises)
    solver = BOREP(
        *(quadratic(H, B, c), x, y),
        **{"lr": 0.1, "beta": beta, "lower_lr": 0.4, "period": period, "radius": radius},
        lower_steps=lower_steps,
        refine_steps=refine,
        hypergrad="exact",
    )
    trail = []
    for _ in range(12):
        solver.step(None, lambda: next(draws))
        trail.append(torch.cat([solver.x, solver.y]))
    expected = slow(H, B, c, x, y, noises, 0.1, beta, 0.4, period, lower_steps, refine, radius)
    assert (torch.stack(trail) - expected).abs().max() < 1e-11


@given(seed=st.integers(0, 10**6), scale=st.sampled_from([1e-3, 7.0, 1e4]))
def test_steps_have_length_lr_and_the_scale_of_the_upper_loss_is_nothing(seed, scale):
    H, B, c, x, y = drawn(seed)
    solvers = [
        BOREP(quadratic(H, B, c, s), x, y, lr=0.3, lower_lr=0.4, num_terms=5) for s in (1.0, scale)
    ]
    left = 1e-12
    for _ in range(5):
        before = solvers[0].x.clone()
        for solver in solvers:
            solver.step()
        assert abs(float((solvers[0].x - before).norm()) - 0.3) < 1e-8
        # What is left of the scale is the 1e-10 in the norm: lr · 1e-10/‖m‖ a step, and what later
        # steps make of it.
        left += sum(0.3 * 1e-10 / float(norm(s._state["momentum"])) for s in solvers)
        assert (solvers[0].x - solvers[1].x).norm() < 2 * left


def test_without_momentum_and_with_exact_solutions_it_is_normalised_descent():
    H, B, c, x, _ = drawn(1)
    solver = BOREP(
        *(quadratic(H, B, c), x, torch.zeros(4, dtype=F64)),
        **{"lr": 0.1, "beta": 0.0, "lower_lr": 0.5, "period": 1, "lower_steps": 200},
        hypergrad="cg",
    )
    mine = x.clone()
    for _ in range(10):
        solver.step()
        y = torch.linalg.solve(H, B @ mine)
        h = 0.2 * mine + B.T @ torch.linalg.solve(H, y - c)
        mine = mine - 0.1 * h / h.norm()
        assert (solver.x - mine).norm() < 1e-9


def test_nests_move_by_their_norm_together():
    H, B, c, x, y = drawn(2)
    whole = quadratic(H, B, c)

    def joined(loss):
        return lambda x, y, batch: loss(torch.cat([x["a"], x["b"]]), torch.cat(y), batch)

    nested = BilevelProblem(joined(whole.upper_loss), joined(whole.lower_loss))
    one = BOREP(whole, x, y, lower_lr=0.4)
    two = BOREP(nested, {"a": x[:1], "b": x[1:]}, [y[:3], y[3:]], lower_lr=0.4)
    for _ in range(4):
        one.step()
        two.step()
    assert torch.allclose(torch.cat([two.x["a"], two.x["b"]]), one.x, rtol=1e-9)
    assert torch.allclose(torch.cat(two.y), one.y, rtol=1e-9)


def test_arguments_are_copied_and_dtypes_may_differ():
    problem = BilevelProblem(
        lambda x, y, batch: (y[0].double().sum() - 3) ** 2 + y[1].float().square().sum(),
        lambda x, y, batch: (
            (y[0] - x["a"].float()).square().sum() + (y[1].float() - x["b"]).square().sum()
        ),
    )
    x = {"a": torch.ones(2, dtype=F64), "b": torch.ones(2)}
    y = [torch.zeros(2), torch.zeros(2, dtype=torch.bfloat16)]
    kept = copy.deepcopy((x, y))
    solver = BOREP(problem, x, y, lower_lr=0.4)
    solver.step()
    assert all(torch.equal(x[k], kept[0][k]) for k in x)
    assert torch.equal(y[0], kept[1][0]) and torch.equal(y[1], kept[1][1])
    assert [solver.x["a"].dtype, solver.x["b"].dtype] == [F64, torch.float32]
    assert [t.dtype for t in solver.y] == [torch.float32, torch.bfloat16]
    assert solver.x["a"].mean() > 1 and solver.x["b"].mean() < 1


@pytest.mark.parametrize("hypergrad", ["neumann", "lsgd"])
def test_resumed_is_uninterrupted(hypergrad, tmp_path):
    H, B, c, x, y = drawn(3)

    def fresh(x, y):
        return BOREP(
            quadratic(H, B, c), x, y, lower_lr=0.4, hypergrad=hypergrad, num_terms=1, period=3
        )

    through, stopped = fresh(x, y), fresh(x, y)
    for _ in range(4):
        through.step()
        stopped.step()
    stopped.lr = through.lr = 0.005
    torch.save(stopped.state_dict(), tmp_path / "state.pt")
    stopped.step()  # what is saved does not change any more
    resumed = fresh(torch.zeros_like(x), torch.zeros_like(y))
    resumed.load_state_dict(torch.load(tmp_path / "state.pt"))
    for _ in range(4):
        through.step()
        resumed.step()
    assert torch.equal(through.x, resumed.x) and torch.equal(through.y, resumed.y)
    assert resumed.lr == 0.005 and resumed.num_steps == 8
    with pytest.raises(ValueError, match=r"saved x has shapes \[\(3,\)\], this one has \[\(1,\)\]"):
        fresh(torch.ones(1), y).load_state_dict(through.state_dict())


def test_warm_started_adjoint_comes_to_the_solution():
    H, B, c, x, y = drawn(4)
    solver = BOREP(quadratic(H, B, c), x, y, lr=1e-9, lower_lr=0.4, hypergrad="lsgd", num_terms=1)
    for _ in range(200):
        loss = solver.step()
    z = torch.linalg.solve(H, solver.y - c)
    assert (solver.state_dict()["state"]["z"][0] - z).norm() < 1e-7
    assert float(loss) == pytest.approx(float(solver.problem.upper_loss(solver.x, solver.y, None)))


def test_no_gradient_no_move():
    problem = BilevelProblem(
        lambda x, y, batch: 0 * y.sum(), lambda x, y, batch: (y - x).square().sum()
    )
    solver = BOREP(problem, torch.ones(2), torch.zeros(2), lower_lr=0.5)
    solver.step()
    assert torch.equal(solver.x, torch.ones(2))


def test_the_hypergradient_is_the_public_one():
    H, B, c, x, y = drawn(5)
    problem = quadratic(H, B, c)
    solver = BOREP(problem, x, y, lr=1.0, beta=0.0, lower_lr=0.4, refine_steps=0, damping=0.1)
    solver.step()
    h = hypergradient(problem, x, y, lr=0.4, damping=0.1)
    assert (solver.x - (x - h / h.norm())).norm() < 1e-9


def test_errors():
    H, B, c, x, y = drawn(6)
    for settings, said in (
        ({"period": 0}, "period must be at least 1, got 0"),
        ({"lr": 0.0}, "lr must be positive, got 0"),
        ({"lower_lr": -1.0}, "lower_lr must be positive"),
        ({"beta": 1.0}, "beta must be from 0 to below 1"),
        ({"lower_steps": 0}, "lower_steps must be at least 1"),
        ({"refine_steps": -1}, "refine_steps must be at least 0"),
        ({"radius": 0.0}, "radius must be positive or None"),
        ({"hypergrad": "newton"}, "method must be one of"),
        ({"num_terms": 0}, "num_terms must be at least 1"),
    ):
        with pytest.raises(ValueError, match=said):
            BOREP(quadratic(H, B, c), x, y, **{"lower_lr": 0.4, **settings})
    solver = BOREP(quadratic(H, B, c), x, y, lower_lr=1.5, refine_steps=0)  # λ_max = 2
    with pytest.raises(ValueError, match=r"lower_lr"):
        solver.step()
    apart = BilevelProblem(lambda x, y, b: y.sum(), lambda x, y, b: y.square().sum())
    with pytest.warns(UserWarning, match="no upper parameter influences"):
        BOREP(apart, x, y, lower_lr=0.4).step()
    assert "x: 3 numbers, y: 4 numbers" in repr(solver)


def test_a_penalty_for_each_feature_beats_the_best_single_one_of_a_grid():
    """Ridge regression of which half the features are noise; solved in closed form."""
    generator = torch.Generator().manual_seed(0)
    X, V = (torch.randn(30, 10, dtype=F64, generator=generator) for _ in range(2))
    truth = torch.cat([torch.ones(5, dtype=F64), torch.zeros(5, dtype=F64)])
    b, bv = (A @ truth + 0.5 * torch.randn(30, dtype=F64, generator=generator) for A in (X, V))

    def solved(log_penalty):
        return torch.linalg.solve(X.T @ X + torch.diag(log_penalty.exp()), X.T @ b)

    def validation(y):
        return 0.5 * (V @ y - bv).square().sum()

    problem = BilevelProblem(
        lambda x, y, batch: validation(y),
        lambda x, y, batch: 0.5 * (X @ y - b).square().sum() + 0.5 * (x.exp() * y.square()).sum(),
    )
    x = torch.zeros(10, dtype=F64)
    solver = BOREP(problem, x, solved(x), lr=0.1, lower_lr=0.005, period=1, hypergrad="cg")
    for k in range(150):
        solver.lr = 0.1 / (1 + k / 50)
        solver.step()
    grid = [validation(solved(x + s)) for s in torch.linspace(-6, 6, 20, dtype=F64)]
    assert validation(solved(solver.x)) < min(grid)
