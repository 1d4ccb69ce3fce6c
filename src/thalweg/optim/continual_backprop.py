"""Continual backprop: a trickle of the least useful units is replaced at every step.

Source: S. Dohare et al. 2024, "Loss of plasticity in deep continual learning",
doi.org/10.1038/s41586-024-07711-7, and its code, github.com/shibhansh/loss-of-plasticity, whose
means (where the paper has sums) are used. Departures: the optimizer counts steps per tensor, so
that the bias correction of a new unit's moments is that of its tensor; the fraction of a unit that
is due is always carried over; and the mean answer moves to the next bias as the paper says, where
that code has set it to zero by then.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor, nn

from thalweg.nn.hidden_units import HiddenLayer, HiddenUnits
from thalweg.optim.recycle import WatchedUnits, outgoing, recycle

__all__ = ["ContinualBackprop"]

Utility = Literal["adaptable_contribution", "contribution", "weight"]
UTILITIES = ("adaptable_contribution", "contribution", "weight")


class ContinualBackprop:
    """Replaces mature units of the lowest utility.

        u ← ηu + (1 − η) · mean_x|h_i − ĥ_i| · mean|w_out| / mean|w_in|,   ĥ_i its running mean

    A new unit has uniform incoming weights, zero bias, zero outgoing weights, utility and age zero,
    and no memory in the optimizer; what the old one gave on average moves to the next bias. Unless
    a batch norm follows, the network answers on average as before.

    Args:
        model: any; its hidden units are found at its first training forward, see
            ``thalweg.nn.hidden_units``, and ``units.not_covered`` says which are not, and why.
        optimizer: whose state is to forget the units.
        replacement_rate: share of a layer's mature units replaced a step.
        maturity: steps before a unit can be replaced.
        decay: η of utility and running mean, in [0, 1).
        utility: ``adaptable_contribution``, or without the input weights and the mean
            ``contribution``, or ``weight``, the mean outgoing weight alone.
        gain: of the activation function; new weights are uniform within gain · √(3 / fan_in).
        inputs: for the search instead of the first forward's.
        generator: of the new weights.

    Raises:
        ValueError: for a value out of range; in the first forward, if no layer is covered.

    Source:
        Dohare et al. 2024, doi.org/10.1038/s41586-024-07711-7; entry adamo-isometry.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 1))
        >>> cbp = ContinualBackprop(model, replacement_rate=0.5, maturity=1)
        >>> for _ in range(2):
        ...     _ = model(torch.rand(8, 2))
        ...     replaced = cbp.after_step()
        >>> replaced
        {'0': 2}
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer | None = None,
        *,
        replacement_rate: float = 1e-4,
        maturity: int = 100,
        decay: float = 0.99,
        utility: Utility = "adaptable_contribution",
        gain: float = math.sqrt(2),
        inputs: Any = None,
        generator: torch.Generator | None = None,
    ) -> None:
        if not 0 <= replacement_rate <= 1:
            raise ValueError(f"replacement_rate must be in [0, 1], got {replacement_rate}")
        if maturity < 0:
            raise ValueError(f"maturity must be ≥ 0, got {maturity}")
        if not 0 <= decay < 1:
            raise ValueError(f"decay must be in [0, 1), got {decay}")
        if utility not in UTILITIES:
            raise ValueError(f"utility must be one of {UTILITIES}, got {utility!r}")
        if not gain > 0:
            raise ValueError(f"gain must be positive, got {gain}")
        self.model, self.optimizer = model, optimizer
        self.replacement_rate, self.maturity, self.decay = replacement_rate, maturity, decay
        self.utility, self.gain, self.generator = utility, gain, generator
        self._seen: dict[str, Tensor] = {}
        self._state: dict[str, dict[str, Any]] = {}
        self._watched = WatchedUnits(model, self._look, inputs)

    @property
    def units(self) -> HiddenUnits:
        """The layers that are watched, and those that are not covered."""
        return self._watched.units

    def _look(self, layer: HiddenLayer, h: Tensor) -> None:
        self._seen[layer.name] = h  # the last forward before the step counts

    @torch.no_grad()
    def after_step(self) -> dict[str, int]:
        """To be called after each step of the optimizer.

        Returns:
            Layer to the number of replaced units, where there were any.
        """
        replaced = {}
        for layer in self.units.layers:
            h = self._seen.pop(layer.name, None)
            if h is None:
                continue  # not reached by the forward passes of this step
            state = self._updated(layer, h)
            mature = int((state["age"] > self.maturity).sum())  # ages are kept on the host
            state["due"] += self.replacement_rate * mature
            count = min(int(state["due"]), mature)
            if count:
                state["due"] -= count
                self._replace(layer, state, count)
                replaced[layer.name] = count
        return replaced

    def utilities(self) -> dict[str, Tensor]:
        """Layer to the bias-corrected utility of its units, (size,)."""
        return {name: s["utility"] / self._correction(s) for name, s in self._state.items()}

    def _correction(self, state: dict[str, Any]) -> Tensor:
        ages = state["age"].to(state["utility"]).clamp_min(1)
        return 1 - self.decay**ages

    def _updated(self, layer: HiddenLayer, h: Tensor) -> dict[str, Any]:
        h = h.to(torch.promote_types(h.dtype, torch.float32))
        zero = torch.zeros(layer.size, dtype=h.dtype, device=h.device)
        start = {"utility": zero, "mean": zero.clone(), "due": 0.0}
        start["age"] = torch.zeros(layer.size, dtype=torch.int64)
        state = self._state.setdefault(layer.name, start)
        state["age"] += 1
        state["mean"].lerp_(h.mean((0, 2)), 1 - self.decay)
        out = _outgoing_size(self.model, layer, h)
        if self.utility == "adaptable_contribution":
            usual = (state["mean"] / self._correction(state))[:, None]
            rows: Any = self.model.get_submodule(layer.name).weight
            size = rows.to(h).abs().flatten(1).mean(1)
            new = out * (h - usual).abs().mean((0, 2)) / size
        elif self.utility == "contribution":
            new = out * h.abs().mean((0, 2))
        else:
            new = out
        # A unit without any incoming weight is of no use, whatever it gives.
        state["utility"].lerp_(new.nan_to_num(0.0, 0.0), 1 - self.decay)
        return state

    def _replace(self, layer: HiddenLayer, state: dict[str, Any], count: int) -> None:
        correction = self._correction(state)
        ready = (state["age"] > self.maturity).to(correction.device)
        ranked = torch.where(ready, state["utility"] / correction, torch.inf)
        units = ranked.topk(count, largest=False).indices
        usual = state["mean"] / correction
        for consumer in layer.consumers:
            _move_to_bias(self.model.get_submodule(consumer.module), consumer.units, units, usual)
        rows: Any = self.model.get_submodule(layer.name).weight
        bound = self.gain * math.sqrt(3 / rows[0].numel())
        shape = (count, *rows.shape[1:])
        source = self.generator.device if self.generator is not None else rows.device
        new = torch.rand(shape, generator=self.generator, device=source) * 2 * bound - bound
        recycle(self.model, layer, units, new, self.optimizer)
        state["utility"][units] = 0
        state["mean"][units] = 0
        state["age"][units.cpu()] = 0

    def state_dict(self) -> dict[str, dict[str, Any]]:
        """Utilities, running means, ages and fractions due, by layer."""
        return {
            name: {k: v.clone() if isinstance(v, Tensor) else v for k, v in s.items()}
            for name, s in self._state.items()
        }

    def load_state_dict(self, state: dict[str, dict[str, Any]]) -> None:
        """Goes on from there.

        Args:
            state: from ``state_dict``.
        """
        self._state = {
            name: {k: v.clone() if isinstance(v, Tensor) else v for k, v in s.items()}
            for name, s in state.items()
        }

    def close(self) -> None:
        """Takes its hooks off the model."""
        self._watched.close()


def _outgoing_size(model: nn.Module, layer: HiddenLayer, like: Tensor) -> Tensor:
    """(size,) mean |outgoing weight| of each unit, over all its consumers."""
    total = torch.zeros(layer.size, dtype=like.dtype, device=like.device)
    count = torch.zeros_like(total)
    for consumer in layer.consumers:
        weight: Any = model.get_submodule(consumer.module).weight
        columns = weight.to(like).abs().transpose(0, 1).flatten(1)
        of = consumer.units.to(like.device)
        total.index_add_(0, of, columns.sum(1))
        count.index_add_(0, of, torch.full_like(columns[:, 0], columns.shape[1]))
    return total / count


def _move_to_bias(module: nn.Module, of: Tensor, units: Tensor, usual: Tensor) -> None:
    """Adds w_out · mean answer of units that go to the bias of what reads them."""
    weight: Any = module.weight
    bias: Any = module.bias
    if bias is None:
        return
    of = of.to(units.device)
    columns = outgoing(of, units)
    given = weight[:, columns].flatten(2).sum(2) if weight.ndim > 2 else weight[:, columns]
    bias += (given.to(usual) @ usual[of[columns]]).to(bias)
