from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from thalweg.optim import orthogonalize, smoothed_nuclear

METHODS = ("svd", "ns", "polar_express", "regularized")
VECTORS = np.load(
    Path(__file__).parents[1] / "vectors" / "muon-hamiltonian.npz", allow_pickle=False
)


def vector(name):
    return torch.from_numpy(VECTORS[name])


def random(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def test_known_answers():
    G = torch.diag(torch.tensor([3.0, 4.0], dtype=torch.float64))
    for method in ("svd", "regularized"):
        assert torch.allclose(orthogonalize(G, method), torch.eye(2, dtype=torch.float64))
    u, v = random(5, seed=1), random(3, seed=2)
    rank_one = torch.outer(u / u.norm(), v / v.norm())
    out = orthogonalize(2.0 * rank_one, "regularized", eps=1.5)
    assert torch.allclose(out, 2.0 / 2.5 * rank_one, atol=1e-15)
    assert torch.allclose(orthogonalize(2.0 * rank_one, "svd"), rank_one, atol=1e-15)
    # One step on the scalar 1 (the 1e-7 in the norm moves it by 1e-7).
    one = torch.ones(1, 1, dtype=torch.float64)
    assert orthogonalize(one, "ns", steps=1).item() == pytest.approx(0.701, abs=2e-6)


@pytest.mark.parametrize("method", METHODS)
def test_zero_stays_zero(method):
    assert torch.equal(orthogonalize(torch.zeros(3, 4), method), torch.zeros(3, 4))
    assert orthogonalize(torch.zeros(0, 4), method).shape == (0, 4)


def slow_newton_schulz(G, triples, scale):
    """As written down: one matrix, plain products, no transposition."""
    X = G / scale
    for a, b, c in triples:
        A = X.T @ X
        X = a * X + X @ (b * A + c * A @ A)
    return X


@pytest.mark.parametrize("shape", [(6, 4), (4, 6), (5, 5), (1, 7)])
def test_a_slow_reference(shape):
    G = random(*shape)
    want = slow_newton_schulz(G, [(3.4445, -4.7750, 2.0315)] * 5, G.norm() + 1e-7)
    assert torch.allclose(orthogonalize(G, "ns"), want, atol=1e-12)
    # The definition of the smoothed factor, with an explicit inverse square root.
    values, basis = torch.linalg.eigh(G.T @ G + 0.09 * torch.eye(shape[1], dtype=G.dtype))
    want = G @ basis @ torch.diag(values.rsqrt()) @ basis.T
    assert torch.allclose(orthogonalize(G, "regularized", eps=0.3), want, atol=1e-12)


def test_singular_values_after_a_few_steps():
    """Intervals that the published coefficients give on a grid from 0.001 to 1."""
    sigma = torch.logspace(-3, 0, 2000, dtype=torch.float64)[:-1]  # at 1 the other is 0
    # A stack of 1 × 2 matrices would be normalised; diagonal (σ, √(1−σ²)) has norm one.
    stack = torch.diag_embed(torch.stack([sigma, (1 - sigma.square()).sqrt()], 1))
    for method, steps, low, high in (
        ("ns", 5, 0.4705, 1.2024),
        # 0.8764 without the safety factor, which begins a hundredth lower.
        ("polar_express", 5, 0.84, 1.1236),
        ("polar_express", 8, 0.99995, 1.00005),
    ):
        # The safety factor of Polar Express shifts its interval by less than a hundredth.
        values = torch.linalg.svdvals(orthogonalize(stack, method, steps=steps))
        assert low - 0.01 < values.min() and values.max() < high + 0.01, method


@given(
    seed=st.integers(0, 10_000),
    m=st.integers(1, 6),
    n=st.integers(1, 6),
    method=st.sampled_from(METHODS),
)
def test_rotations_go_through_and_stacks_are_single_matrices(seed, m, n, method):
    eps = 0.3 if method == "regularized" else 0.0
    G = random(3, m, n, seed=seed)
    Q, R = torch.linalg.qr(random(m, m, seed=seed + 1))[0], torch.linalg.qr(random(n, n))[0]
    out = orthogonalize(G, method, eps=eps)
    assert out.shape == G.shape
    # Five steep steps amplify rounding by at most 3.4⁵ (8.3·4.1·3.9·3.3·2.3 ≈ 1000).
    assert torch.allclose(orthogonalize(Q @ G @ R, method, eps=eps), Q @ out @ R, atol=1e-9)
    for one, of_stack in zip(G, out, strict=True):
        assert torch.allclose(orthogonalize(one, method, eps=eps), of_stack, atol=1e-12)
    assert torch.allclose(orthogonalize(G.mT, method, eps=eps), out.mT, atol=1e-9)
    assert torch.linalg.matrix_norm(out, 2).max() < 1.21


@given(seed=st.integers(0, 10_000), eps=st.sampled_from([0.01, 0.3, 2.0]))
def test_the_potential(seed, eps):
    P = random(5, 3, seed=seed).requires_grad_()
    K = smoothed_nuclear(P, eps)
    (gradient,) = torch.autograd.grad(K, P)
    O = orthogonalize(P.detach(), "regularized", eps=eps)  # noqa: E741
    assert torch.allclose(gradient, O, atol=1e-10)
    nuclear = torch.linalg.matrix_norm(P.detach(), "nuc")
    assert 0 <= nuclear - K <= 3 * eps
    s = torch.linalg.svdvals(O)
    conjugate = eps * (1 - (1 - s.square()).sqrt()).sum()
    assert torch.allclose(K + conjugate, (P * O).sum(), atol=1e-12)
    other = random(5, 3, seed=seed + 1)
    gap = orthogonalize(other, "regularized", eps=eps) - O
    assert gap.norm() <= (other - P).norm() / eps  # Lipschitz with constant 1/ε


@pytest.mark.parametrize("k", [0, 1, 2])
def test_vectors(k):
    G = vector(f"G{k}")
    # float64 against float64, at most a thousandfold amplified.
    for method, steps, name in (
        ("ns", 5, "ns5_jordan_f64"),
        ("polar_express", 5, "polar_express5_f64"),
        ("polar_express", 8, "polar_express8_f64"),
        ("svd", 5, "polar_exact"),
    ):
        out = orthogonalize(G, method, steps=steps)
        assert torch.allclose(out, vector(f"{name}_{k}"), atol=1e-11), name
    for eps in (0.1, 1.0):
        out = orthogonalize(G, "regularized", eps=eps)
        assert torch.allclose(out, vector(f"regularized_eps{eps}_{k}"), atol=1e-12)
        K = smoothed_nuclear(G, eps)
        assert torch.allclose(K, vector(f"potential_eps{eps}_{k}"), atol=1e-12)
    # bfloat16 has two digits, and the steep steps amplify what is missing: torch's own bfloat16
    # iteration is up to 0.105 from these.
    official = vector(f"ns5_official_bf16_{k}").double()
    for dtype in (torch.bfloat16, torch.float64):
        assert torch.allclose(orthogonalize(G, "ns", dtype=dtype), official, atol=0.12)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("method", METHODS)
def test_dtypes_are_kept_and_computed_in_at_least_float32(dtype, method):
    G = random(4, 6).to(dtype)
    out = orthogonalize(G.mT, method)
    assert out.dtype == dtype
    exact = orthogonalize(G.double().mT, method)
    assert (out.double() - exact).abs().max() < max(
        2 * torch.finfo(dtype).eps, 1e-4 * (dtype != torch.float64) or 1e-12
    )
    assert orthogonalize(G, method, dtype=torch.float64).dtype == dtype


def test_rank_deficient_matrices_give_partial_isometries():
    G = random(6, 2) @ random(2, 5, seed=1)
    values = torch.linalg.svdvals(orthogonalize(G, "svd"))
    assert torch.allclose(values, torch.tensor([1.0, 1, 0, 0, 0], dtype=G.dtype), atol=1e-12)


def test_what_is_not_finite_is_seen():
    G = random(3, 3)
    G[0, 0] = float("nan")
    for method in ("ns", "polar_express"):
        assert orthogonalize(G, method).isnan().all()
    with pytest.raises(RuntimeError):
        orthogonalize(G, "svd")


@pytest.mark.parametrize(
    ("arguments", "options", "error", "said"),
    [
        ((torch.ones(3),), {}, ValueError, r"takes matrices, got shape \(3,\)"),
        ((torch.ones(3, 3), "newton"), {}, ValueError, "unknown method 'newton'"),
        ((torch.ones(3, 3), "ns"), {"steps": 0}, ValueError, "steps must be at least 1, got 0"),
        ((torch.ones(3, 3), "svd"), {"eps": 0.1}, ValueError, "eps must be 0 for svd"),
        ((torch.ones(3, 3), "regularized"), {"eps": -1.0}, ValueError, "eps must be"),
        ((torch.ones(3, 3, dtype=torch.cfloat),), {}, TypeError, "dense real tensor"),
        ((torch.ones(3, 3, dtype=torch.int64),), {}, TypeError, "dense real tensor"),
        ((torch.ones(3, 3).to_sparse(),), {}, TypeError, "dense real tensor"),
    ],
)
def test_errors(arguments, options, error, said):
    with pytest.raises(error, match=said):
        orthogonalize(*arguments, **options)


def test_errors_of_the_potential():
    for P, eps in ((torch.ones(3), 0.1), (torch.ones(3, 3), -0.1)):
        with pytest.raises(ValueError, match="expected matrices and eps"):
            smoothed_nuclear(P, eps)
