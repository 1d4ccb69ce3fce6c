"""From data to the curve that training will follow, without training: noise, signal, stopping time.

Source: M. S. Advani, A. M. Saxe, H. Sompolinsky 2017, arXiv 1710.03667; the estimate of noise and
signal is maximum likelihood and ours.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from thalweg.theory.linear_dynamics import LinearDynamics, Stopping

__all__ = ["NoiseAndSNR", "Prediction", "estimate_noise_and_snr", "predict_from_data"]


class NoiseAndSNR(NamedTuple):
    """What data say of their teacher.

    Attributes:
        sigma_eps: standard deviation of the label noise.
        snr: σ_w²/σ_ε², inf without noise.
        sigma_w: standard deviation of the teacher's weights.
    """

    sigma_eps: float
    snr: float
    sigma_w: float


@dataclass(frozen=True)
class Prediction:
    """The curve that training is going to follow, to be drawn over the measured one.

    Attributes:
        t: (T,) times, or steps where ``lr`` was given.
        train_error: (T,) mean squared error over the samples.
        test_error: (T,) label noise included.
        stopping: when to stop, and the error then.
        noise: the estimate behind it.
        dynamics: the theory at the data's own spectrum.
    """

    t: Tensor
    train_error: Tensor
    test_error: Tensor
    stopping: Stopping
    noise: NoiseAndSNR
    dynamics: LinearDynamics


def estimate_noise_and_snr(X: Tensor, y: Tensor) -> NoiseAndSNR:
    """Label noise and signal-to-noise of a linear teacher, from the data alone.

    Maximises the likelihood of y ~ N(0, σ_w² X Xᵀ + σ_ε²): along the left singular vectors its
    parts have mean squares σ_w² s_i² + σ_ε², and σ_ε² alone where no s_i is.

    Args:
        X: (P, N) samples in rows, centred if there is no intercept to learn.
        y: (P,) labels.

    Returns:
        ``sigma_eps``, ``snr`` and ``sigma_w``; snr is 0 or inf where the likelihood has no inner
        maximum.

    Raises:
        ValueError: for shapes that do not match, values that are not finite, or data that cannot
            tell noise from signal: fewer than 3 samples, or all s_i equal with P ≤ N.

    Cost: one SVD of X.

    Source: for the model of Advani, Saxe, Sompolinsky 2017, arXiv 1710.03667; evidence
        maximisation, MacKay 1992, doi.org/10.1162/neco.1992.4.3.415.

    Example:
        >>> from thalweg.theory import simulate_student_teacher
        >>> data = simulate_student_teacher(200, 600, sigma_eps=0.5, seed=1)
        >>> round(estimate_noise_and_snr(data.X, data.y).sigma_eps, 1)
        0.5
    """
    s2, parts = _parts(X, y)
    if len(parts) < 3 or s2.max() - s2.min() <= 1e-9 * s2.max():
        raise ValueError(
            "noise and signal cannot be told apart: that takes at least 3 samples whose singular "
            "values differ, or more samples than dimensions"
        )
    if not parts.sum() > 0:
        return NoiseAndSNR(0.0, math.nan, 0.0)
    scale = s2.max().item()
    low, high = -14.0, 14.0  # log₁₀ of scale · σ_w²/σ_ε²
    for _ in range(4):
        grid = torch.linspace(low, high, 401, dtype=torch.float64)
        spread = 1 + 10 ** grid[:, None] / scale * s2
        noise = (parts / spread).mean(1)  # the best σ_ε² for each ratio
        i = int((noise.log() + spread.log().mean(1)).argmin())
        low, high = grid[max(i - 1, 0)].item(), grid[min(i + 1, 400)].item()
    ratio, variance = 10 ** grid[i].item() / scale, noise[i].item()
    if grid[i] < -13.9:
        return NoiseAndSNR(math.sqrt(parts.mean().item()), 0.0, 0.0)
    if grid[i] > 13.9:
        live = s2 > 1e-12 * scale
        return NoiseAndSNR(0.0, math.inf, math.sqrt((parts[live] / s2[live]).mean().item()))
    return NoiseAndSNR(math.sqrt(variance), ratio, math.sqrt(ratio * variance))


def predict_from_data(
    X: Tensor,
    y: Tensor,
    t: Tensor | None = None,
    *,
    X_test: Tensor | None = None,
    sigma_eps: float | None = None,
    sigma_w: float | None = None,
    sigma_0: float = 0.0,
    tau: float | None = None,
    lr: float | None = None,
    input_var: float | None = None,
    reduction: Literal["sum", "mean"] = "sum",
) -> Prediction:
    """The error curve of a linear model on these data, and when to stop, without training.

    Works for the last layer of a network with fixed features too: X are then the features, and the
    part of the labels that they cannot express counts as noise.

    Args:
        X: (P, N) samples in rows.
        y: (P,) labels.
        t: (T,) times or steps, default 0 and 200 that span all modes.
        X_test: (M, N) inputs without labels, for test inputs of another covariance than a multiple
            of the identity; without it they have ``input_var`` in every direction.
        sigma_eps: label noise, if known; else both it and ``sigma_w`` are estimated.
        sigma_w: of the teacher's weights, if known.
        sigma_0: of the initial weights.
        tau: time constant of gradient flow, default 1.
        lr: step of gradient descent instead.
        input_var: variance of the entries of test inputs, default the mean square of X.
        reduction: of the loss, ``sum`` for ½Σ, ``mean`` for ½Σ/P; torch's ``mse_loss`` is twice
            the latter, so that its lr counts double.

    Raises:
        ValueError: as ``estimate_noise_and_snr`` and ``LinearDynamics``.

    Source: Advani, Saxe, Sompolinsky 2017, arXiv 1710.03667.

    Example:
        Two directions, λ = 1 each, as much noise as signal: stop at ln(1 + λσ_w²/σ_ε²).

        >>> told = predict_from_data(torch.eye(2), torch.ones(2), sigma_eps=1.0, sigma_w=1.0)
        >>> round(math.exp(told.stopping.time), 9), round(told.dynamics.asymptote(), 9)
        (2.0, 2.0)
    """
    if sigma_eps is None or sigma_w is None:
        found = estimate_noise_and_snr(X, y)
        sigma_eps = found.sigma_eps if sigma_eps is None else sigma_eps
        sigma_w = found.sigma_w if sigma_w is None else sigma_w
    else:
        _parts(X, y)
    data = X.detach().double().cpu()
    P, N = data.shape
    _, s, Vh = torch.linalg.svd(data, full_matrices=True)
    eigenvalues = torch.zeros(N, dtype=torch.float64)
    eigenvalues[: len(s)] = s**2
    variance: Tensor | float = data.square().mean().item() if input_var is None else input_var
    if X_test is not None:
        if X_test.ndim != 2 or X_test.shape[1] != N or not len(X_test):
            raise ValueError(f"expected X_test (M, {N}) with M > 0, got {tuple(X_test.shape)}")
        variance = (X_test.detach().double().cpu() @ Vh.T).square().mean(0)
    theory = LinearDynamics(
        P / N,
        eigenvalues=eigenvalues,
        sigma_w=sigma_w,
        sigma_eps=sigma_eps,
        sigma_0=sigma_0,
        tau=tau,
        lr=lr,
        input_var=variance,
        reduction=reduction,
    )
    if t is None:
        t = _span(theory)
    return Prediction(
        t=t,
        train_error=theory.train_error(t),
        test_error=theory.test_error(t),
        stopping=theory.optimal_stopping(),
        noise=NoiseAndSNR(sigma_eps, sigma_w**2 / sigma_eps**2 if sigma_eps else math.inf, sigma_w),
        dynamics=theory,
    )


def _span(theory: LinearDynamics) -> Tensor:
    """(T,) times, or steps, from 0 to where all modes have decayed, at most 1e6-fold."""
    rates = theory.modes.lam / theory.per_rate * (1 / theory.tau if not theory.lr else theory.lr)
    start = torch.zeros(1, dtype=torch.float64)
    if not len(rates):
        return start
    top = rates.max().item()
    ends = math.log10(0.01 / top), math.log10(min(20 / rates.min().item(), 1e6 / top))
    times = torch.logspace(*ends, 200, dtype=torch.float64)
    return torch.cat([start, times if theory.lr is None else times.ceil().unique()])


def _parts(X: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """(P,) squared singular values, zeros included, and squares of y along their vectors."""
    if X.ndim != 2 or y.shape != X.shape[:1] or not X.numel():
        raise ValueError(
            f"expected X (P, N), samples in rows, and y (P,), got {tuple(X.shape)} and "
            f"{tuple(y.shape)}"
        )
    data, labels = X.detach().double().cpu(), y.detach().double().cpu()
    if not (torch.isfinite(data).all() and torch.isfinite(labels).all()):
        raise ValueError("X or y is not finite")
    U, s, _ = torch.linalg.svd(data, full_matrices=False)
    inside = U.T @ labels
    # Outside the span only the sum of squares matters: spread over the P − N directions left.
    missing = len(labels) - len(s)
    rest = (labels - U @ inside).square().sum() / max(missing, 1)
    zeros = torch.zeros(missing, dtype=torch.float64)
    return torch.cat([s**2, zeros]), torch.cat([inside**2, zeros + rest])
