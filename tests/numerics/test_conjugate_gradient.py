import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from thalweg.numerics import LinearOperator, conjugate_gradient

F64 = torch.float64


def positive(dim, seed, values=None):
    generator = torch.Generator().manual_seed(seed)
    q = torch.linalg.qr(torch.randn(dim, dim, dtype=F64, generator=generator))[0]
    values = torch.linspace(1, 5, dim, dtype=F64) if values is None else values
    return (q * values) @ q.T, torch.randn(dim, dtype=F64, generator=generator)


@given(dim=st.integers(1, 12), seed=st.integers(0, 10**6))
def test_equals_the_dense_solution(dim, seed):
    A, b = positive(dim, seed)
    expected = torch.linalg.solve(A, b)
    # round-off of at most 12 steps at condition number 5
    assert (conjugate_gradient(A, b) - expected).norm() <= 1e-10 * expected.norm()
    assert torch.equal(conjugate_gradient(A, 0 * b), 0 * b)


def test_as_many_steps_as_different_eigenvalues():
    A, b = positive(9, 0, torch.tensor([1.0] * 4 + [2.0] * 3 + [7.0] * 2, dtype=F64))
    operator = LinearOperator(lambda v: A @ v, 9, dtype=F64)
    x = conjugate_gradient(operator, b, eps=1e-9)
    assert operator.num_matvecs == 3
    assert (A @ x - b).norm() <= 1e-9 * b.norm()


def test_fewer_steps_are_the_best_of_the_krylov_space():
    A, b = positive(8, 1)
    basis = torch.linalg.qr(torch.stack([b, A @ b, A @ A @ b], 1))[0]
    best = basis @ torch.linalg.solve(basis.T @ A @ basis, basis.T @ b)
    assert (conjugate_gradient(A, b, num_steps=3) - best).norm() < 1e-10


def test_dtype_stays():
    A, b = positive(5, 2)
    x = conjugate_gradient(A.float(), b.float())
    assert x.dtype == torch.float32
    assert torch.allclose(x.double(), torch.linalg.solve(A, b), atol=1e-5)


def test_errors():
    A = torch.diag(torch.tensor([1.0, -1.0], dtype=F64))
    b = torch.ones(2, dtype=F64)
    with pytest.raises(ValueError, match=r"positive definite.*add damping"):
        conjugate_gradient(A, b)
    with pytest.raises(ValueError, match=r"shape \(2,\)"):
        conjugate_gradient(A, b[None])
    with pytest.raises(ValueError, match="num_steps"):
        conjugate_gradient(A, b, num_steps=0)
    with pytest.raises(FloatingPointError, match="nan"):
        conjugate_gradient(lambda v: v * torch.nan, b)
    assert conjugate_gradient(A, b * torch.nan).isnan().all()
