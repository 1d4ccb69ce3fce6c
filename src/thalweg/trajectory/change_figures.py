"""How a change of one tensor is spread: over coordinates, singular directions, and the source's.

Source: Yu, Liu, Hu, Ma, Jiang, Ye 2026, arXiv 2606.13657; Hill's estimator as in Shen et al. 2026,
arXiv 2606.07082. Departure: the difference is formed in float32 from the stored numbers, and
each mask has the integer part of αn entries. Axes: `m` rows, `n` columns.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from thalweg.trajectory.matrix_spectrum import MatrixSpectrum
from thalweg.trajectory.pair_spectra import PairSpectra
from thalweg.trajectory.update_masks import low_magnitude_mask, lowest

__all__ = [
    "ChangeSpectrum",
    "change_spectrum",
    "coordinate_energy",
    "hill_exponent",
    "mask_shares",
]

TOLERANCES = (1e-6, 1e-5, 1e-4)
HILL = 10  # singular values in Hill's estimator


@dataclass(frozen=True)
class ChangeSpectrum:
    """The singular values of a change, in figures.

    Attributes:
        spectral_norm: σ_1.
        stable_rank: Σσ² / σ_1².
        entropy_rank: exp of the entropy of σ / Σσ; nan where not all are known.
        numerical_rank: tolerance → share of the min(m, n) values above it times σ_1.
        top_energy: k → Σ_{i≤k} σ² / Σσ².
        hill: Hill's exponent of the first ten.
    """

    spectral_norm: float
    stable_rank: float
    entropy_rank: float
    numerical_rank: dict[float, float]
    top_energy: dict[int, float]
    hill: float


def change_spectrum(
    spectrum: MatrixSpectrum, norm: float, small: int, topk: Sequence[int]
) -> ChangeSpectrum:
    """The figures of a spectrum.

    Args:
        spectrum: of the change, not zero.
        norm: its Frobenius norm, exact even where the spectrum is not whole.
        small: min(m, n).
        topk: numbers of directions.
    """
    s = spectrum.values
    p = s / s.sum()
    squares = s.square().cumsum(0)
    known = [k for k in topk if spectrum.exact or k <= len(s)]
    return ChangeSpectrum(
        spectral_norm=float(s[0]),
        stable_rank=norm**2 / float(s[0]) ** 2,
        entropy_rank=float(torch.special.entr(p).sum().exp()) if spectrum.exact else math.nan,
        numerical_rank={
            tol: float((s > tol * s[0]).sum()) / small if spectrum.exact else math.nan
            for tol in TOLERANCES
        },
        top_energy={k: float(squares[min(k, len(s)) - 1]) / norm**2 for k in known},
        hill=hill_exponent(s[:HILL]),
    )


def hill_exponent(values: Tensor) -> float:
    """Exponent of a power law in the tail of descending positive values.

        α̂ = [1/(k − 1) Σ_{i<k} ln(σ_i / σ_k)]⁻¹

    Args:
        values: (k,) descending.

    Returns:
        Positive; inf for equal values, nan for fewer than two or a zero among them.

    Example:
        >>> import torch
        >>> round(hill_exponent(torch.tensor([2.0, 1.0])), 4)  # 1 / ln 2
        1.4427
    """
    if len(values) < 2 or not values[-1] > 0:
        return math.nan
    mean = float((values[:-1] / values[-1]).log().mean())
    return 1 / mean if mean > 0 else math.inf


def coordinate_energy(delta: Tensor, shares: Sequence[float]) -> dict[float, float]:
    """Share of Σδ² in the largest entries.

    A Gaussian change has 0.0845 of it in its largest hundredth.

    Args:
        delta: any shape.
        shares: of the entries; ⌈share·n⌉ are taken.

    Returns:
        share → energy; nan for no change.

    Example:
        >>> import torch
        >>> coordinate_energy(torch.tensor([3.0, 4.0, 0.0, 0.0]), [0.25])
        {0.25: 0.64}
    """
    squares = delta.reshape(-1).double().square()
    total = float(squares.sum())
    most = min(math.ceil(max(shares) * len(squares)), len(squares))
    largest = squares.topk(most).values.cumsum(0)
    return {
        s: float(largest[math.ceil(s * len(squares)) - 1]) / total if total else math.nan
        for s in shares
    }


def mask_shares(
    W0: Tensor, spectra: PairSpectra, changed: Tensor, ratio: float
) -> dict[str, float]:
    """Share of the changed entries in four masks of the source.

    Args:
        W0: (m, n).
        spectra: of it.
        changed: (m, n) bool, at least one entry.
        ratio: of the directions behind the principal mask, and of the entries in each mask.

    Returns:
        ``principal``, ``low``, ``principal_not_low``, ``not_principal_or_low``; by chance, the
        share of the mask in all entries.
    """
    rank = max(1, int(ratio * min(W0.shape)))
    score = spectra.before.reconstruction(rank).abs_().neg_()
    principal = lowest(score, max(1, int(ratio * W0.numel())))
    low = low_magnitude_mask(W0, ratio)
    masks = {
        "principal": principal,
        "low": low,
        "principal_not_low": principal & ~low,
        "not_principal_or_low": ~principal | low,
    }
    count = int(changed.sum())
    return {name: int((mask & changed).sum()) / count for name, mask in masks.items()}
