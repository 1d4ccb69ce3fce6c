"""ReDo: dormant units are recycled at intervals.

Source: G. Sokar, R. Agarwal, P. S. Castro, U. Evci 2023, arXiv 2302.12902.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from thalweg.nn.fresh_weights import fresh_weights
from thalweg.nn.hidden_units import HiddenLayer, HiddenUnits
from thalweg.optim.recycle import WatchedUnits, recycle

__all__ = ["ReDo", "dormant_scores"]


def dormant_scores(h: Tensor) -> Tensor:
    """Mean answer of each unit, relative to the mean of its layer.

        s_i = E_x|h_i(x)| / mean_j E_x|h_j(x)|

    Args:
        h: (N, size, positions).

    Returns:
        (size,); zeros for a layer whose units are all zero.

    Example:
        >>> dormant_scores(torch.tensor([[[1.0], [0.0]], [[3.0], [0.0]]]))
        tensor([2., 0.])
    """
    size = h.abs().mean((0, 2), dtype=torch.promote_types(h.dtype, torch.float32))
    mean = size.mean()
    return torch.where(mean > 0, size / mean, torch.zeros_like(size))


class ReDo:
    """Recycles dormant units: a unit is dormant if its score is at most tau.

        s_i = E_x|h_i(x)| / mean_j E_x|h_j(x)| ≤ τ

    Every ``every``-th step dormant units get incoming weights as their layer draws them, a bias of
    zero, outgoing weights of zero, and no memory in the optimizer. With τ = 0 the function of the
    network does not change. Scores are those of the last forward in training mode before the step.

    Args:
        model: any; its hidden units are found at its first training forward, see
            ``thalweg.nn.hidden_units``, and ``units.not_covered`` says which are not, and why.
        optimizer: whose state is to forget the units.
        tau: τ ≥ 0.
        every: steps between two looks.
        inputs: for the search instead of the first forward's.
        generator: of the new weights.

    Raises:
        ValueError: for a value out of range; in the first forward, if no layer is covered.

    Source:
        Sokar et al. 2023, arXiv 2302.12902; entry adamo-isometry.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 1))
        >>> _ = model[0].bias.data[0].fill_(-100.0)
        >>> redo = ReDo(model, every=1)
        >>> _ = model(torch.rand(8, 2))
        >>> redo.after_step()["0"] >= 1, model[0].bias.data[0].item()
        (True, 0.0)
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer | None = None,
        *,
        tau: float = 0.025,
        every: int = 1000,
        inputs: Any = None,
        generator: torch.Generator | None = None,
    ) -> None:
        if not tau >= 0:
            raise ValueError(f"tau must be ≥ 0, got {tau}")
        if every < 1:
            raise ValueError(f"every must be at least 1, got {every}")
        self.model, self.optimizer, self.tau, self.every = model, optimizer, tau, every
        self.generator = generator
        self._steps = 0
        self._scores: dict[str, Tensor] = {}
        self._watched = WatchedUnits(model, self._look, inputs)

    @property
    def units(self) -> HiddenUnits:
        """The layers that are watched, and those that are not covered."""
        return self._watched.units

    def _look(self, layer: HiddenLayer, h: Tensor) -> None:
        if (self._steps + 1) % self.every == 0:
            self._scores[layer.name] = dormant_scores(h)

    def after_step(self) -> dict[str, int]:
        """To be called after each step of the optimizer.

        Returns:
            Layer to the number of recycled units, at the steps that look; else empty.
        """
        self._steps += 1
        if self._steps % self.every:
            return {}
        counts = {}
        for layer in self.units.layers:
            if layer.name not in self._scores:
                continue  # not reached by the forward passes of this step
            units = (self._scores[layer.name] <= self.tau).nonzero().flatten()
            counts[layer.name] = len(units)
            if len(units):
                module = self.model.get_submodule(layer.name)
                fresh = fresh_weights(module, generator=self.generator)["weight"][units]
                recycle(self.model, layer, units, fresh, self.optimizer)
        self._scores = {}
        return counts

    def state_dict(self) -> dict[str, int]:
        """Where it stands between two looks."""
        return {"steps": self._steps}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Goes on from there.

        Args:
            state: from ``state_dict``.
        """
        self._steps = int(state["steps"])

    def close(self) -> None:
        """Takes its hooks off the model."""
        self._watched.close()
