import math

import pytest
import torch
from benchmarks.never_wrong import KINDS, loss_fn, matrix, small_network, spectrum
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from thalweg.numerics import LinearOperator, eigsh, hvp

CI = settings(max_examples=25, deadline=None, derandomize=True)


@pytest.mark.parametrize("kind", KINDS)
def test_never_wrong_while_saying_converged(kind):
    """25 matrices of 8 families: 200. Also from a guess that is an eigenvector further down."""
    converged = 0
    for seed in range(25):
        g = torch.Generator().manual_seed(seed)
        values = spectrum(kind, 60 + 4 * seed, g)
        dtype = torch.float64 if seed % 2 else torch.float32
        A, Q = matrix(values, seed, dtype)
        top = values.max().item()
        worse = Q[:, values.argsort()[len(values) // 2]]
        for guess in (None, worse):
            found = eigsh(A, v0=guess, generator=g, max_matvecs=150)
            value = found.values[0].item()
            noise = 1e-6 * values.abs().max().item()
            assert value <= top + noise  # a Ritz value is never above
            residual = found.residuals[0].item()
            near = (values - value).abs().min().item()
            assert near <= residual + noise
            if found.converged:
                converged += 1
                assert top - value <= 2.001e-3 * abs(top) + noise
                assert found.probability >= 0.99 and residual <= 1.01e-3 * abs(value) + 10 * noise
    assert converged >= 40, "a bound that is never met is worth nothing"


def test_the_peers_counterexample():
    """Power iteration from an unlucky start stops at 2.89 where the top is 7.84."""
    values = torch.cat([torch.linspace(0, 2.89, 99), torch.tensor([7.84])]).double()
    A = torch.diag(values)
    start = torch.zeros(100).double()
    start[98] = 1.0
    found = eigsh(A, v0=start)
    assert found.converged and abs(found.values[0].item() - 7.84) < 1e-3


def test_a_real_hessian():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)).double()
    batch = torch.randn(40, 6).double(), torch.randint(3, (40,))
    H = hvp(model, lambda m, b: nn.functional.cross_entropy(m(b[0]), b[1]), batch)
    true = torch.linalg.eigvalsh(H.dense())
    found = eigsh(H, 3)
    assert found.converged
    torch.testing.assert_close(found.values, true.flip(0)[:3], rtol=2e-3, atol=0)
    low = eigsh(H, which="SA", tol=1e-4)
    torch.testing.assert_close(low.values, true[:1], rtol=2e-4, atol=0)


@pytest.mark.parametrize("seed", range(24))
def test_never_wrong_on_real_hessians_in_single_precision(seed):
    torch.manual_seed(seed)
    model, batch = small_network(seed)
    with hvp(model, loss_fn, batch) as H:
        true = torch.linalg.eigvalsh(H.dense().double())
        noise = 1e-5 * true.abs().max().item()
        for which, end in (("LA", true[-1].item()), ("SA", true[0].item())):
            found = eigsh(H, which=which, v0=torch.randn(H.dim))
            assert found.converged
            assert abs(found.values[0].item() - end) <= 1.05e-3 * abs(end) + noise


def test_copies_are_found():
    values = torch.tensor([5.0, 5.0, 5.0, 4.0] + [1.0] * 20)
    A, _ = matrix(values, 0)
    assert torch.allclose(eigsh(A, 4).values, values[:4].double(), rtol=1e-3)
    assert eigsh(torch.eye(4), 4).values.tolist() == pytest.approx([1.0] * 4)
    assert eigsh(torch.zeros(3, 3)).values.tolist() == [0.0]


@pytest.mark.parametrize(("which", "expected"), [("LA", 3.0), ("SA", -7.0), ("LM", -7.0)])
def test_which(which, expected):
    values = torch.cat([torch.linspace(-1, 1, 40), torch.tensor([3.0, -7.0])]).double()
    found = eigsh(matrix(values, 1)[0], which=which)
    assert found.converged and found.values[0].item() == pytest.approx(expected, rel=1e-3)


@CI
@given(seed=st.integers(0, 10**6), p=st.integers(1, 40), k=st.integers(1, 3))
def test_vectors_residuals_and_order(seed, p, k):
    k = min(k, p)
    A, _ = matrix(torch.randn(p, generator=torch.Generator().manual_seed(seed)), seed)
    found = eigsh(A, k)
    V = found.vectors
    eye = torch.eye(V.shape[1], dtype=V.dtype)
    torch.testing.assert_close(V.T @ V, eye, atol=1e-8, rtol=0)
    residuals = torch.linalg.vector_norm(A @ V - V * found.values, dim=0)
    torch.testing.assert_close(residuals, found.residuals, atol=1e-10, rtol=0)
    assert (found.values[:-1] - found.values[1:] >= -1e-3).all()
    if found.converged:
        true = torch.linalg.eigvalsh(A).flip(0)[:k]
        torch.testing.assert_close(found.values, true, rtol=3e-3, atol=1e-9)


def test_too_few_products_are_admitted():
    A, _ = matrix(torch.linspace(-1, 1, 300), 0)
    found = eigsh(A, max_matvecs=10)
    assert not found.converged and found.probability < 0.99 and found.num_matvecs == 10


def test_a_matrix_that_is_not_what_it_says_is_not_converged():
    A = torch.randn(40, 40, generator=torch.Generator().manual_seed(0))
    lying = LinearOperator(lambda v: A @ v, 40)
    assert not eigsh(lying).converged


def test_a_single_pair_costs_no_product_beyond_its_run():
    A, _ = matrix(torch.cat([torch.linspace(-1, 1, 300), torch.tensor([4.0])]), 0)
    products = []
    top = eigsh(LinearOperator(lambda v: products.append(1) or A @ v, 301, dtype=A.dtype))
    assert top.converged and top.num_matvecs == len(products)
    v = top.vectors[:, 0]
    assert top.residuals[0].item() == pytest.approx((A @ v - top.values[0] * v).norm().item())
    assert top.values[0].item() == pytest.approx((v @ A @ v).item(), rel=1e-12)


@pytest.mark.parametrize("noise", [1e-2, 1e-1])
def test_products_that_are_not_repeatable_are_not_converged(noise):
    """Random numbers that change between products: a residual of T alone would not see them."""
    A, _ = matrix(torch.cat([torch.linspace(-1, 1, 100), torch.tensor([4.0])]), 0)
    g = torch.Generator().manual_seed(0)

    def matvec(v):
        return A.float() @ v + noise * torch.randn(101, generator=g)

    assert not eigsh(matvec, dim=101).converged


def test_same_seed_same_answer_and_no_global_random_state():
    A, _ = matrix(torch.linspace(0, 1, 50), 0)
    state = torch.get_rng_state()
    first, second = eigsh(A), eigsh(A)
    assert torch.equal(first.vectors, second.vectors)
    assert torch.equal(state, torch.get_rng_state())
    other = eigsh(A, generator=torch.Generator().manual_seed(5))
    assert not torch.equal(first.vectors, other.vectors)


def test_errors():
    A = torch.eye(3)
    for kwargs in (
        {"k": 0},
        {"k": 4},
        {"which": "TOP"},
        {"tol": 0.0},
        {"confidence": 1.0},
        {"max_matvecs": 1},
        {"tol": math.nan},
    ):
        with pytest.raises(ValueError, match="eigsh"):
            eigsh(A, **kwargs)
    with pytest.raises(ValueError, match="symmetric"):
        eigsh(torch.tensor([[0.0, 1.0], [0.0, 0.0]]))
    with pytest.raises(FloatingPointError):
        eigsh(lambda v: v / 0, dim=4)
