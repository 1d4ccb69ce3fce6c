"""Hidden units of any model: for each, the weights that come in and those that go out.

Read from one forward pass, not from class names: a layer whose outputs reach other layers only
through functions that keep units apart (activations, dropout, batch norm, pooling, flattening) has
units that can be judged, and replaced, one by one. Where outputs are added to others, attended to
or normalised together, they can't, and the reason is given.

Source: the bookkeeping that ReDo (G. Sokar et al. 2023, arXiv 2302.12902) and continual backprop
(S. Dohare et al. 2024, doi.org/10.1038/s41586-024-07711-7) leave to the user.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from thalweg.numerics.forward_trace import Op, Trace, as_double, prepared, trace_forward

__all__ = ["Consumer", "HiddenLayer", "HiddenUnits", "hidden_units"]

CONVOLUTIONS = ("conv1d", "conv2d", "conv3d")
# Functions that act on every entry alone, if no other tensor takes part.
ELEMENTWISE = frozenset(
    "relu relu6 gelu silu mish leaky_relu elu selu celu softplus softsign sigmoid tanh hardtanh "
    "hardswish hardsigmoid logsigmoid abs square clamp dropout contiguous clone to float double "
    "mul add sub div __mul__ __rmul__ __add__ __radd__ __sub__ __truediv__ pow __pow__".split()
)
POOLING = tuple(
    f"{kind}_pool{n}d{end}"
    for kind in ("max", "avg", "adaptive_avg", "adaptive_max")
    for n in (1, 2, 3)
    for end in ("", "_with_indices")
)
PER_CHANNEL = frozenset(("dropout1d", "dropout2d", "dropout3d", "feature_dropout", *POOLING))


@dataclass(frozen=True)
class Consumer:
    """A layer that reads units.

    Attributes:
        module: its name.
        units: (in,) which unit each of its inputs is of.
        axis: of the features in its input, -1 or 1.
    """

    module: str
    units: Tensor
    axis: int


@dataclass(frozen=True)
class HiddenLayer:
    """A layer whose units stand alone.

    Attributes:
        name: of the module, Linear or convolution, whose rows come in.
        size: number of units.
        norms: names of batch norms on the way, one channel per unit.
        consumers: layers whose columns go out.
    """

    name: str
    size: int
    norms: tuple[str, ...]
    consumers: tuple[Consumer, ...]


@dataclass(frozen=True)
class HiddenUnits:
    """What was found in a model.

    Attributes:
        layers: in the order of the forward pass.
        not_covered: name of every other Linear or convolution to the reason.
    """

    layers: tuple[HiddenLayer, ...]
    not_covered: dict[str, str]


@dataclass
class _Units:
    """Units inside a tensor: whose, along which axis, which of them at each place of it."""

    layer: str
    axis: int
    index: Tensor


def hidden_units(model: nn.Module, inputs: Any) -> HiddenUnits:
    """Finds the layers whose units can be judged one by one.

    Args:
        model: left as it is; a copy is run once in float64.
        inputs: a tensor, a tuple of positional inputs or a dict of named ones; few samples do.

    Returns:
        HiddenUnits.

    Source:
        Entry adamo-isometry.

    Example:
        >>> model = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> found = hidden_units(model, torch.ones(1, 3))
        >>> [(l.name, l.size, l.consumers[0].module) for l in found.layers], found.not_covered
        ([('0', 8, '2')], {'2': 'its outputs are the outputs of the model'})
    """
    copied = prepared(model)
    return _Search(copied, trace_forward(copied, as_double(inputs))).found()


class _Search:
    """Follows units through the calls of a forward pass."""

    def __init__(self, model: nn.Module, trace: Trace) -> None:
        self.trace = trace
        kinds = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
        self.modules = {n: m for n, m in model.named_modules() if isinstance(m, kinds)}
        self.all = dict(model.named_modules())
        self.at: dict[int, _Units] = {}
        self.why: dict[str, str] = {}
        self.calls: list[str] = []
        self.norms: dict[str, list[str]] = {}
        self.consumers: dict[str, list[Consumer]] = {}

    def found(self) -> HiddenUnits:
        for op in self.trace.ops:
            inside = [n for n in op.reads if n in self.at]
            if self._is_layer(op):
                self._layer(op)
            elif inside:
                kept = self._kept(op, self.at[inside[0]]) if op.reads[0] == inside[0] else None
                if kept is None:
                    for node in inside:
                        self._give_up(self.at[node].layer, op)
                else:
                    self.at[op.writes[0]] = kept
        for node in self.trace.output_nodes:
            if node in self.at:
                reason = "its outputs are the outputs of the model"
                self.why.setdefault(self.at[node].layer, reason)
        layers = []
        for name in dict.fromkeys(self.calls):
            if not self.consumers.get(name):
                self.why.setdefault(name, "no layer reads it")
            if self.calls.count(name) > 1:
                self.why[name] = "it is called more than once"
            if name not in self.why:
                module: Any = self.modules[name]
                consumers = tuple(self.consumers[name])
                norms = tuple(self.norms.get(name, ()))
                layers.append(HiddenLayer(name, len(module.weight), norms, consumers))
        for name in self.modules:
            if name not in self.calls:
                self.why[name] = "it is not called as a module"
        return HiddenUnits(tuple(layers), {n: self.why[n] for n in self.modules if n in self.why})

    def _give_up(self, layer: str, op: Op) -> None:
        where = f" in {op.module!r}" if op.module else ""
        self.why.setdefault(layer, f"its units meet in {op.name.strip('_')}{where}")

    def _is_layer(self, op: Op) -> bool:
        if op.name not in ("linear", *CONVOLUTIONS) or op.module not in self.modules:
            return False
        own = f"{op.module}.weight" if op.module else "weight"
        return self.trace.name(op.named("input", "weight")["weight"]) == own

    def _layer(self, op: Op) -> None:
        module = self.modules[op.module]
        name, axis = op.module, 1 if op.name in CONVOLUTIONS else op.out.ndim - 1
        if getattr(module, "groups", 1) != 1:
            self.why[name] = "it is a grouped convolution"
        units = self.at.get(op.reads[0])
        if units is not None:
            here = op.named("input")["input"].ndim - 1 if axis != 1 or op.name == "linear" else 1
            if units.axis != here or name in self.why:
                self._give_up(units.layer, op)
            else:
                end = 1 if op.name in CONVOLUTIONS else -1
                self.consumers.setdefault(units.layer, []).append(Consumer(name, units.index, end))
        self.calls.append(name)
        self.at[op.writes[0]] = _Units(name, axis, torch.arange(op.out.shape[axis]))

    def _kept(self, op: Op, units: _Units) -> _Units | None:
        """Units in what a function gives; None if it mixes them."""
        x, axis = op.args[0] if op.args else op.named("input")["input"], units.axis
        out = op.out[0] if isinstance(op.out, tuple) else op.out
        if op.name in ELEMENTWISE and len(op.reads) == 1 and out.shape == x.shape:
            return units
        if op.name == "batch_norm" and axis == 1:
            if isinstance(self.all.get(op.module), nn.modules.batchnorm._BatchNorm):
                self.norms.setdefault(units.layer, []).append(op.module)
                return units
        if op.name in PER_CHANNEL and axis == 1 and out.ndim == x.ndim:
            return units
        if op.name in ("flatten", "reshape", "view"):
            return _reshaped(units, x.shape, out.shape)
        if op.name in ("mean", "amax"):
            return _reduced(op, units, x.ndim)
        return None


def _reshaped(units: _Units, old: torch.Size, new: torch.Size) -> _Units | None:
    axis = units.axis
    inner = math.prod(old[axis + 1 :])
    if len(new) == axis + 1 and new[:axis] == old[:axis] and new[axis] == old[axis] * inner:
        return _Units(units.layer, axis, units.index.repeat_interleave(inner))
    if axis == len(old) - 1 and len(new) and new[-1] == old[-1]:
        return _Units(units.layer, len(new) - 1, units.index)
    return None


def _reduced(op: Op, units: _Units, ndim: int) -> _Units | None:
    given = op.named("input", "dim", "keepdim")
    if given["dim"] is None:
        return None
    dims = given["dim"] if isinstance(given["dim"], tuple | list) else (given["dim"],)
    dims = [d % ndim for d in dims]
    if units.axis in dims:
        return None
    lost = 0 if given["keepdim"] else sum(d < units.axis for d in dims)
    return _Units(units.layer, units.axis - lost, units.index)
