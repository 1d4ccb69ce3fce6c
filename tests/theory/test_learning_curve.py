import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from thalweg.theory import (
    HierarchicalKernel,
    LearningCurve,
    curve_exponent,
    curve_from_gram,
    kernel_regression,
    learning_curve,
    multisphere,
    predict_learning_curve,
    sample_gaussian_field,
)


@given(st.integers(1, 20), st.integers(1, 4), st.integers(1, 3), st.integers(0, 100))
def test_points_lie_on_the_spheres(n, leaves, patch, seed):
    x = multisphere(n, leaves * patch, patch, generator=torch.Generator().manual_seed(seed))
    norms = x.reshape(n, leaves, patch).norm(dim=2)
    assert x.dtype == torch.float64 and torch.allclose(norms, torch.ones_like(norms))


def test_points_are_uniform():
    x = multisphere(20_000, 4, 2, generator=torch.Generator().manual_seed(0))
    assert x.mean(0).abs().max() < 0.03
    assert torch.allclose(x.T @ x / 20_000, torch.eye(4).double() / 2, atol=0.02)


def test_it_is_the_loop_written_out():
    kernel = HierarchicalKernel((2, 2))
    found = learning_curve(kernel, kernel, [10, 20], num_test=30, n_draws=1, num_inputs=1)
    generator = torch.Generator().manual_seed(0)
    x = multisphere(50, 4, 2, generator=generator)
    y = sample_gaussian_field(kernel(x), 1, generator)[:, 0]
    for i, n in enumerate((10, 20)):
        out = kernel_regression(kernel(x[:n]), y[:n], kernel(x[20:], x[:n]))
        assert found.error[i].item() == pytest.approx((out - y[20:]).square().mean().item())
    slope = -math.log(found.error[1] / found.error[0]) / math.log(2)
    assert found.slope == pytest.approx(slope) and isinstance(found, LearningCurve)


def test_smaller_patches_are_learnt_faster_as_mean_field_tells():
    student = HierarchicalKernel((2, 2))
    teachers = {1: HierarchicalKernel((2,)), 2: HierarchicalKernel((2, 2))}
    found = {}
    for patches, kernel in teachers.items():
        teach = lambda x, k=kernel, d=2 * patches: k(x[:, :d])  # noqa: E731
        found[patches] = learning_curve(
            student, teach, [32, 64, 128], num_test=300, n_draws=10, num_inputs=2
        )
        x = multisphere(700, 4, 2, generator=torch.Generator().manual_seed(7))
        y = sample_gaussian_field(teach(x), 10, torch.Generator().manual_seed(8))
        told = curve_from_gram(student(x), y, found[patches].n)
        # Few targets, and 700 points for the spectrum: within a third.
        assert torch.allclose(told, found[patches].error, rtol=0.35)
    assert found[1].slope > found[2].slope + 0.1
    assert (found[1].error < found[2].error).all()


def test_exponents():
    assert [curve_exponent(d, 4) for d in (1, 2, 4)] == pytest.approx([0.625, 5 / 12, 0.25])
    assert curve_exponent(3, 3, nu_teacher=1.5, nu_student=1.5) == pytest.approx(1.0)
    # The mean-field curve of a power law: Λ_ρ ∝ ρ⁻², power the same, d_S = d_T = 1, ν = 1/2.
    modes = torch.arange(1, 200_001, dtype=torch.float64)
    errors = predict_learning_curve(modes**-2, modes**-2, torch.tensor([100.0, 400.0]))
    slope = -math.log(errors[1] / errors[0]) / math.log(4)
    assert slope == pytest.approx(curve_exponent(1, 1), abs=0.02)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda k: learning_curve(k, k, [8]), "two or more"),
        (lambda k: learning_curve(k, k, [8, 4]), "ascend"),
        (lambda k: learning_curve(k, k, [8, 16], fit_from=10), "two or more"),
        (lambda k: learning_curve(k, k, [8, 16], num_test=0), "num_test"),
        (lambda k: learning_curve(lambda x: x, k, [8, 16]), "without filters"),
        (lambda k: multisphere(3, 5, 2), "do not fill"),
        (lambda k: curve_exponent(5, 4), "student_dim"),
        (lambda k: curve_exponent(1, 4, nu_teacher=3.0), "too smooth"),
    ],
)
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call(HierarchicalKernel((2, 2)))
