"""Whether a network can still learn: dormant units, ranks of features and kernel, sizes of weights.

Loss of plasticity shows in these before it shows in the accuracy on the next task. A schedule
around the instruments of this folder, no more.

Source: A. Rosseau, R. Müller, A. Nowé 2026, arXiv 2606.09762; S. Dohare et al. 2024,
doi.org/10.1038/s41586-024-07711-7 for the size of weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from thalweg.instruments.activations import dormant_fraction
from thalweg.instruments.entk import entk_rank
from thalweg.instruments.isometry import isometry_defect
from thalweg.instruments.rank import effective_rank, stable_rank
from thalweg.nn.hidden_units import HiddenLayer, HiddenUnits
from thalweg.optim.recycle import WatchedUnits

__all__ = ["PlasticityMonitor", "PlasticityRow"]

# Samples, times positions in a map, that ranks of features are taken of.
MOST_ROWS = 512


@dataclass(frozen=True)
class PlasticityRow:
    """What was measured at one step.

    Attributes:
        step: calls of ``after_step`` so far.
        dormant: share of dormant units, layer to [0, 1].
        effective_rank: of the features of the last layer with hidden units.
        stable_rank: of the same, with δ = 0.01.
        weight_size: mean |w| over matrices.
        isometry_defect: mean (σ² − 1)² over matrices.
        kernel_rank: effective rank of the tangent kernel of the probe; nan without one.
    """

    step: int
    dormant: dict[str, float]
    effective_rank: float
    stable_rank: float
    weight_size: float
    isometry_defect: float
    kernel_rank: float


class PlasticityMonitor:
    """Measures plasticity at every so many steps of a training.

    Call ``after_step()`` after each step. Nothing of the training is changed. In a recording its
    figures become series ``user/…``:

        with thalweg.record(model, optimizer) as recording:
            ...
            recording.log(monitor.after_step())

    Args:
        model: its hidden units are found at its first training forward, see
            ``thalweg.nn.hidden_units``.
        probe: few inputs for the tangent kernel, taken in eval mode; None leaves it out.
        every: steps between two rows.
        tau: relative answer at or below which a unit is dormant.
        inputs: for the search of units instead of the first forward's.

    Raises:
        ValueError: for a value out of range; in the first forward, if no layer is covered.

    Source:
        Rosseau et al. 2026, arXiv 2606.09762; entry adamo-isometry.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 1))
        >>> _ = model[0].bias.data.fill_(-100.0)
        >>> monitor = PlasticityMonitor(model, every=1)
        >>> _ = model(torch.rand(8, 2))
        >>> monitor.after_step()["dormant"], monitor.rows[0].effective_rank
        (1.0, 0.0)
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        probe: Tensor | None = None,
        every: int = 100,
        tau: float = 0.0,
        inputs: Any = None,
    ) -> None:
        if every < 1:
            raise ValueError(f"every must be at least 1, got {every}")
        if not tau >= 0:
            raise ValueError(f"tau must be ≥ 0, got {tau}")
        self.model, self.probe, self.every, self.tau = model, probe, every, tau
        self.rows: list[PlasticityRow] = []
        self._steps = 0
        self._seen: dict[str, Tensor] = {}
        self._watched = WatchedUnits(model, self._look, inputs)

    @property
    def units(self) -> HiddenUnits:
        """The layers that are watched, and those that are not covered."""
        return self._watched.units

    def _look(self, layer: HiddenLayer, h: Tensor) -> None:
        if (self._steps + 1) % self.every == 0:
            self._seen[layer.name] = h.clone()  # an activation in place may still come

    def after_step(self) -> dict[str, float]:
        """To be called after each step of the optimizer.

        Returns:
            The figures of a new row, ``dormant`` being the mean over layers; empty in between.
        """
        self._steps += 1
        if self._steps % self.every or not self._seen:
            return {}
        dormant = {n: float(dormant_fraction(h, self.tau, dim=1)) for n, h in self._seen.items()}
        names = [layer.name for layer in self.units.layers if layer.name in self._seen]
        last = self._seen[names[-1]]
        features = last.transpose(1, 2).flatten(0, 1)[:MOST_ROWS]
        self._seen = {}
        weights = [p.detach() for p in self.model.parameters() if p.ndim >= 2]
        row = PlasticityRow(
            self._steps,
            dormant,
            float(effective_rank(features)),
            float(stable_rank(features)),
            float(torch.stack([w.abs().mean(dtype=torch.float32) for w in weights]).mean()),
            float(isometry_defect(weights).total),
            self._kernel_rank(),
        )
        self.rows.append(row)
        figures = {
            "dormant": sum(dormant.values()) / len(dormant),
            "feature_effective_rank": row.effective_rank,
            "feature_stable_rank": row.stable_rank,
            "weight_size": row.weight_size,
            "weight_isometry_defect": row.isometry_defect,
        }
        return figures if self.probe is None else {**figures, "kernel_rank": row.kernel_rank}

    def _kernel_rank(self) -> float:
        if self.probe is None:
            return float("nan")
        modes = [(m, m.training) for m in self.model.modules()]
        self.model.eval()
        try:
            return entk_rank(self.model, self.probe).value
        finally:
            for module, training in modes:
                module.training = training

    def close(self) -> None:
        """Takes its hooks off the model."""
        self._watched.close()
