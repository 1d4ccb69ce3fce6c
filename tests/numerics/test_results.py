"""What numerics hands back: the stated types, which can't be changed, in the dtype of the input."""

import dataclasses

import pytest
import torch

from thalweg.numerics import (
    SVD,
    CurvatureOperator,
    Eigenpairs,
    LinearOperator,
    SpectralDensity,
    TraceEstimate,
    eigsh,
    fastfood,
    fastfood_factors,
    hessian_operator,
    randomized_svd,
    spectral_density,
    trace,
)

A = torch.diag(torch.tensor([4.0, 2.0, 1.0, 1.0], dtype=torch.float64))


def test_types_and_dtypes():
    top, estimate, density = eigsh(A), trace(A, num_matvecs=4), spectral_density(A)
    assert isinstance(top, Eigenpairs) and top.values.dtype == torch.float64
    assert isinstance(estimate, TraceEstimate) and estimate.value == pytest.approx(8)
    assert isinstance(density, SpectralDensity)
    factors = randomized_svd(A, 2)
    assert isinstance(factors, SVD) and factors.S.tolist() == pytest.approx([4, 2])
    for result, field in ((top, "probability"), (density, "grid")):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(result, field, None)


def test_a_curvature_operator_is_a_linear_operator_that_knows_its_loss():
    w = torch.tensor([1.0, 3.0], requires_grad=True)
    with hessian_operator(lambda: (w**3).sum(), [w]) as H:
        assert isinstance(H, CurvatureOperator) and isinstance(H, LinearOperator)
        assert float(H.loss) == 28
        assert torch.equal(H.dense(), torch.diag(torch.tensor([6.0, 18.0])))
        assert H.num_matvecs == 2
    with pytest.raises(RuntimeError, match="closed"):
        H.matvec(torch.ones(2))


def test_fastfood_factors_are_fixed_by_the_seed():
    x = torch.randn(3, dtype=torch.float64)
    factors = fastfood_factors(8, seed=5)
    assert torch.allclose(fastfood(x, 8, seed=5), fastfood(x, 8, factors=factors))
    assert not torch.allclose(fastfood(x, 8, seed=6), fastfood(x, 8, factors=factors))
    signs, order = factors[0], factors[1]
    assert signs.abs().eq(1).all() and sorted(order.tolist()) == list(range(8))
