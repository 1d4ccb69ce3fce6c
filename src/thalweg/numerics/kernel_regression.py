"""Kernel regression: its solution, the spectrum of a kernel, and learning curves told from it.

A kernel with eigenvalues Λ_ρ under the distribution of the inputs learns from n samples of a target
with coefficients c_ρ as if each mode were shrunk by κ/(Λ_ρ + κ), where κ solves

    n = Σ Λ_ρ/(Λ_ρ + κ) + λ/κ

for a ridge λ on the n × n matrix; the mean squared error is then

    ε = Σ c_ρ² κ²/(Λ_ρ + κ)² / (1 − (1/n) Σ Λ_ρ²/(Λ_ρ + κ)²)

This holds for Gaussian features in many dimensions; on one circle, where the gaps between points
vary much, the true error was 1.7 times as large.

Source: B. Bordelon, A. Canatar, C. Pehlevan 2020, arXiv 2002.02561; A. Canatar, B. Bordelon, C.
Pehlevan 2021, arXiv 2006.13198.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = [
    "curve_from_gram",
    "kernel_regression",
    "kernel_spectrum",
    "predict_learning_curve",
    "sample_gaussian_field",
]

#: Added to the diagonal, in units of its mean, where a matrix is singular to round-off; then more.
JITTERS = (1e-14, 1e-12, 1e-10, 1e-8, 1e-6)


def kernel_spectrum(K: Tensor) -> Tensor:
    """Eigenvalues of K/n, which tend to those of the kernel under the distribution of the inputs.

    Args:
        K: (n, n) symmetric.

    Returns:
        (n,) descending; those below 0 by round-off are kept.

    Raises:
        ValueError: if K is not square, symmetric and finite.

    Source: Cagnetta, Favero, Wyart 2022, arXiv 2208.01003.

    Example:
        >>> kernel_spectrum(torch.ones(4, 4)).abs().round(decimals=6)
        tensor([1., 0., 0., 0.])
    """
    return (torch.linalg.eigvalsh(_symmetric("K", K)).flip(0) / len(K)).to(K.dtype)


def sample_gaussian_field(
    K: Tensor, n_draws: int = 1, generator: torch.Generator | None = None
) -> Tensor:
    """Draw functions from the centred Gaussian field with a kernel, at the points of its matrix.

    Training and test points must be drawn together, in one K.

    Args:
        K: (n, n) symmetric, positive semidefinite up to round-off.
        n_draws: functions.
        generator: of the randomness.

    Returns:
        (n, n_draws), a point in each row.

    Raises:
        ValueError: if K is not square, symmetric and finite, or clearly not positive semidefinite.

    Cost: one eigendecomposition; unlike Cholesky's it does not fail on singular matrices.

    Source: Cagnetta, Favero, Wyart 2022, arXiv 2208.01003.

    Example:
        >>> y = sample_gaussian_field(torch.ones(3, 3), 2)  # constant functions
        >>> y.shape, bool(torch.allclose(y[0], y[2], atol=1e-6))
        (torch.Size([3, 2]), True)
    """
    if n_draws < 1:
        raise ValueError(f"n_draws must be at least 1, got {n_draws}")
    lam, V = torch.linalg.eigh(_symmetric("K", K))
    if lam[0] < -_slack(K) * lam[-1].abs():
        raise ValueError(
            f"K is not positive semidefinite: eigenvalues from {lam[0].item():.3g} to "
            f"{lam[-1].item():.3g}"
        )
    white = torch.randn(len(K), n_draws, generator=generator, dtype=torch.float64).to(K.device)
    # The symmetric root: without the last V the draw would hang on how eigenvectors of equal
    # eigenvalues happen to lie, which is round-off.
    return (V @ (lam.clamp(min=0).sqrt()[:, None] * (V.T @ white))).to(K.dtype)


def kernel_regression(K_tt: Tensor, y: Tensor, K_st: Tensor, ridge: float = 0.0) -> Tensor:
    """Predictions f̂ = K_st (K_tt + ridge·1)⁻¹ y.

    Args:
        K_tt: (n, n) among training points.
        y: (n,) or (n, k) labels, one column a target.
        K_st: (m, n) of test with training points.
        ridge: λ, added to the diagonal of K_tt.

    Returns:
        (m,) or (m, k), in the dtype of ``K_tt``. Without ridge the labels are interpolated, as far
        as K_tt is not singular: there the least jitter is added that lets Cholesky succeed.

    Raises:
        ValueError: for shapes that do not match, a negative ridge, or K_tt not positive
            semidefinite.

    Cost: a Cholesky factorisation in float64, n³/3.

    Source: Cagnetta, Favero, Wyart 2022, arXiv 2208.01003.

    Example:
        >>> kernel_regression(torch.eye(2), torch.tensor([1.0, 3.0]), torch.ones(1, 2), ridge=1.0)
        tensor([2.])
    """
    K = _symmetric("K_tt", K_tt)
    if y.ndim not in (1, 2) or len(y) != len(K) or K_st.ndim != 2 or K_st.shape[1] != len(K):
        raise ValueError(
            f"expected K_tt (n, n), y (n,) or (n, k) and K_st (m, n), got {tuple(K_tt.shape)}, "
            f"{tuple(y.shape)} and {tuple(K_st.shape)}"
        )
    if not ridge >= 0:
        raise ValueError(f"ridge must be at least 0, got {ridge}")
    labels = y.double().reshape(len(y), -1)
    weights = torch.cholesky_solve(labels, _factor(K, ridge))
    return (K_st.double() @ weights).reshape(len(K_st), *y.shape[1:]).to(K_tt.dtype)


def predict_learning_curve(
    eigenvalues: Tensor, coefficients: Tensor, n: Tensor | float, ridge: float = 0.0
) -> Tensor:
    """Mean squared error of kernel regression against the number of samples, without noise.

    Args:
        eigenvalues: (M,) Λ_ρ of the kernel, repeated as often as they occur.
        coefficients: (M,) c_ρ², squares of the target's coefficients in the same eigenfunctions.
        n: sample sizes, any shape, above 0.
        ridge: λ, on the n × n kernel matrix.

    Returns:
        Like ``n``, float64; without ridge 0 where n reaches the number of modes with Λ > 0, apart
        from coefficients where Λ = 0.

    Raises:
        ValueError: for shapes that do not match, negative values or n not above 0.

    Source: Bordelon, Canatar, Pehlevan 2020, arXiv 2002.02561.

    Example:
        M equal modes: of n samples' worth the rest is left, ε = 1 − n/M.

        >>> predict_learning_curve(torch.ones(10), torch.full((10,), 0.1), torch.tensor([2, 5]))
        tensor([0.8000, 0.5000], dtype=torch.float64)
    """
    lam, power = (torch.as_tensor(v).detach().double().cpu() for v in (eigenvalues, coefficients))
    if lam.ndim != 1 or lam.shape != power.shape or not len(lam):
        raise ValueError(
            f"expected eigenvalues (M,) and coefficients (M,), got {tuple(lam.shape)} and "
            f"{tuple(power.shape)}"
        )
    if not (lam >= 0).all() or not (power >= 0).all() or not ridge >= 0:
        raise ValueError("eigenvalues, squared coefficients and ridge must be at least 0")
    sizes = torch.as_tensor(n, dtype=torch.float64)
    if not ((sizes > 0) & sizes.isfinite()).all():
        raise ValueError("n must be above 0")
    errors = [_error(lam, power, size, ridge) for size in sizes.reshape(-1).tolist()]
    return torch.tensor(errors, dtype=torch.float64).reshape(sizes.shape)


def curve_from_gram(K: Tensor, y: Tensor, n: Tensor | float, ridge: float = 0.0) -> Tensor:
    """The learning curve that a kernel will have on a target, told from one sample of both.

    Eigenvalues and eigenvectors of K/N stand for those of the kernel; good for n well below N.

    Args:
        K: (N, N) kernel of N points.
        y: (N,) or (N, k) the target there, without noise; several are averaged.
        n: sample sizes, any shape, above 0 and below N.
        ridge: λ, on the n × n kernel matrix.

    Returns:
        Like ``n``, float64: the mean squared error.

    Raises:
        ValueError: as ``predict_learning_curve``, or for n that is not below N.

    Source: Bordelon, Canatar, Pehlevan 2020, arXiv 2002.02561.

    Example:
        >>> curve_from_gram(torch.eye(8), torch.ones(8), 2.0)
        tensor(0.7500, dtype=torch.float64)
    """
    lam, V = torch.linalg.eigh(_symmetric("K", K))
    if y.ndim not in (1, 2) or len(y) != len(K):
        raise ValueError(f"expected y ({len(K)},) or ({len(K)}, k), got {tuple(y.shape)}")
    if not (torch.as_tensor(n) < len(K)).all():
        raise ValueError(f"n must be below the {len(K)} points of K")
    parts = V.T @ y.double().reshape(len(y), -1)
    return predict_learning_curve(
        lam.clamp(min=0) / len(K), parts.square().mean(1) / len(K), n, ridge
    )


def _error(lam: Tensor, power: Tensor, n: float, ridge: float) -> float:
    live = lam > 0
    lost, lam, power = power[~live].sum().item(), lam[live], power[live]
    if not len(lam) or (ridge == 0 and n >= len(lam)):
        return lost
    # The right side falls in κ from above n to below it: halve the interval of log κ. It is at
    # least λ/κ, and Λ/(Λ + κ) ≤ Λ/κ, so that κ ≤ (ΣΛ + λ)/n.
    high = (lam.sum().item() + ridge) / n
    low = high * 1e-30
    for _ in range(120):
        kappa = (low * high) ** 0.5
        if (lam / (lam + kappa)).sum().item() + ridge / kappa > n:
            low = kappa
        else:
            high = kappa
    kept = lam / (lam + high)
    bias = (power * (1 - kept) ** 2).sum().item() + lost
    return bias / (1 - kept.square().sum().item() / n)


def _factor(K: Tensor, ridge: float) -> Tensor:
    """Cholesky factor of K + ridge·1, with the least jitter that makes it succeed."""
    mean = K.diagonal().mean()
    for jitter in (0.0, *JITTERS):
        shifted = K.clone()
        shifted.diagonal().add_(ridge + jitter * mean)
        factor, info = torch.linalg.cholesky_ex(shifted)
        if info.item() == 0 and torch.isfinite(factor).all():
            return factor
    raise ValueError(
        "K_tt + ridge is not positive definite, with 1e-6 of its diagonal added even: is it a "
        "kernel matrix, in float64? A larger ridge may help"
    )


def _symmetric(name: str, K: Tensor) -> Tensor:
    """K in float64, checked."""
    if K.ndim != 2 or K.shape[0] != K.shape[1] or not len(K):
        raise ValueError(f"{name} must be square and not empty, got {tuple(K.shape)}")
    K64 = K.detach().double()
    if not torch.isfinite(K64).all():
        raise ValueError(f"{name} is not finite")
    if (K64 - K64.T).abs().max() > _slack(K) * K64.abs().max():
        raise ValueError(f"{name} is not symmetric")
    return K64


def _slack(K: Tensor) -> float:
    """What round-off in the dtype of K, summed up over its rows, may amount to."""
    return 100 * len(K) ** 0.5 * torch.finfo(K.dtype).eps
