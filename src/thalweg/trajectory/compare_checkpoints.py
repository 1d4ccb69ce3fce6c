"""What did a fine-tune change? Two checkpoints compared, by tensor, kind of module and layer.

Source: H. Zhu, Z. Zhang, H. Huang et al. 2025, arXiv 2511.08567; see ``update_geometry`` for where
it departs.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from thalweg.trajectory.checkpoint_pairs import CheckpointPair, Source
from thalweg.trajectory.matched_noise import Control
from thalweg.trajectory.module_kinds import KINDS
from thalweg.trajectory.update_geometry import GeometrySettings, TensorGeometry, tensor_geometry

__all__ = ["GroupGeometry", "UpdateGeometryReport", "compare_checkpoints"]


@dataclass(frozen=True)
class GroupGeometry:
    """The figures of several tensors; those of spectra over the matrices that changed.

    Attributes:
        tensors: how many.
        matrices: of them with a spectrum.
        numel: entries.
        sparsity: share of entries equal in bfloat16.
        relative_norm: ‖ΔW‖ / ‖W0‖ of all entries.
        drift: mean over matrices of the relative change of the singular values.
        drift_control: the same of noise.
        angle: largest principal angle of any matrix, degrees.
        angle_control: the largest of noise.
        angles_uncertain: matrices whose gap at k is below 2 ‖ΔW‖₂.
        energy: mean share of the change between the principal directions.
        energy_isotropic: mean of k²/(mn).
        low: share of the visible changes on the smallest weights.
        low_control: of noise that changes as many.
        principal: share on the principal weights.
        principal_control: of noise that changes as many.
    """

    tensors: int
    matrices: int
    numel: int
    sparsity: float
    relative_norm: float
    drift: float
    drift_control: float
    angle: float
    angle_control: float
    angles_uncertain: int
    energy: float
    energy_isotropic: float
    low: float
    low_control: float
    principal: float
    principal_control: float


@dataclass(frozen=True)
class UpdateGeometryReport:
    """What changed between two checkpoints.

    Attributes:
        tensors: figures of each, in the order of the base.
        settings: how they were found.
        skipped: name → why a tensor was not compared.
    """

    tensors: tuple[TensorGeometry, ...]
    settings: GeometrySettings
    skipped: Mapping[str, str]

    @property
    def summary(self) -> GroupGeometry:
        """Of all tensors; big ones (embeddings) dominate what is weighted by entries."""
        return summarised(self.tensors)

    @property
    def modules(self) -> dict[str, GroupGeometry]:
        """Kind of module → its figures."""
        kinds = {kind: [t for t in self.tensors if t.kind == kind] for kind in KINDS}
        return {kind: summarised(found) for kind, found in kinds.items() if found}

    @property
    def layers(self) -> dict[int, GroupGeometry]:
        """Number of the layer → its figures; tensors outside the layers are left out."""
        numbers = sorted({t.layer for t in self.tensors if t.layer is not None})
        return {i: summarised([t for t in self.tensors if t.layer == i]) for i in numbers}

    def rows(self) -> list[dict[str, Any]]:
        """One flat mapping per tensor, as ``pandas.DataFrame`` takes them."""
        derived = ("sparsity", "relative_norm", "low_lift", "principal_lift", "energy_lift")
        return [
            {**asdict(t), **{name: getattr(t, name) for name in (*derived, "angles_certain")}}
            for t in self.tensors
        ]

    def as_dict(self) -> dict[str, Any]:
        """Everything, of plain types; nan where a figure is not defined."""
        return {
            "settings": asdict(self.settings),
            "summary": asdict(self.summary),
            "modules": {kind: asdict(g) for kind, g in self.modules.items()},
            "layers": {str(i): asdict(g) for i, g in self.layers.items()},
            "tensors": self.rows(),
            "skipped": dict(self.skipped),
        }

    def to_json(self) -> str:
        """The same as JSON, null for nan and infinity."""
        return json.dumps(_without_nan(self.as_dict()), indent=2)


def compare_checkpoints(
    base: Source,
    tuned: Source,
    *,
    eta: float = 1e-3,
    k: int = 512,
    r: int = 64,
    alpha: float = 0.5,
    control: Control | None = "isotropic",
    n_control: int = 3,
    max_svd_dim: int = 4096,
    svd: Literal["exact", "randomized"] = "exact",
    seed: int = 0,
    strict: bool = True,
    progress: Callable[[int, int], None] | None = None,
) -> UpdateGeometryReport:
    """What a fine-tune changed, beside what noise would have changed.

    Args:
        base: a state dict, a file, or a folder of Hugging Face with shards: see
            ``open_checkpoint``; both should be stored at one precision.
        tuned: the same.
        eta: relative difference that counts as none; below 2^−9, different bfloat16 numbers.
        k: principal directions, clipped to the smaller side of each matrix.
        r: rank of the reconstruction behind the principal mask.
        alpha: share of the weights in either mask.
        control: noise to compare with, "isotropic" or "shuffle" (the change, its entries permuted);
            None for none, in half the time.
        n_control: draws for the masks; spectra are compared with the first.
        max_svd_dim: matrices whose smaller side exceeds it get the leading directions only, by a
            randomised decomposition; their drift is nan.
        svd: "randomized" for that everywhere.
        seed: of the noise.
        strict: refuse tensors that one checkpoint lacks or has in another shape; False lists them.
        progress: told entries compared and entries in all.

    Raises:
        ThalwegError: if a checkpoint cannot be read, they do not match, or a weight is not finite;
            the message names the tensor.
        ValueError: if a setting is out of range.

    Cost: one tensor of each checkpoint in memory; per matrix four eigendecompositions of its
        smaller side, or three without a control.

    Source: arXiv 2511.08567; entry rlvr-off-principals.

    Example:
        A change along the first singular direction only.

        >>> import torch
        >>> W = torch.diag(torch.tensor([3.0, 2.0, 1.0]))
        >>> report = compare_checkpoints({"w": W}, {"w": W + torch.diag(torch.tensor([1.0, 0, 0]))},
        ...     k=1)
        >>> t = report.tensors[0]
        >>> round(t.drift * 14**0.5, 6), round(t.energy, 6), t.changed
        (1.0, 1.0, 1)
    """
    settings = GeometrySettings(eta, k, r, alpha, control, n_control, max_svd_dim, svd, seed)
    pairs = CheckpointPair(base, tuned, strict=strict)
    rows: list[TensorGeometry] = []
    done = 0
    for parts in pairs.read():
        for part in parts:
            rows.append(tensor_geometry(part, settings))
            done += part.base.numel()
            if progress is not None:
                progress(done, pairs.numel)
    return UpdateGeometryReport(tuple(rows), settings, pairs.skipped)


def summarised(tensors: Iterable[TensorGeometry]) -> GroupGeometry:
    """The figures of several tensors.

    Args:
        tensors: at least one.
    """
    tensors = list(tensors)
    numel = sum(t.numel for t in tensors)
    matrices = [t for t in tensors if t.k]
    norm = math.hypot(*(t.norm for t in tensors))
    visible = [t for t in matrices if t.changed]

    def share(name: str) -> float:
        known = [t for t in visible if not math.isnan(getattr(t, name))]
        total = sum(t.changed for t in known)
        return sum(getattr(t, name) * t.changed for t in known) / total if total else float("nan")

    moved = [t for t in matrices if t.change_norm]
    return GroupGeometry(
        tensors=len(tensors),
        matrices=len(matrices),
        numel=numel,
        sparsity=1 - sum(t.changed for t in tensors) / numel,
        relative_norm=math.hypot(*(t.change_norm for t in tensors)) / norm if norm else math.nan,
        drift=_mean(t.drift for t in matrices),
        drift_control=_mean(t.drift_control for t in matrices),
        angle=_largest(x for t in matrices for x in (t.angle_left, t.angle_right)),
        angle_control=_largest(t.angle_control for t in matrices),
        angles_uncertain=sum(not t.angles_certain for t in moved),
        energy=_mean(t.energy for t in moved),
        energy_isotropic=_mean(t.energy_isotropic for t in moved),
        low=share("low"),
        low_control=share("low_control"),
        principal=share("principal"),
        principal_control=share("principal_control"),
    )


def _mean(values: Iterable[float]) -> float:
    known = [v for v in values if not math.isnan(v)]
    return sum(known) / len(known) if known else float("nan")


def _largest(values: Iterable[float]) -> float:
    return max((v for v in values if not math.isnan(v)), default=float("nan"))


def _without_nan(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _without_nan(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(inner) for inner in value]
    return value
