"""The spectra of a matrix before and after, and of its change: found once, read by every figure.

Source: the figures are those of H. Zhu et al. 2025, arXiv 2511.08567, and Yu et al. 2026,
arXiv 2606.13657. Axes: `m` rows, `n` columns, `k` directions.
"""

from __future__ import annotations

from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from thalweg.trajectory.matrix_spectrum import (
    Angles,
    MatrixSpectrum,
    angles_between,
    matrix_spectrum,
    times,
)

__all__ = ["PairSpectra"]


class PairSpectra:
    """Spectra of W0, W1 and W1 − W0, each found when first asked for.

    Args:
        W0: (m, n), finite.
        W1: (m, n), finite.
        k: directions of W0 and W1; clipped to min(m, n).
        max_svd_dim: see ``matrix_spectrum``.
        svd: see ``matrix_spectrum``.

    Attributes:
        k: clipped.
        delta: W1 − W0 in float32, or float64 where one of them is.
    """

    def __init__(
        self,
        W0: Tensor,
        W1: Tensor,
        k: int,
        *,
        max_svd_dim: int = 4096,
        svd: Literal["exact", "randomized"] = "exact",
    ) -> None:
        self._W0, self._W1 = W0, W1
        self.k = min(k, *W0.shape)
        self._how = {"max_svd_dim": max_svd_dim, "svd": svd}
        wide = torch.float64 if torch.float64 in (W0.dtype, W1.dtype) else torch.float32
        self.delta = W1.to(wide) - W0.to(wide)

    @cached_property
    def before(self) -> MatrixSpectrum:
        """Of W0."""
        return self.of(self._W0)

    @cached_property
    def after(self) -> MatrixSpectrum:
        """Of W1."""
        return self.of(self._W1)

    @cached_property
    def change(self) -> MatrixSpectrum:
        """Of W1 − W0, values only; the leading 64 where it is too large for all."""
        exact = self._how["svd"] == "exact" and min(self.delta.shape) <= self._how["max_svd_dim"]
        return matrix_spectrum(self.delta, 0 if exact else min(64, *self.delta.shape), **self._how)

    @cached_property
    def norm(self) -> float:
        """‖W1 − W0‖_F."""
        return float(self.delta.norm(dtype=torch.float64))

    def of(self, W: Tensor) -> MatrixSpectrum:
        """The spectrum of another matrix, found in the same way."""
        return matrix_spectrum(W, self.k, **self._how)

    def drift(self, after: MatrixSpectrum | None = None) -> float:
        """‖σ(W1) − σ(W0)‖₂; nan where not all singular values are known."""
        after = after or self.after
        if not (self.before.exact and after.exact):
            return float("nan")
        return float(self.before.values.dist(after.values))

    def angles(self, k: int, after: MatrixSpectrum | None = None) -> tuple[Angles, Angles]:
        """Of the first k directions, left and right."""
        after = after or self.after
        return (
            angles_between(self.before.left[:, :k], after.left[:, :k]),
            angles_between(self.before.right[:, :k], after.right[:, :k]),
        )

    @cached_property
    def _projected(self) -> tuple[Tensor, Tensor, Tensor]:
        """Uᵀ Δ V, ‖u_iᵀ Δ‖² and ‖Δ v_j‖² of the k directions of W0."""
        right = times(self.delta, self.before.right)
        left = times(self.delta.T, self.before.left)
        return self.before.left.T @ right, left.square().sum(0), right.square().sum(0)

    def energy(self, k: int) -> tuple[float, float, float]:
        """Shares of ‖Δ‖² in the first k directions of W0: of both sides, the left, the right.

        An isotropic change has k²/(mn), k/m and k/n. nan for no change.
        """
        both, left, right = self._projected
        total = self.norm**2 or float("nan")
        return (
            float(both[:k, :k].square().sum()) / total,
            float(left[:k].sum()) / total,
            float(right[:k].sum()) / total,
        )
