"""The directions in which a linear student learns: eigenvalues, their weights, and what is frozen.

Either of the limit of many dimensions (Marchenko–Pastur) or of an actual spectrum. Source: M. S.
Advani, A. M. Saxe, H. Sompolinsky 2017, arXiv 1710.03667.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from thalweg.theory.marchenko_pastur import mp_quadrature, mp_support

__all__ = ["Modes", "drawn_modes", "frozen_fraction", "limit_modes"]

#: Eigenvalues below N times this part of the largest count as 0.
ZERO = 1e-14


@dataclass(frozen=True)
class Modes:
    """Directions with data, as nodes of an average over the spectrum of X Xᵀ, and those without.

    Attributes:
        lam: (M,) eigenvalues above 0, float64.
        share: (M,) part of the N directions that each stands for.
        gain: (M,) what a unit mean square of each of its weights adds to the test error.
        frozen: part of the directions that have eigenvalue 0.
        frozen_gain: what a unit mean square of their weights adds to the test error.
        alpha: P/N; nan if it is unknown.
        dim: N; None in the limit unless it was given.
        largest: the top eigenvalue.
        inverse: Σ gain/lam, inf at α = 1 in the limit.
    """

    lam: Tensor
    share: Tensor
    gain: Tensor
    frozen: float
    frozen_gain: float
    alpha: float
    dim: int | None
    largest: float
    inverse: float


def limit_modes(alpha: float, dim: int | None = None, input_var: float | None = None) -> Modes:
    """Nodes of the Marchenko–Pastur law.

    Args:
        alpha: P/N.
        dim: N, needed with ``input_var``.
        input_var: v; eigenvalues grow by N v over those of inputs of variance 1/N.

    Raises:
        ValueError: for alpha ≤ 0, or ``input_var`` not above 0 or without ``dim``.
    """
    nodes, weights, atom = mp_quadrature(alpha)
    scale = 1.0
    if input_var is not None:
        if isinstance(input_var, Tensor) and input_var.ndim:
            raise ValueError("input_var by eigenvector needs eigenvalues")
        if dim is None:
            raise ValueError(
                "in the limit input_var needs dim = N; or rescale time: rates are for variance 1/N"
            )
        if not 0 < input_var < math.inf:
            raise ValueError(f"input_var must be above 0, got {input_var}")
        scale = float(input_var) * dim
    if alpha == 1:
        inverse = math.inf
    else:
        inverse = 1 / (alpha - 1) if alpha > 1 else alpha / (1 - alpha)
    return Modes(
        lam=scale * nodes,
        share=weights,
        gain=scale * weights,
        frozen=atom,
        frozen_gain=scale * atom,
        alpha=float(alpha),
        dim=dim,
        largest=scale * mp_support(alpha)[1],
        inverse=inverse,
    )


def drawn_modes(
    eigenvalues: Tensor,
    alpha: float | None = None,
    dim: int | None = None,
    input_var: float | Tensor | None = None,
) -> Modes:
    """The modes of an actual X.

    Args:
        eigenvalues: (N,) of X Xᵀ, zeros included.
        alpha: P/N; without it P is the rank where that is below N, else unknown.
        dim: N, checked if given.
        input_var: variance of a test input along each eigenvector, a number or (N,); default 1/N.

    Raises:
        ValueError: for eigenvalues below 0 or not finite, or arguments that contradict them.
    """
    lam = torch.as_tensor(eigenvalues).detach().double().cpu()
    if lam.ndim != 1 or not len(lam) or not torch.isfinite(lam).all():
        raise ValueError(f"expected finite eigenvalues (N,), got {tuple(lam.shape)}")
    n, largest = len(lam), lam.max().item()
    if lam.min() < -1e-10 * max(largest, 0.0):
        raise ValueError(f"eigenvalues of X Xᵀ are never negative, got {lam.min().item():.3g}")
    if dim not in (None, n):
        raise ValueError(f"dim is {dim}, but there are {n} eigenvalues: pass all, zeros included")
    variance = (
        torch.as_tensor(1 / n if input_var is None else input_var, dtype=lam.dtype).detach().cpu()
    )
    if variance.shape not in ((), (n,)) or not (variance >= 0).all():
        raise ValueError(f"input_var must be at least 0, a number or ({n},)")
    variance = variance.expand(n)
    live = lam > ZERO * n * largest
    rank = int(live.sum()) / n
    if alpha is None:
        alpha = rank if 0 < rank < 1 else math.nan
    elif not rank - 1e-9 <= alpha < math.inf or alpha <= 0:
        raise ValueError(
            f"alpha = P/N must be above 0 and at least rank/N = {rank:.4g}, got {alpha}"
        )
    return Modes(
        lam=lam[live],
        share=torch.full_like(lam[live], 1 / n),
        gain=variance[live],
        frozen=1 - rank,
        frozen_gain=variance[~live].sum().item(),
        alpha=float(alpha),
        dim=n,
        largest=largest,
        inverse=(variance[live] / lam[live]).sum().item(),
    )


def frozen_fraction(X: Tensor, tol: float | None = None) -> float:
    """Part of the directions of weight space in which no sample lies: weights never move there.

        1 − rank(X)/N, which is max(0, 1 − P/N) for samples in general position

    Args:
        X: (P, N) samples in rows.
        tol: singular values up to this part of the largest count as 0; default max(P, N)·eps.

    Raises:
        ValueError: if X is not a matrix with columns, or not finite.

    Source: Advani, Saxe, Sompolinsky 2017, arXiv 1710.03667.

    Example:
        >>> frozen_fraction(torch.eye(4)[:1])
        0.75
    """
    if X.ndim != 2 or not X.shape[1]:
        raise ValueError(f"expected X (P, N), samples in rows, got {tuple(X.shape)}")
    if not torch.isfinite(X).all():
        raise ValueError("X is not finite")
    if not len(X):
        return 1.0
    return 1 - int(torch.linalg.matrix_rank(X, rtol=tol)) / X.shape[1]
