"""What a fine-tune did to one tensor: which weights, which directions, beside what noise would do.

Source: H. Zhu, Z. Zhang, H. Huang et al. 2025, arXiv 2511.08567; the figures as defined in
arXiv 2606.07082. Departure: every figure comes with that of noise, isotropic or shuffled, of equal
norm (spectra) or with equally many visible changes (masks); the overlap with small weights is
mostly an effect of rounding, which noise feels as well. Axes: `m` rows, `n` columns.
"""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from thalweg.trajectory.bf16 import bf16_visible
from thalweg.trajectory.checkpoint_pairs import WeightPair
from thalweg.trajectory.matched_noise import Control, matched_noise, visible_noise_mask
from thalweg.trajectory.pair_spectra import PairSpectra
from thalweg.trajectory.update_masks import low_magnitude_mask, lowest

__all__ = ["GeometrySettings", "TensorGeometry", "tensor_geometry"]

NAN = float("nan")


@dataclass(frozen=True)
class GeometrySettings:
    """How a comparison is made.

    Attributes:
        eta: relative difference that counts as none, of weights in bfloat16.
        k: principal directions, clipped to the smaller side.
        r: rank of the reconstruction behind the principal mask.
        alpha: share of the weights in each mask, and what chance gives.
        control: kind of noise, or None for none.
        n_control: draws of it; spectra are compared with the first.
        max_svd_dim: smaller sides beyond it get a randomised decomposition.
        svd: "exact" or "randomized".
        seed: of the noise.
    """

    eta: float = 1e-3
    k: int = 512
    r: int = 64
    alpha: float = 0.5
    control: Control | None = "isotropic"
    n_control: int = 3
    max_svd_dim: int = 4096
    svd: Literal["exact", "randomized"] = "exact"
    seed: int = 0

    def __post_init__(self) -> None:
        """Checks.

        Raises:
            ValueError: if one is out of range.
        """
        good = (
            0 <= self.eta < 1
            and min(self.k, self.r, self.n_control, self.max_svd_dim) >= 1
            and 0 < self.alpha <= 1
            and self.control in (None, "isotropic", "shuffle")
            and self.svd in ("exact", "randomized")
        )
        if not good:
            raise ValueError(
                "expected 0 <= eta < 1, 0 < alpha <= 1, k, r, n_control and max_svd_dim >= 1, "
                f"control isotropic, shuffle or None, svd exact or randomized; got {self}"
            )


@dataclass(frozen=True)
class TensorGeometry:
    """The figures of one tensor; nan where one is not defined (no change, no matrix).

    Attributes:
        name: of the tensor.
        kind: of module.
        layer: or None.
        shape: its axes.
        numel: its entries.
        changed: entries that differ in bfloat16.
        norm: ‖W0‖_F.
        change_norm: ‖W1 − W0‖_F.
        drift: ‖σ(W1) − σ(W0)‖ / ‖σ(W0)‖.
        drift_control: of noise of equal norm.
        angle_left: largest principal angle of the first k left directions, degrees.
        angle_right: of the right ones.
        angle_mean: mean over both sides.
        angle_control: of noise of equal norm, the larger of both sides.
        k: directions, after clipping.
        gap: σ_k − σ_{k+1} of W0.
        change_spectral_norm: ‖W1 − W0‖₂.
        wedin: ‖ΔW‖₂ / (σ_k(W0) − σ_{k+1}(W1)), no less than the largest sine of an angle; inf
            where the gap is closed.
        energy: share of ‖ΔW‖² between the first k directions of both sides.
        energy_left: in those of the left side.
        energy_right: in those of the right side.
        energy_isotropic: k²/(mn).
        low: share of the visible changes that are on the smallest weights.
        low_control: of noise that changes as many.
        principal: share of them on weights that the leading directions are largest in.
        principal_control: of noise that changes as many.
    """

    name: str
    kind: str
    layer: int | None
    shape: tuple[int, ...]
    numel: int
    changed: int
    norm: float
    change_norm: float
    drift: float = NAN
    drift_control: float = NAN
    angle_left: float = NAN
    angle_right: float = NAN
    angle_mean: float = NAN
    angle_control: float = NAN
    k: int = 0
    gap: float = NAN
    change_spectral_norm: float = NAN
    wedin: float = NAN
    energy: float = NAN
    energy_left: float = NAN
    energy_right: float = NAN
    energy_isotropic: float = NAN
    low: float = NAN
    low_control: float = NAN
    principal: float = NAN
    principal_control: float = NAN

    @property
    def sparsity(self) -> float:
        """Share of entries that are equal in bfloat16."""
        return 1 - self.changed / self.numel

    @property
    def relative_norm(self) -> float:
        """‖W1 − W0‖_F / ‖W0‖_F."""
        return self.change_norm / self.norm if self.norm else NAN

    @property
    def angles_certain(self) -> bool:
        """Whether the gap at k tells the subspaces apart, γ_k ≥ 2 ‖ΔW‖₂."""
        return self.gap >= 2 * self.change_spectral_norm

    @property
    def low_lift(self) -> float:
        """Overlap with the smallest weights over that of noise: 1 is no more than noise."""
        return self.low / self.low_control if self.low_control else NAN

    @property
    def principal_lift(self) -> float:
        """Overlap with the principal weights over that of noise."""
        return self.principal / self.principal_control if self.principal_control else NAN

    @property
    def energy_lift(self) -> float:
        """Energy between the principal directions over that of an isotropic change."""
        return self.energy / self.energy_isotropic


def tensor_geometry(
    pair: WeightPair, settings: GeometrySettings, spectra: PairSpectra | None = None
) -> TensorGeometry:
    """The figures of one tensor.

    Args:
        pair: the tensor in both checkpoints.
        settings: how.
        spectra: of its matrix, if they are known; of at least max(k, r) directions.
    """
    W0, W1 = pair.base, pair.tuned
    changed = bf16_visible(W0, W1, settings.eta)
    head: dict[str, Any] = {
        "name": pair.name,
        "kind": pair.kind,
        "layer": pair.layer,
        "shape": tuple(W0.shape),
        "numel": W0.numel(),
        "changed": int(changed.sum()),
        "norm": float(W0.float().norm(dtype=torch.float64)),
    }
    matrix = pair.matrix
    if matrix is None:
        change = W1.double() - W0.double()
        return TensorGeometry(**head, change_norm=float(change.norm()))
    spectra = spectra or PairSpectra(
        *matrix, max(settings.k, settings.r), max_svd_dim=settings.max_svd_dim, svd=settings.svd
    )
    k = min(settings.k, spectra.k)
    figures: dict[str, Any] = _spectral(spectra, k) if spectra.norm else _unmoved(spectra, k)
    # Another draw for each name, and none that the weights may have been drawn with.
    own = zlib.crc32(pair.name.encode()) << 16
    generator = torch.Generator().manual_seed(own + settings.seed)
    figures |= _masks(*matrix, changed.flatten(1), spectra, k, settings, generator)
    return TensorGeometry(**head, change_norm=spectra.norm, k=k, **figures)


def _spectral(s: PairSpectra, k: int) -> dict[str, float]:
    """Drift, angles and energies."""
    left, right = s.angles(k)
    both, in_left, in_right = s.energy(k)
    m, n = s.delta.shape
    top = float(s.change.values[0])
    below = s.after.values[k] if k < len(s.after.values) else 0.0
    apart = float(s.before.values[k - 1] - below)
    return {
        "drift": s.drift() / float(s.before.values.norm()),
        "angle_left": left.max,
        "angle_right": right.max,
        "angle_mean": (left.mean + right.mean) / 2,
        "gap": s.before.gap(k),
        "change_spectral_norm": top,
        "wedin": (top / apart if apart > 0 else math.inf) if s.before.exact else NAN,
        "energy": both,
        "energy_left": in_left,
        "energy_right": in_right,
        "energy_isotropic": k * k / (m * n),
    }


def _unmoved(s: PairSpectra, k: int) -> dict[str, float]:
    """Of an unchanged matrix, without a decomposition: 0 what is 0, the rest is not defined."""
    m, n = s.delta.shape
    zero = ("drift", "angle_left", "angle_right", "angle_mean", "change_spectral_norm")
    return {**dict.fromkeys(zero, 0.0), "energy_isotropic": k * k / (m * n)}


def _masks(
    W0: Tensor,
    W1: Tensor,
    changed: Tensor,
    s: PairSpectra,
    k: int,
    settings: GeometrySettings,
    generator: torch.Generator,
) -> dict[str, float]:
    """Overlaps with the two masks, and everything that noise does."""
    count = int(changed.sum())
    if not s.norm:
        return {}
    found: dict[str, float] = {}
    low = principal = None
    if count:
        low = low_magnitude_mask(W0, settings.alpha)
        score = s.before.reconstruction(settings.r).abs_().neg_()
        principal = lowest(score, max(1, int(settings.alpha * W0.numel())))
        found["low"] = int((low & changed).sum()) / count
        found["principal"] = int((principal & changed).sum()) / count
    if settings.control is None:
        return found
    hits = [0, 0]
    for draw in range(settings.n_control):
        noise = matched_noise(W0, W1, settings.control, generator)
        if draw == 0:
            other = s.of(W0.to(noise.dtype) + noise)
            found["drift_control"] = s.drift(other) / float(s.before.values.norm())
            found["angle_control"] = max(a.max for a in s.angles(k, other))
        if low is None or principal is None:
            break
        seen = visible_noise_mask(W0, noise, count)
        hits[0] += int((low & seen).sum())
        hits[1] += int((principal & seen).sum())
    if count:
        found["low_control"], found["principal_control"] = (
            h / (settings.n_control * count) for h in hits
        )
    return found
