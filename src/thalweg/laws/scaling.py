"""Which rescalings of units leave a network's function alone, found by following a forward pass.

Every activation carries labels: which unit each of its numbers belongs to, and with which degree it
grows when that unit is scaled. Reshapes, splits and transposes are followed by doing the same to
the labels. A linear map that reads unit j pays with its column (exponent −degree), the map that
makes it with its row (+1). What an operation asks of the exponents goes to ``UnitClasses``; what is
left free is a scaling symmetry, and each one is a conservation law (Noether): the sum of exponent ·
‖slice‖² over all slices of parameters in its class.

Source: D. Kunin et al. 2020, arXiv 2012.04728; S. Marcotte, R. Gribonval, G. Peyré 2023, arXiv
2307.00144, for the laws. Following labels through the trace is done here.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from thalweg.laws.trace import Op, Trace
from thalweg.laws.unit_classes import FIXED, UnitClasses

__all__ = ["Contribution", "Label", "Scaling"]

#: Components (units, degree): the activation grows as the product of s_unit^degree.
Label = tuple[tuple[Tensor, float], ...]


@dataclass(frozen=True)
class Contribution:
    """Slices of a parameter that scale with units.

    Attributes:
        parameter: its name.
        axis: where the slices lie; None for single numbers of the flattened parameter.
        units: (n,) units.
        slices: (n,) which slice goes with each.
        exponent: of the slice, relative to the unit.
    """

    parameter: str
    axis: int | None
    units: Tensor
    slices: Tensor
    exponent: float


@dataclass(frozen=True)
class _Use:
    """One way in which parameters are used: what it reads, what it makes."""

    ins: Label
    outs: Tensor


@dataclass
class Scaling:
    """What is known of the units while the trace is followed.

    Attributes:
        trace: the forward pass.
        classes: exponents and their ties.
        labels: id of a tensor to its label.
        contributions: slices of parameters and the units that they scale with.
        diagonal: units that pass through something that does not commute with mixing them.
        kinds: unit to what it is (``query``, ``key``, ``value``, ``gain``, ``scale``).
        eps: unit to the ε of the norm that makes its law approximate.
        together: rows of units that one linear map reads, or one inner product contracts.
        unknown: (module, reason) of what could not be followed.
        key_units: units used as attention keys, under a softmax over them.
        other_units: units used as anything else.
        shifts: names of parameters that are added, equally at all positions: biases of maps, norms.
        pending: id of a matrix of scores to the key units in it, until a softmax is seen.
    """

    trace: Trace
    classes: UnitClasses = field(default_factory=UnitClasses)
    labels: dict[int, Label] = field(default_factory=dict)
    contributions: list[Contribution] = field(default_factory=list)
    diagonal: set[int] = field(default_factory=set)
    kinds: dict[int, str] = field(default_factory=dict)
    eps: dict[int, float] = field(default_factory=dict)
    together: list[Tensor] = field(default_factory=list)
    unknown: dict[tuple[str, str], None] = field(default_factory=dict)
    key_units: set[int] = field(default_factory=set)
    other_units: set[int] = field(default_factory=set)
    shifts: set[str] = field(default_factory=set)
    pending: dict[int, Tensor] = field(default_factory=dict)
    views: dict[int, str] = field(default_factory=dict)
    uses: dict[tuple[Any, ...], _Use] = field(default_factory=dict)
    by_param: dict[str, list[tuple[Any, ...]]] = field(default_factory=dict)

    def label(self, value: Any) -> Label:
        """Label of a tensor; a parameter that is used as it is gets one unit per number."""
        if not isinstance(value, Tensor):
            return ()
        found = self.labels.get(id(value))
        if found is not None:
            return found
        name = self.trace.name(value)
        if name is None and id(value) in self.views:
            name = self.views[id(value)]
            return tuple((u.mT, d) for u, d in self.label(self.trace.params[name]))
        if name is None:
            return ()
        axis = 0 if value.ndim == 1 else None
        outs = self.use(
            ("raw", name),
            [name],
            (),
            value.numel(),
            lambda units: self.put(name, axis, units, torch.arange(len(units)), 1.0),
        )
        return ((outs.reshape(value.shape), 1.0),)

    def set(self, out: Any, label: Label) -> None:
        """Labels a result, broadcast to its shape."""
        whole = tuple((units.broadcast_to(out.shape), degree) for units, degree in label)
        self.labels[id(out)] = whole

    def use(
        self,
        key: tuple[Any, ...],
        params: Sequence[str],
        ins: Label,
        number: int,
        contribute: Callable[[Tensor], None],
    ) -> Tensor:
        """Units that a use of parameters makes; the same ones when it is used so again."""
        seen = self.uses.get(key)
        if seen is not None:
            same = [d for _, d in seen.ins] == [d for _, d in ins]
            if same:
                for (old, _), (new, _) in zip(seen.ins, ins, strict=True):
                    self.classes.tie(old, new)
            else:
                self.stop((*seen.ins, *ins))
                self.classes.stop(seen.outs)
                for name in params:
                    reason = f"{name} is used again on an input that scales differently"
                    self.unknown[name.rpartition(".")[0], reason] = None
            return seen.outs
        outs = self.classes.new(number)
        self.uses[key] = _Use(ins, outs)
        for name in params:
            self.by_param.setdefault(name, []).append(key)
        contribute(outs)
        return outs

    def put(
        self, name: str, axis: int | None, units: Tensor, slices: Tensor, exponent: float
    ) -> None:
        """Notes that slices of a parameter scale with units; a frozen parameter cannot."""
        if not self.trace.params[name].requires_grad:
            self.classes.stop(units)
            reason = f"{name} is frozen, so what it would balance is not conserved"
            self.unknown[name.rpartition(".")[0], reason] = None
            return
        self.contributions.append(Contribution(name, axis, units, slices, exponent))

    def stop(self, label: Label) -> None:
        """Nothing in this label can be scaled."""
        for units, _ in label:
            self.classes.stop(units)

    def row(self, units: Tensor, axis: int) -> Tensor:
        """(n,) the unit at each place along an axis, equal over all other axes."""
        flat = units.movedim(axis, -1).reshape(-1, units.shape[axis])
        if not len(flat):
            return units.new_full((units.shape[axis],), FIXED)
        if bool((flat != flat[:1]).any()):
            self.classes.tie(flat, flat[:1].expand_as(flat))
            self.mark_diagonal(flat)
        self.together.append(flat[0])
        return flat[0]

    def mark_diagonal(self, units: Tensor) -> None:
        """These units can be scaled, not mixed."""
        self.diagonal.update(units.unique().tolist())

    def mark(self, units: Tensor, kind: str) -> None:
        """Says what units are."""
        for unit in units.unique().tolist():
            self.kinds.setdefault(unit, kind)

    def not_followed(self, op: Op, reason: str) -> None:
        """Stops all that an operation reads, and says so if there was anything to stop."""
        alive = False
        for value in inputs_of(op):
            if not is_real(value):
                continue
            for units, _ in self.label(value):
                alive = alive or any(self.classes.alive(u) for u in units.unique().tolist())
            self.stop(self.label(value))
        if alive and reason:
            self.unknown[op.module, reason] = None

    def conflicts(self, name: str) -> bool:
        """Whether a parameter is used in several ways that share numbers of it."""
        keys = self.by_param.get(name, [])
        return len(keys) > 1 and not _disjoint(keys)

    def finish(self) -> None:
        """A loss may read the outputs in any way, and tied parameters must agree in all uses."""
        for out in self.trace.outputs:
            self.stop(self.label(out))
        for name, keys in self.by_param.items():
            if not self.conflicts(name):
                continue
            for key in keys:
                self.stop(self.uses[key].ins)
                self.classes.stop(self.uses[key].outs)
            reason = f"{name} is tied: it is used in {len(keys)} ways, which no rescaling serves"
            self.unknown[name.rpartition(".")[0], reason] = None


def is_real(tensor: Tensor) -> bool:
    """Whether it holds activations, not indices or masks; rotary pairs may be complex."""
    return tensor.is_floating_point() or tensor.is_complex()


def inputs_of(op: Op) -> list[Tensor]:
    """The tensors among an operation's arguments."""
    return [t for t in tree_leaves((op.args, op.kwargs)) if isinstance(t, Tensor)]


def _disjoint(keys: list[tuple[Any, ...]]) -> bool:
    """Whether these are linear maps made of different rows of one weight (cross-attention)."""
    if any(k[0] != "rows" for k in keys):
        return False
    spans = sorted((k[2], k[3]) for k in keys)
    return all(a[1] <= b[0] for a, b in itertools.pairwise(spans))
