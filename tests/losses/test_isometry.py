"""The isometry penalty and its gradient against closed forms, autograd and given vectors."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from thalweg.losses import isometry_gradient, isometry_penalty
from thalweg.losses.isometry import matrices

VECTORS = np.load(Path(__file__).parents[1] / "vectors" / "adamo-isometry.npz", allow_pickle=False)


def drawn(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def slow(W, target=1.0):
    """Σ over the r singular values, from an SVD."""
    return (torch.linalg.svdvals(W.flatten(1)) ** 2 - target**2).square().sum()


@pytest.mark.parametrize("shape", [(5, 3), (3, 5), (4, 4)])
def test_an_isometry_is_not_penalised(shape):
    W = torch.linalg.svd(drawn(0, *shape), full_matrices=False)
    W = W.U @ W.Vh
    assert isometry_penalty(W) < 1e-28 and isometry_gradient(W).abs().max() < 1e-14
    assert isometry_penalty(3 * W, target=3.0) < 1e-25


def test_a_multiple_of_the_identity_and_zero():
    c, n = 1.5, 4
    eye = torch.eye(n, dtype=torch.float64)
    assert isometry_penalty(c * eye).item() == pytest.approx(n * (c**2 - 1) ** 2)
    assert torch.allclose(isometry_gradient(c * eye), 4 * c * (c**2 - 1) * eye)
    zero = torch.zeros(5, 2)
    assert isometry_penalty(zero) == 2 and not isometry_gradient(zero).any()  # a saddle
    assert isometry_penalty(torch.tensor([[3.0]])) == 64


@pytest.mark.parametrize("kind", ["tall", "wide"])
def test_vectors_of_an_independent_prototype(kind):
    W = torch.from_numpy(VECTORS[f"adamo_W_{kind}0"])
    # float64, another order of sums.
    assert isometry_penalty(W).item() == pytest.approx(float(VECTORS[f"iso_pen_{kind}"]), rel=1e-13)
    want = torch.from_numpy(VECTORS[f"iso_grad_{kind}"])
    assert torch.allclose(isometry_gradient(W), want, rtol=0, atol=1e-13)


@given(
    st.integers(1, 6), st.integers(1, 6), st.integers(0, 99), st.sampled_from([0.5, 1.0, 2**0.5])
)
def test_the_penalty_is_that_of_the_singular_values_and_the_gradient_its_derivative(m, n, seed, s):
    W = drawn(seed, m, n).requires_grad_()
    R = isometry_penalty(W, s)
    assert torch.allclose(R, slow(W.detach(), s), rtol=1e-10)
    (grad,) = torch.autograd.grad(R, W)
    assert torch.allclose(isometry_gradient(W, s), grad, rtol=1e-10, atol=1e-10)
    assert not isometry_gradient(W, s).requires_grad


@given(st.integers(2, 6), st.integers(2, 6), st.integers(0, 99))
def test_rotations_leave_the_penalty_and_turn_the_gradient(m, n, seed):
    W = drawn(seed, m, n)
    Q = torch.linalg.qr(drawn(seed + 1, m, m)).Q
    assert torch.allclose(isometry_penalty(Q @ W), isometry_penalty(W), rtol=1e-10)
    assert torch.allclose(isometry_gradient(Q @ W), Q @ isometry_gradient(W), atol=1e-9)


def test_gradcheck_and_second_derivatives():
    W = drawn(3, 4, 3).requires_grad_()
    assert torch.autograd.gradcheck(isometry_penalty, W)
    assert torch.autograd.gradgradcheck(isometry_penalty, W)


def test_kernels_are_flattened():
    W = drawn(0, 4, 3, 2, 2)
    assert torch.equal(isometry_penalty(W), isometry_penalty(W.flatten(1)))
    assert torch.equal(isometry_gradient(W), isometry_gradient(W.flatten(1)).view_as(W))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_the_gram_matrix_is_at_least_float32(dtype):
    W = (20 * drawn(0, 8, 8)).to(dtype)  # the penalty overflows float16
    wide = torch.promote_types(dtype, torch.float32)
    R = isometry_penalty(W)
    assert R.dtype == wide and torch.allclose(R, slow(W.to(wide)), rtol=1e-4)
    assert isometry_gradient(W / 20).dtype == dtype


def test_a_module_is_the_sum_over_its_matrices_without_embeddings():
    tied = nn.Linear(4, 4)
    model = nn.Sequential(nn.Embedding(9, 4), tied, nn.LayerNorm(4), tied, nn.Conv1d(4, 2, 1))
    want = isometry_penalty(tied.weight) + isometry_penalty(model[4].weight)
    assert torch.allclose(isometry_penalty(model), want)
    assert [p.shape for p in matrices(model)] == [(4, 4), (2, 4, 1)]


def test_errors_say_what_came():
    with pytest.raises(ValueError, match=r"shape \(3,\); it needs at least 2"):
        isometry_penalty(torch.ones(3))
    with pytest.raises(ValueError, match=r"shape \(\)"):
        isometry_gradient(torch.ones(()))
    with pytest.raises(ValueError, match="no parameter of at least two"):
        isometry_penalty(nn.LayerNorm(3))
    with pytest.raises(ValueError, match="target must be positive, got 0"):
        isometry_penalty(torch.eye(2), target=0.0)
    with pytest.raises(TypeError, match="complex"):
        isometry_penalty(torch.eye(2, dtype=torch.complex64))
