"""The change between two checkpoints: how sparse, how concentrated, in whose directions.

Source: Yu, Liu, Hu, Ma, Jiang, Ye 2026, arXiv 2606.13657, and its code SydCS/OPD-Param-Analysis.
Departure: beside the figures of each tensor stand those of noise, isotropic or the change with its
entries shuffled, of equal norm (spectra) or with equally many changed entries (masks).
Axes: `m` rows, `n` columns.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from thalweg.trajectory.change_figures import (
    ChangeSpectrum,
    change_spectrum,
    coordinate_energy,
    mask_shares,
)
from thalweg.trajectory.checkpoint_pairs import CheckpointPair, Source, WeightPair
from thalweg.trajectory.compare_checkpoints import without_nan
from thalweg.trajectory.matched_noise import Control, matched_noise, visible_noise_mask
from thalweg.trajectory.matrix_spectrum import matrix_spectrum
from thalweg.trajectory.module_kinds import KINDS
from thalweg.trajectory.pair_spectra import PairSpectra
from thalweg.trajectory.update_masks import update_mask

__all__ = ["DeltaReport", "TensorDelta", "delta_report"]

THRESHOLDS = (1e-8, 1e-7, 1e-6, 1e-5, 1e-4)
RELATIVE = (1e-4, 1e-3, 1e-2)  # of the root mean square of the source
COORDINATES = (0.001, 0.01, 0.05)


@dataclass(frozen=True)
class TensorDelta:
    """The figures of one tensor.

    Attributes:
        name: of the tensor.
        kind: of module.
        layer: or None.
        shape: its axes.
        numel: its entries.
        norm: ‖W0‖_F.
        change_norm: ‖Δ‖_F.
        unchanged: share of entries with Δ = 0.
        below: τ → share with |Δ| < τ.
        below_rms: τ → share with |Δ| < τ·rms(W0).
        coordinates: share of the entries, within this tensor → share of ‖Δ‖² in the largest.
        spectrum: of Δ; None for no change or no matrix.
        spectrum_control: of noise of equal norm.
        energy: ratio ρ → share of ‖Δ‖² in the first k = ρ·min(m, n) directions of W0: both sides,
            left, right.
        energy_isotropic: ρ → k²/(mn), k/m, k/n.
        rotation: ρ → mean sin θ between the first k left directions before and after.
        drift: ‖σ(W1) − σ(W0)‖ / ‖σ(W0)‖.
        drift_over_change: the same over ‖Δ‖_F, in [0, 1].
        masks: ρ → share of the changed entries in each mask.
        masks_control: ρ → the same of noise that changes as many.
    """

    name: str
    kind: str
    layer: int | None
    shape: tuple[int, ...]
    numel: int
    norm: float
    change_norm: float
    unchanged: float
    below: dict[float, float]
    below_rms: dict[float, float]
    coordinates: dict[float, float]
    spectrum: ChangeSpectrum | None = None
    spectrum_control: ChangeSpectrum | None = None
    energy: dict[float, tuple[float, float, float]] = field(default_factory=dict)
    energy_isotropic: dict[float, tuple[float, float, float]] = field(default_factory=dict)
    rotation: dict[float, float] = field(default_factory=dict)
    drift: float = math.nan
    drift_over_change: float = math.nan
    masks: dict[float, dict[str, float]] = field(default_factory=dict)
    masks_control: dict[float, dict[str, float]] = field(default_factory=dict)

    @property
    def relative_norm(self) -> float:
        """‖Δ‖_F / ‖W0‖_F."""
        return self.change_norm / self.norm if self.norm else math.nan


@dataclass(frozen=True)
class DeltaGroup:
    """Several tensors.

    Attributes:
        tensors: how many.
        unmoved: of them without any change; they count in no median.
        numel: entries.
        relative_norm: ‖Δ‖ / ‖W0‖ of all entries.
        unchanged: share of entries with Δ = 0.
        below: τ → share of entries with |Δ| < τ.
        energy_share: of ‖Δ‖² in all tensors.
        numel_share: of the entries of all tensors.
        stable_rank: median over the matrices that changed.
        principal_energy: ratio → median share of ‖Δ‖² between the first directions of both sides.
        principal_isotropic: ratio → median of k²/(mn).
    """

    tensors: int
    unmoved: int
    numel: int
    relative_norm: float
    unchanged: float
    below: dict[float, float]
    energy_share: float
    numel_share: float
    stable_rank: float
    principal_energy: dict[float, float]
    principal_isotropic: dict[float, float]


@dataclass(frozen=True)
class DeltaReport:
    """The change between two checkpoints.

    Attributes:
        tensors: figures of each, in the order of the base.
        dtype: precision at which the two were compared.
        skipped: name → why a tensor was not compared.
    """

    tensors: tuple[TensorDelta, ...]
    dtype: torch.dtype
    skipped: Mapping[str, str]

    @property
    def summary(self) -> DeltaGroup:
        """Of all tensors."""
        return self._group(self.tensors)

    @property
    def modules(self) -> dict[str, DeltaGroup]:
        """Kind of module → its figures."""
        kinds = {kind: [t for t in self.tensors if t.kind == kind] for kind in KINDS}
        return {kind: self._group(found) for kind, found in kinds.items() if found}

    @property
    def layers(self) -> dict[int, DeltaGroup]:
        """Number of the layer → its figures."""
        numbers = sorted({t.layer for t in self.tensors if t.layer is not None})
        return {i: self._group([t for t in self.tensors if t.layer == i]) for i in numbers}

    def to_json(self) -> str:
        """Everything as JSON, null for nan and infinity."""
        data = {
            "dtype": str(self.dtype).removeprefix("torch."),
            "summary": asdict(self.summary),
            "modules": {kind: asdict(g) for kind, g in self.modules.items()},
            "layers": {i: asdict(g) for i, g in self.layers.items()},
            "tensors": [asdict(t) for t in self.tensors],
            "skipped": dict(self.skipped),
        }
        return json.dumps(without_nan(data), indent=2)

    def _group(self, tensors: Sequence[TensorDelta]) -> DeltaGroup:
        numel = sum(t.numel for t in tensors)
        energy = sum(t.change_norm**2 for t in tensors)
        everything = sum(t.change_norm**2 for t in self.tensors)
        norm = math.hypot(*(t.norm for t in tensors))
        moved = [t for t in tensors if t.spectrum is not None]
        ratios = list(moved[0].energy) if moved else []
        return DeltaGroup(
            tensors=len(tensors),
            unmoved=sum(not t.change_norm for t in tensors),
            numel=numel,
            relative_norm=energy**0.5 / norm if norm else math.nan,
            unchanged=sum(t.unchanged * t.numel for t in tensors) / numel,
            below={
                tau: sum(t.below[tau] * t.numel for t in tensors) / numel
                for tau in tensors[0].below
            },
            energy_share=energy / everything if everything else math.nan,
            numel_share=numel / sum(t.numel for t in self.tensors),
            stable_rank=_median(t.spectrum.stable_rank for t in moved if t.spectrum),
            principal_energy={p: _median(t.energy[p][0] for t in moved) for p in ratios},
            principal_isotropic={
                p: _median(t.energy_isotropic[p][0] for t in moved) for p in ratios
            },
        )


def delta_report(
    base: Source,
    tuned: Source,
    *,
    dtype: torch.dtype = torch.bfloat16,
    thresholds: Sequence[float] = THRESHOLDS,
    topk: Sequence[int] = (1, 2, 4, 8, 16, 32, 64),
    ratios: Sequence[float] = (0.01, 0.05, 0.1, 0.2),
    max_exact_dim: int = 4096,
    control: Control | None = "isotropic",
    seed: int = 0,
    strict: bool = True,
    progress: Callable[[int, int], None] | None = None,
) -> DeltaReport:
    """How the change between two checkpoints is spread.

    Args:
        base: a state dict, a file or a folder: see ``open_checkpoint``.
        tuned: the same.
        dtype: both are cast to it before they are subtracted (in float32).
        thresholds: τ of the shares |Δ| < τ, strict.
        topk: numbers of singular directions of Δ.
        ratios: of min(m, n), numbers of directions of the source; and of mn, entries of masks.
        max_exact_dim: smaller sides beyond it get the 64 leading values, by a randomised
            decomposition; what needs all of them is nan.
        control: noise beside each tensor, "isotropic" or "shuffle"; None for none.
        seed: of the noise.
        strict: refuse tensors that one checkpoint lacks or has in another shape; False lists them.
        progress: told entries compared and entries in all.

    Raises:
        ThalwegError: if a checkpoint cannot be read, they do not match, or a weight is not finite.
        ValueError: if a setting is out of range.

    Source: arXiv 2606.13657; entry opd-geometry.

    Example:
        A change of rank one.

        >>> import torch
        >>> W = torch.eye(4)
        >>> t = delta_report({"w": W}, {"w": W + 0.5 * torch.ones(4, 4)}).tensors[0]
        >>> round(t.spectrum.stable_rank, 6), round(t.spectrum.top_energy[1], 6)
        (1.0, 1.0)
    """
    good = thresholds and min(thresholds) > 0 and topk and min(topk) >= 1 and ratios
    if not (good and 0 < min(ratios) <= max(ratios) <= 1 and dtype.is_floating_point):
        raise ValueError(
            "delta_report: expected a floating dtype, thresholds > 0, topk >= 1 and ratios in "
            f"(0, 1]; got {dtype}, {thresholds}, {topk}, {ratios}"
        )
    if control not in (None, "isotropic", "shuffle"):
        raise ValueError(
            f"delta_report: expected control isotropic, shuffle or None, got {control!r}"
        )
    pairs = CheckpointPair(base, tuned, strict=strict)
    rows: list[TensorDelta] = []
    done = 0
    for parts in pairs.read():
        for part in parts:
            cast = WeightPair(
                part.name, part.kind, part.layer, part.base.to(dtype), part.tuned.to(dtype)
            )
            own = torch.Generator().manual_seed((zlib.crc32(part.name.encode()) << 16) + seed)
            rows.append(_tensor_delta(cast, thresholds, topk, ratios, max_exact_dim, control, own))
            done += part.base.numel()
            if progress is not None:
                progress(done, pairs.numel)
    return DeltaReport(tuple(rows), dtype, pairs.skipped)


def _tensor_delta(
    pair: WeightPair,
    thresholds: Sequence[float],
    topk: Sequence[int],
    ratios: Sequence[float],
    max_exact_dim: int,
    control: Control | None,
    generator: torch.Generator,
) -> TensorDelta:
    W0, W1 = pair.base, pair.tuned
    wide = torch.float64 if W0.dtype == torch.float64 else torch.float32
    delta = W1.to(wide) - W0.to(wide)
    size, n = delta.abs(), delta.numel()
    norm = float(W0.to(wide).norm(dtype=torch.float64))
    rms = norm / n**0.5
    row: dict[str, Any] = {
        "name": pair.name,
        "kind": pair.kind,
        "layer": pair.layer,
        "shape": tuple(W0.shape),
        "numel": n,
        "norm": norm,
        "change_norm": float(delta.norm(dtype=torch.float64)),
        "unchanged": 1 - int(torch.count_nonzero(delta)) / n,
        "below": {tau: int((size < tau).sum()) / n for tau in thresholds},
        "below_rms": {tau: int((size < tau * rms).sum()) / n for tau in RELATIVE},
        "coordinates": coordinate_energy(delta, COORDINATES),
    }
    matrix = pair.matrix
    if matrix is None or not row["change_norm"]:
        return TensorDelta(**row)
    directions = max(1, int(max(ratios) * min(matrix[0].shape)))
    spectra = PairSpectra(*matrix, directions, max_svd_dim=max_exact_dim)
    return TensorDelta(**row, **_of_matrix(spectra, *matrix, topk, ratios, control, generator))


def _of_matrix(
    spectra: PairSpectra,
    W0: Tensor,
    W1: Tensor,
    topk: Sequence[int],
    ratios: Sequence[float],
    control: Control | None,
    generator: torch.Generator,
) -> dict[str, Any]:
    """The figures that a matrix has."""
    m, n = W0.shape
    small, changed = min(m, n), update_mask(W0, W1)
    ks = {ratio: max(1, int(ratio * small)) for ratio in ratios}
    found: dict[str, Any] = {
        "spectrum": change_spectrum(spectra.change, spectra.norm, small, topk),
        "energy": {ratio: spectra.energy(k) for ratio, k in ks.items()},
        "energy_isotropic": {ratio: (k * k / (m * n), k / m, k / n) for ratio, k in ks.items()},
        "rotation": {ratio: spectra.angles(k)[0].mean_sine for ratio, k in ks.items()},
        "drift": spectra.drift() / float(spectra.before.values.norm()),
        "drift_over_change": spectra.drift() / spectra.norm,
        "masks": {ratio: mask_shares(W0, spectra, changed, ratio) for ratio in ratios},
    }
    if control is None:
        return found
    noise = matched_noise(W0, W1, control, generator)
    k = 0 if spectra.change.exact else len(spectra.change.values)
    how = "exact" if spectra.change.exact else "randomized"
    other = matrix_spectrum(noise, k, max_svd_dim=small, svd=how)
    seen = visible_noise_mask(W0, noise, int(changed.sum()))
    found["spectrum_control"] = change_spectrum(other, spectra.norm, small, topk)
    found["masks_control"] = {ratio: mask_shares(W0, spectra, seen, ratio) for ratio in ratios}
    return found


def _median(values: Iterable[float]) -> float:
    known = sorted(v for v in values if not math.isnan(v))
    middle = len(known) // 2
    if not known:
        return math.nan
    return known[middle] if len(known) % 2 else (known[middle - 1] + known[middle]) / 2
