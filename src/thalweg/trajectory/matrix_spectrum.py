"""Singular values of a weight matrix, and its leading singular directions, once for all figures.

From the eigenvectors of the smaller Gram matrix in float64, summed over blocks of rows: the cost
is that of the smaller side, and the matrix itself stays in its own precision. Singular values below
some 1e-8 of the largest are lost in round-off; no figure here asks for them.

Source: definitions of the figures: H. Zhu et al. 2025, arXiv 2511.08567. Axes: `m` rows, `n`
columns, `k` directions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from thalweg.numerics import randomized_svd

__all__ = [
    "Angles",
    "MatrixSpectrum",
    "angles_between",
    "matrix_spectrum",
    "principal_angles",
    "spectral_drift",
    "times",
]

ROWS = 4096  # of a block: 25 MB of float64 at 768 columns


@dataclass(frozen=True)
class MatrixSpectrum:
    """A matrix by its singular values and leading directions.

    Attributes:
        values: descending, float64; all min(m, n), or the leading k if ``exact`` is False.
        left: (m, k) float64, orthonormal.
        right: (n, k) float64, orthonormal.
        exact: False where a randomised decomposition gave the leading part only.
    """

    values: Tensor
    left: Tensor
    right: Tensor
    exact: bool = True

    def reconstruction(self, r: int) -> Tensor:
        """Σ_{i≤r} σ_i u_i v_iᵀ, (m, n) float32."""
        left = (self.left[:, :r] * self.values[: min(r, self.left.shape[1])]).float()
        return left @ self.right[:, :r].float().T

    def gap(self, k: int) -> float:
        """σ_k − σ_{k+1}; σ_k itself where there is no further one; nan where it is not known."""
        if k < len(self.values):
            return float(self.values[k - 1] - self.values[k])
        return float(self.values[k - 1]) if self.exact else float("nan")


def matrix_spectrum(
    W: Tensor,
    k: int = 0,
    *,
    max_svd_dim: int = 4096,
    svd: Literal["exact", "randomized"] = "exact",
) -> MatrixSpectrum:
    """Singular values of a matrix, and its first k directions on both sides.

    Args:
        W: (m, n), finite, floating.
        k: directions; clipped to min(m, n); 0 for values only, at half the price.
        max_svd_dim: where the smaller side exceeds it, the leading max(k, 1) alone are found, by a
            randomised decomposition with two power iterations.
        svd: "randomized" for that at any size.

    Raises:
        ValueError: if W is not a floating matrix with entries.

    Cost: mn·min(m, n) for the Gram matrix and about 10 min(m, n)³ for its eigenvectors.
    """
    if W.ndim != 2 or not W.numel() or not W.is_floating_point():
        raise ValueError(f"expected a floating, non-empty matrix, got {tuple(W.shape)}, {W.dtype}")
    W = W.detach().cpu()
    small = min(W.shape)
    k = min(k, small)
    if svd == "randomized" or small > max_svd_dim:
        found = randomized_svd(W if W.dtype == torch.float64 else W.float(), max(k, 1))
        return MatrixSpectrum(found.S.double(), found.U.double(), found.Vh.T.double(), False)
    tall = W if W.shape[0] >= W.shape[1] else W.T
    gram = torch.zeros(small, small, dtype=torch.float64)
    for block in tall.split(ROWS):
        block = block.double()
        gram.addmm_(block.T, block)
    if not k:
        values = torch.linalg.eigvalsh(gram).flip(0).clamp(min=0).sqrt()
        m, n = W.shape
        return MatrixSpectrum(values, gram.new_zeros(m, 0), gram.new_zeros(n, 0))
    squares, vectors = torch.linalg.eigh(gram)
    values, near = squares.flip(0).clamp(min=0).sqrt(), vectors.flip(1)[:, :k].contiguous()
    # Images of the directions, made orthonormal again: those of tiny singular values are not.
    far, upper = torch.linalg.qr(times(tall, near))
    far = torch.where(upper.diagonal() < 0, -far, far)
    left, right = (far, near) if tall is W else (near, far)
    return MatrixSpectrum(values, left, right)


def times(W: Tensor, directions: Tensor) -> Tensor:
    """W V in float64, blocks of rows at a time, whatever the precision of W.

    Args:
        W: (m, n).
        directions: V, (n, k) float64.
    """
    if W.stride(0) < W.stride(1):  # rows of the transposed one lie together
        out = torch.zeros(W.shape[0], directions.shape[1], dtype=torch.float64)
        for block, part in zip(W.T.split(ROWS), directions.split(ROWS), strict=True):
            out.addmm_(block.double().T, part)
        return out
    return torch.cat([block.double() @ directions for block in W.split(ROWS)])


@dataclass(frozen=True)
class Angles:
    """Principal angles between two subspaces of k dimensions.

    Attributes:
        degrees: (k,) ascending, float64.
    """

    degrees: Tensor

    @property
    def max(self) -> float:
        """The largest, in degrees."""
        return float(self.degrees[-1])

    @property
    def mean(self) -> float:
        """In degrees."""
        return float(self.degrees.mean())

    @property
    def mean_sine(self) -> float:
        """Mean of sin θ_i, in [0, 1]."""
        return float(self.degrees.deg2rad().sin().mean())


def angles_between(A: Tensor, B: Tensor) -> Angles:
    """Principal angles between the column spaces of two orthonormal (d, k) matrices.

    From their sines, σ(B − A Aᵀ B): the cosines of small angles are 1 within round-off.
    """
    rest = B - A @ (A.T @ B)
    # relative to the largest sine, so that small angles keep their digits
    sines = torch.linalg.eigvalsh(rest.T @ rest).clamp(0, 1).sqrt()
    return Angles(sines.asin().rad2deg())


def principal_angles(
    W0: Tensor, W1: Tensor, k: int = 512, side: Literal["left", "right", "both"] = "both"
) -> Tensor:
    """How far the leading singular directions of a matrix turned.

        sin θ_i = σ_i((I − U0 U0ᵀ) U1),   U the first k singular directions

    They mean little where σ_k − σ_{k+1} is below 2‖W1 − W0‖₂: the subspaces are not told apart.

    Args:
        W0: (m, n), finite.
        W1: (m, n), finite.
        k: directions; clipped to min(m, n).
        side: of the matrix: left are directions of the outputs of a linear layer.

    Returns:
        (k,) float64, degrees, ascending; (2, k) for "both", left first.

    Raises:
        ValueError: if the matrices are not finite and of one shape, k < 1, or ``side`` is unknown.

    Cost: two eigendecompositions of the smaller Gram matrix.

    Source: arXiv 2511.08567; entry rlvr-off-principals.

    Example:
        A rotation by 30° of diag(2, 1) on the left.

        >>> import math, torch
        >>> c, s = math.cos(math.pi / 6), math.sin(math.pi / 6)
        >>> W = torch.diag(torch.tensor([2.0, 1.0], dtype=torch.float64))
        >>> Q = torch.tensor([[c, -s], [s, c]], dtype=torch.float64)
        >>> principal_angles(W, Q @ W, k=1).flatten().round(decimals=6)
        tensor([30.,  0.], dtype=torch.float64)
    """
    _pair("principal_angles", W0, W1)
    if k < 1 or side not in ("left", "right", "both"):
        raise ValueError(
            f"principal_angles: expected k >= 1 and side left, right or both, got {k}, {side!r}"
        )
    a, b = matrix_spectrum(W0, k), matrix_spectrum(W1, k)
    left = angles_between(a.left, b.left).degrees if side != "right" else None
    right = angles_between(a.right, b.right).degrees if side != "left" else None
    return torch.stack([t for t in (left, right) if t is not None]).squeeze(0)


def spectral_drift(W0: Tensor, W1: Tensor) -> float:
    """Change of the singular values relative to them, ‖σ(W1) − σ(W0)‖ / ‖σ(W0)‖.

    At most ‖W1 − W0‖_F / ‖W0‖_F.

    Args:
        W0: (m, n), finite.
        W1: (m, n), finite.

    Returns:
        0 or more; nan for W0 = 0.

    Raises:
        ValueError: if the matrices are not finite and of one shape.

    Source: arXiv 2511.08567 (there NSS); Mirsky 1960 for the bound; entry rlvr-off-principals.

    Example:
        >>> import torch
        >>> W = torch.diag(torch.tensor([3.0, 4.0]))
        >>> round(spectral_drift(W, 1.5 * W), 6)
        0.5
    """
    _pair("spectral_drift", W0, W1)
    before, after = (torch.linalg.svdvals(W.detach().double()) for W in (W0, W1))
    return float(before.dist(after) / before.norm())


def _pair(who: str, W0: Tensor, W1: Tensor) -> None:
    for W in (W0, W1):
        good = W.ndim == 2 and W.numel() and W.is_floating_point() and W.shape == W0.shape
        if not good or not bool(W.isfinite().all()):
            raise ValueError(
                f"{who}: expected two finite floating matrices of one shape, got "
                f"{tuple(W0.shape)} {W0.dtype} and {tuple(W1.shape)} {W1.dtype}"
            )
