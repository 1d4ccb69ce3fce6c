"""Hidden units that are watched during training, and replaced one by one.

What ReDo and continual backprop share: which layers there are, what their units answered, and how
a unit starts anew: new incoming weights, outgoing weights zero, so that the function of the network
is what it is without the unit; and no memory of it in the optimizer.

Source: G. Sokar et al. 2023, arXiv 2302.12902; S. Dohare et al. 2024,
doi.org/10.1038/s41586-024-07711-7.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from thalweg.nn.hidden_units import HiddenLayer, HiddenUnits, hidden_units

__all__ = ["WatchedUnits", "recycle"]


class WatchedUnits:
    """Finds a model's hidden units at its first training forward, and shows what they answer.

    Args:
        model: hooks are put on it.
        see: called with a layer and its units' answers (N, size, positions) in training mode.
        inputs: for the search; by default those of the first training forward.
    """

    def __init__(
        self,
        model: nn.Module,
        see: Callable[[HiddenLayer, Tensor], None],
        inputs: Any = None,
    ) -> None:
        self.model, self._see = model, see
        self._units: HiddenUnits | None = None
        self._handles: list[Any] = []
        if inputs is not None:
            self._search(inputs)
            return

        def first(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if module is not model or not model.training or self._units is not None:
                return  # a copy of the model has this hook, too
            names = {} if not kwargs else kwargs
            if args and names:
                raise ValueError(
                    "hidden units: the model is called with positional and named inputs; give a "
                    "tuple or a dict of them as inputs="
                )
            self._search(names if names else args)

        self._handles.append(model.register_forward_pre_hook(first, with_kwargs=True))

    @property
    def units(self) -> HiddenUnits:
        """What was found.

        Raises:
            ValueError: before the first training forward.
        """
        if self._units is None:
            raise ValueError(
                "the hidden units are found at the first forward in training mode, which has not "
                "been; or give inputs="
            )
        return self._units

    def _search(self, inputs: Any) -> None:
        with torch.random.fork_rng(devices=[]):
            found = hidden_units(self.model, inputs)
        if not found.layers:
            reasons = "; ".join(f"{n}: {why}" for n, why in found.not_covered.items())
            raise ValueError(f"no layer has hidden units that stand alone ({reasons})")
        self._units = found
        for layer in found.layers:
            self._watch(layer)

    def _watch(self, layer: HiddenLayer) -> None:
        consumer = layer.consumers[0]
        module = self.model.get_submodule(consumer.module)

        def look(inner: nn.Module, args: tuple[Tensor, ...]) -> None:
            if inner is module and self.model.training:
                self._see(layer, _by_unit(args[0].detach(), layer))

        self._handles.append(module.register_forward_pre_hook(look))

    def close(self) -> None:
        """Takes the hooks off."""
        for handle in self._handles:
            handle.remove()
        self._handles = []


def _by_unit(h: Tensor, layer: HiddenLayer) -> Tensor:
    """(N, size, positions): what the first consumer reads, sorted by units."""
    consumer = layer.consumers[0]
    if consumer.axis == 1:
        return h.flatten(2)
    h = h.reshape(-1, h.shape[-1])
    return h.unflatten(1, (layer.size, -1))  # a flattened map: its positions stand together


@torch.no_grad()
def recycle(
    model: nn.Module,
    layer: HiddenLayer,
    units: Tensor,
    incoming: Tensor,
    optimizer: torch.optim.Optimizer | None = None,
) -> None:
    """Starts units anew.

    Incoming weights are replaced, their biases and all outgoing weights become zero, and so do the
    entries of the optimizer's state that have the parameter's shape. Batch norms on the way get
    gain 1, bias 0 and the statistics of a new layer.

    Args:
        model: changed in place.
        layer: one of ``hidden_units(model, inputs).layers``.
        units: (n,) which.
        incoming: new incoming weights, (n, ...) as the rows of the layer's weight.
        optimizer: whose state is to forget them; steps are counted per tensor and stay.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
        >>> layer = hidden_units(model, torch.ones(1, 2)).layers[0]
        >>> recycle(model, layer, torch.tensor([1]), torch.ones(1, 2))
        >>> model[0].weight.data[1], model[2].weight.data[0, 1]
        (tensor([1., 1.]), tensor(0.))
    """
    module: Any = model.get_submodule(layer.name)
    units = units.to(module.weight.device)
    module.weight[units] = incoming.to(module.weight)
    _forget(optimizer, module.weight, 0, units)
    if module.bias is not None:
        module.bias[units] = 0
        _forget(optimizer, module.bias, 0, units)
    for name in layer.norms:
        norm: Any = model.get_submodule(name)
        fresh = (("weight", 1), ("bias", 0), ("running_mean", 0), ("running_var", 1))
        for part, value in fresh:
            values = getattr(norm, part)
            if values is not None:
                values[units] = value
                _forget(optimizer, values, 0, units)
    for consumer in layer.consumers:
        weight: Any = model.get_submodule(consumer.module).weight
        columns = outgoing(consumer.units.to(units.device), units)
        weight[:, columns] = 0
        _forget(optimizer, weight, 1, columns)


def outgoing(of: Tensor, units: Tensor) -> Tensor:
    """Positions in ``of`` of some units.

    Args:
        of: (in,) the unit of each input.
        units: (n,).

    Returns:
        Positions, in order.
    """
    return torch.isin(of, units).nonzero().flatten()


def _forget(optimizer: torch.optim.Optimizer | None, p: Tensor, axis: int, places: Tensor) -> None:
    for value in optimizer.state.get(p, {}).values() if optimizer is not None else ():
        if isinstance(value, Tensor) and value.shape == p.shape:
            value.index_fill_(axis, places.to(value.device), 0)
