"""A linear student of a noisy linear teacher: one draw, trained exactly.

Gradient flow (or descent) on a square loss is solved mode by mode, so that a draw is no numerical
integration and its errors are those of this one teacher, not averages.

Source: M. S. Advani, A. M. Saxe, H. Sompolinsky 2017, arXiv 1710.03667.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from thalweg.theory.linear_dynamics import LinearDynamics

__all__ = ["StudentTeacher", "simulate_student_teacher"]


@dataclass(frozen=True)
class StudentTeacher:
    """One draw and its training.

    Attributes:
        X: (P, N) samples in rows.
        y: (P,) labels with noise.
        teacher: (N,) w̄.
        initial: (N,) w at t = 0.
        eigenvalues: (N,) of XᵀX, ascending, zeros included.
        t: (T,) times.
        weights: (T, N).
        train_error: (T,) mean over the samples.
        test_error: (T,) over all inputs, label noise σ_ε² included.
    """

    X: Tensor
    y: Tensor
    teacher: Tensor
    initial: Tensor
    eigenvalues: Tensor
    t: Tensor
    weights: Tensor
    train_error: Tensor
    test_error: Tensor


def simulate_student_teacher(
    N: int,
    P: int,
    t: Tensor | None = None,
    *,
    sigma_w: float = 1.0,
    sigma_eps: float = 0.0,
    sigma_0: float = 0.0,
    tau: float | None = None,
    lr: float | None = None,
    input_var: float | None = None,
    reduction: Literal["sum", "mean"] = "sum",
    seed: int = 0,
    generator: torch.Generator | None = None,
    dtype: torch.dtype = torch.float64,
) -> StudentTeacher:
    """Draw a teacher, data and a student, and train it exactly, mode by mode.

    Args:
        N: dimensions.
        P: samples.
        t: (T,) times at which to look, default 0 and 0.01 to 100.
        sigma_w: standard deviation of the teacher's weights.
        sigma_eps: of the label noise.
        sigma_0: of the initial weights.
        tau: time constant of gradient flow, default 1.
        lr: step of gradient descent instead; t counts steps.
        input_var: variance of the entries of X, default 1/N.
        reduction: ``sum`` for the loss ½Σ over samples, ``mean`` for ½Σ/P.
        seed: of the draw.
        generator: in place of ``seed``.
        dtype: of everything returned.

    Raises:
        ValueError: if N or P is below 1, or as ``LinearDynamics``.

    Source: Advani, Saxe, Sompolinsky 2017, arXiv 1710.03667.

    Example:
        With as many samples as dimensions and no noise, the teacher is found:

        >>> found = simulate_student_teacher(3, 30, torch.tensor([0.0, 1e3]))
        >>> torch.allclose(found.weights[-1], found.teacher)
        True
    """
    if N < 1 or P < 1:
        raise ValueError(f"N dimensions and P samples must be at least 1, got {N} and {P}")
    if t is None:
        t = torch.cat([torch.zeros(1), torch.logspace(-2, 2, 60)]).double()
        t = t if lr is None else t.ceil().unique()
    variance = 1 / N if input_var is None else input_var
    # Checks the arguments, and knows how an error decays.
    theory = LinearDynamics(
        P / N,
        sigma_w=sigma_w,
        sigma_eps=sigma_eps,
        sigma_0=sigma_0,
        tau=tau,
        lr=lr,
        dim=N,
        input_var=variance,
        reduction=reduction,
    )
    if generator is None:
        generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    X, teacher = normal(P, N) * math.sqrt(variance), normal(N) * sigma_w
    y = X @ teacher + normal(P) * sigma_eps
    initial = normal(N) * sigma_0
    U, s, Vh = torch.linalg.svd(X, full_matrices=False)
    decay, grown = theory.decay(t.double(), s**2)
    # v·w(t) = decay v·w(0) + (1 − decay) u·y/s; a direction without data keeps its weights.
    found = torch.where(s > s.max() * 1e-12, (U.T @ y) / s, torch.zeros_like(s))
    start = Vh @ initial
    weights = initial + (decay * start + grown * found - start) @ Vh
    eigenvalues = torch.zeros(N, dtype=torch.float64)
    eigenvalues[N - len(s) :] = s.flip(0) ** 2
    test = sigma_eps**2 + variance * (weights - teacher).square().sum(1)
    return StudentTeacher(
        X=X.to(dtype),
        y=y.to(dtype),
        teacher=teacher.to(dtype),
        initial=initial.to(dtype),
        eigenvalues=eigenvalues.to(dtype),
        t=t.to(dtype),
        weights=weights.to(dtype),
        train_error=(weights @ X.T - y).square().mean(1).to(dtype),
        test_error=test.to(dtype),
    )
