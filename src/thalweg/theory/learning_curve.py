"""Learning curves of a kernel on Gaussian targets of another kernel, and their exponents.

A teacher kernel draws the target, a student kernel learns it from n samples; the error falls as
n^(−β). The exponent follows from how fast the student's eigenvalues fall and where the teacher's
power lies among them.

Source: F. Cagnetta, A. Favero, M. Wyart 2022, arXiv 2208.01003. The formula of the exponent is
derived by the argument that n samples fix the n largest eigenmodes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from thalweg.numerics import kernel_regression, sample_gaussian_field

__all__ = ["LearningCurve", "curve_exponent", "learning_curve", "multisphere"]

Kernel = Callable[..., Tensor]


class LearningCurve(NamedTuple):
    """A measured learning curve.

    Attributes:
        n: (S,) sample sizes.
        error: (S,) mean of (f̂ − y)² over test points, targets and draws of inputs.
        slope: β of error ∝ n^(−β), fitted over the window: −1 times the log–log slope.
    """

    n: Tensor
    error: Tensor
    slope: float


def multisphere(
    n: int, dim: int, patch: int, *, generator: torch.Generator | None = None
) -> Tensor:
    """Uniform points on a product of spheres: each patch of the input has norm 1.

    Args:
        n: points.
        dim: d, a multiple of ``patch``.
        patch: entries of a patch.
        generator: of the randomness.

    Returns:
        (n, d) float64.

    Raises:
        ValueError: if ``patch`` does not divide ``dim``, or for sizes below 1.

    Source: Cagnetta, Favero, Wyart 2022, arXiv 2208.01003.

    Example:
        >>> multisphere(5, 8, 2).reshape(5, 4, 2).norm(dim=2).allclose(torch.ones(5, 4).double())
        True
    """
    if n < 1 or patch < 1 or dim < 1 or dim % patch:
        raise ValueError(f"patches of {patch} do not fill {n} inputs of {dim} entries")
    x = torch.randn(n, dim // patch, patch, generator=generator, dtype=torch.float64)
    return (x / x.norm(dim=2, keepdim=True)).reshape(n, dim)


def learning_curve(
    student: Kernel,
    teacher: Kernel,
    sizes: Sequence[int],
    *,
    inputs: Callable[[int, torch.Generator], Tensor] | None = None,
    num_test: int = 512,
    n_draws: int = 4,
    num_inputs: int = 2,
    fit_from: int | None = None,
    ridge: float = 0.0,
    generator: torch.Generator | None = None,
) -> LearningCurve:
    """Measure how the error of a student kernel falls on targets drawn from a teacher kernel.

    Args:
        student: ``kernel(x, y=None) -> (n, m)``.
        teacher: the same; on ``x`` alone, training and test points together.
        sizes: sample sizes, ascending; a smaller set is part of a larger one.
        inputs: ``(count, generator) -> (count, d)``; default ``multisphere`` with the leaf patches
            and the product of ``student.filters``.
        num_test: test points.
        n_draws: targets for each draw of inputs.
        num_inputs: draws of inputs.
        fit_from: smallest size in the fit of the slope, default all.
        ridge: of the regression.
        generator: of the randomness, default one of seed 0.

    Raises:
        ValueError: if sizes are not ascending, fewer than two are fitted, a count is below 1, or
            there is no default for ``inputs``.

    Cost: per draw of inputs two kernel matrices of all points, an eigendecomposition, and a
        Cholesky factorisation for each size.

    Source: Cagnetta, Favero, Wyart 2022, arXiv 2208.01003.

    Example:
        A constant target is learnt at once by the kernel of constants:

        >>> from thalweg.theory import HierarchicalKernel
        >>> K = HierarchicalKernel((2,))
        >>> found = learning_curve(K, lambda x: torch.ones(len(x), len(x)), [8, 16], num_test=10)
        >>> bool(found.error[1] < 1e-2 and found.slope > 0)
        True
    """
    counts = [int(s) for s in sizes]
    fitted = [s for s in counts if fit_from is None or s >= fit_from]
    if counts != sorted(set(counts)) or counts[0] < 1 or len(fitted) < 2:
        raise ValueError(
            f"sizes must ascend from at least 1, two or more from fit_from on, got {counts}"
        )
    if min(num_test, n_draws, num_inputs) < 1:
        raise ValueError("num_test, n_draws and num_inputs must be at least 1")
    if generator is None:
        generator = torch.Generator().manual_seed(0)
    draw = inputs or _leaf_inputs(student)
    errors = torch.zeros(len(counts), dtype=torch.float64)
    most = counts[-1]
    for _ in range(num_inputs):
        x = draw(most + num_test, generator)
        y = sample_gaussian_field(teacher(x), n_draws, generator)
        among, across = student(x[:most]), student(x[most:], x[:most])
        for i, n in enumerate(counts):
            told = kernel_regression(among[:n, :n], y[:n], across[:, :n], ridge)
            errors[i] += (told - y[most:]).square().mean().item() / num_inputs
    n = torch.tensor(counts, dtype=torch.float64)
    return LearningCurve(n, errors, _fitted(n, errors, fitted[0]))


def curve_exponent(
    teacher_dim: int, student_dim: int, *, nu_teacher: float = 0.5, nu_student: float = 0.5
) -> float:
    """Predicted β of a learning curve, error ∝ n^(−β).

        β = 2ν_T/(2ν_S + d_T) · (2ν_S + d_S)/d_S

    Args:
        teacher_dim: d_T, effective dimension of the patch that the target depends on.
        student_dim: d_S, the largest effective dimension of the student.
        nu_teacher: ν_T, smoothness: 1/2 for a ReLU tangent kernel, 3/2 for the NNGP kernel.
        nu_student: ν_S.

    Raises:
        ValueError: for dimensions or smoothness not above 0, a teacher wider than the student, or
            a target so smooth that regression cannot use it, ν_T > 2ν_S + d_T.

    Source: derived for Cagnetta, Favero, Wyart 2022, arXiv 2208.01003.

    Example:
        >>> [round(curve_exponent(d, 4), 3) for d in (1, 2, 4)]
        [0.625, 0.417, 0.25]
    """
    if not 0 < teacher_dim <= student_dim or not (nu_teacher > 0 and nu_student > 0):
        raise ValueError(
            f"expected 0 < teacher_dim ≤ student_dim and ν > 0, got {teacher_dim}, {student_dim}, "
            f"{nu_teacher} and {nu_student}"
        )
    if nu_teacher > 2 * nu_student + teacher_dim:
        raise ValueError("the target is too smooth for the formula: ν_T > 2ν_S + d_T")
    steep = 2 * nu_student + student_dim
    return 2 * nu_teacher / (2 * nu_student + teacher_dim) * steep / student_dim


def _leaf_inputs(student: Kernel) -> Callable[[int, torch.Generator], Tensor]:
    filters = getattr(student, "filters", None)
    if filters is None:
        raise ValueError("inputs must be given for a student without filters")
    return lambda n, g: multisphere(n, math.prod(filters), filters[0], generator=g)


def _fitted(n: Tensor, error: Tensor, fit_from: int) -> float:
    """Least squares in both logarithms; nan if an error is 0."""
    kept = n >= fit_from
    x, y = n[kept].log(), error[kept].log()
    x = x - x.mean()
    return -((x * y).sum() / x.square().sum()).item() if torch.isfinite(y).all() else math.nan
