import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from thalweg.optim import BilevelProblem, hypergradient, implicit_diff

F64 = torch.float64


def drawn(seed, dx=3, dy=4):
    generator = torch.Generator().manual_seed(seed)
    q = torch.linalg.qr(torch.randn(dy, dy, dtype=F64, generator=generator))[0]
    H = (q * torch.linspace(1, 2, dy, dtype=F64)) @ q.T
    B, x = (torch.randn(s, dtype=F64, generator=generator) for s in ((dy, dx), dx))
    return H, B, x


@given(seed=st.integers(0, 10**6), method=st.sampled_from(["cg", "exact", "neumann", "lsgd"]))
def test_jacobian_of_a_linear_system(seed, method):
    """y* = H⁻¹Bx, whose Jacobian is H⁻¹B."""
    H, B, x = drawn(seed)
    solve = implicit_diff(
        lambda x, batch: torch.linalg.solve(H, B @ x),
        lower_loss=lambda x, y, batch: 0.5 * y @ H @ y - y @ B @ x,
        method=method,
        num_terms=60,
    )
    found = torch.autograd.functional.jacobian(solve, x)
    assert (found - torch.linalg.solve(H, B)).abs().max() < 1e-9


def test_ridge_regression_by_differences():
    generator = torch.Generator().manual_seed(0)
    X, b = (torch.randn(s, dtype=F64, generator=generator) for s in ((12, 4), 12))

    @implicit_diff(
        lower_loss=lambda s, y, batch: (
            0.5 * (X @ y - b).square().sum() + 0.5 * (s.exp() * y.square()).sum()
        )
    )
    def ridge(s, batch=None):
        """Solves."""
        return torch.linalg.solve(X.T @ X + torch.diag(s.exp()), X.T @ b)

    s = torch.randn(4, dtype=F64, generator=generator, requires_grad=True)
    assert torch.autograd.gradcheck(ridge, s, atol=1e-7)
    assert ridge.__doc__ == "Solves."


def test_the_hypergradient_is_the_gradient_through_the_solver():
    H, B, x = drawn(1)
    problem = BilevelProblem(
        lambda x, y, k: (y**4).sum() + x.square().sum(),
        lambda x, y, k: k * (0.5 * y @ H @ y - y @ B @ x),
    )
    solve = implicit_diff(
        lambda x, batch: torch.linalg.solve(H, B @ x), lower_loss=problem.lower_loss
    )
    leaf = x.clone().requires_grad_()
    y = solve(leaf, 3.0)
    problem.upper_loss(leaf, y, 3.0).backward()
    expected = hypergradient(problem, x, y.detach(), batch=3.0, method="exact")
    assert torch.allclose(leaf.grad, expected, rtol=1e-10)


def test_nests_and_mixed_dtypes():
    def lower(x, y, batch):
        return (y["a"].double() - x[0]).square().sum() + (y["b"] - 2 * x[1]).square().sum()

    solve = implicit_diff(
        lambda x, batch: {"a": x[0].float(), "b": 2 * x[1]}, lower_loss=lower, method="exact"
    )
    x = [torch.ones(2, dtype=F64, requires_grad=True), torch.ones(3, requires_grad=True)]
    y = solve(x)
    assert y["a"].dtype == torch.float32 and y["a"].requires_grad
    (y["a"].sum() + y["b"].sum()).backward()
    assert torch.allclose(x[0].grad, torch.ones(2, dtype=F64))
    assert torch.allclose(x[1].grad, torch.full((3,), 2.0))


def test_the_solver_runs_without_a_graph():
    seen = []

    def solver(x, batch):
        seen.append((x.requires_grad, torch.is_grad_enabled()))
        return x.clone()

    solve = implicit_diff(solver, lower_loss=lambda x, y, b: (y - x).square().sum())
    y = solve(torch.ones(2, requires_grad=True))
    assert seen == [(False, False)] and y.requires_grad
    assert not solve(torch.ones(2)).requires_grad


def test_errors():
    lower = lambda x, y, b: -(y - x).square().sum()  # noqa: E731
    with pytest.raises(ValueError, match="no steps to unroll"):
        implicit_diff(lower_loss=lower, method="unroll")
    with pytest.raises(ValueError, match="method must be one of"):
        implicit_diff(lower_loss=lower, method="newton")
    solve = implicit_diff(lambda x, b: x.clone(), lower_loss=lower)
    with pytest.raises(ValueError, match="add damping"):
        solve(torch.ones(2, requires_grad=True)).sum().backward()
    words = implicit_diff(lambda x, b: "y", lower_loss=lower)
    with pytest.raises(TypeError, match="y must consist of real floating tensors, got str"):
        words(torch.ones(2))
