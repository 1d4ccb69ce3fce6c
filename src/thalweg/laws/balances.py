"""Laws from scaling symmetries: one for every class of units that can be scaled.

If L stays the same when every slice of class u is multiplied by s^{e}, then Σ e ‖slice‖² is
conserved by gradient flow. Units that no operation tells apart may not only be scaled but mixed by
any invertible matrix; then the whole Gram matrix Σ e R Rᵀ is conserved.

Source: S. Marcotte, R. Gribonval, G. Peyré 2023, arXiv 2307.00144; D. Kunin et al. 2020, arXiv
2012.04728.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field, replace

import torch

from thalweg.laws.law import Law, Piece
from thalweg.laws.scaling import Scaling
from thalweg.laws.unit_classes import FIXED

__all__ = ["balance_laws", "free_key_biases"]

_Slot = tuple[str, int | None]


@dataclass
class _Class:
    """One class: exponent of every slice of every parameter that scales with it."""

    slices: dict[_Slot, dict[int, float]] = field(default_factory=lambda: defaultdict(dict))
    kinds: set[str] = field(default_factory=set)
    eps: float = 0.0
    diagonal: bool = False
    first: tuple[float, int] = (0.0, 0)  # exponent that is to be positive, and a sort key
    signature: frozenset[int] = frozenset()


def free_key_biases(s: Scaling) -> dict[str, list[int]]:
    """Entries of biases that only shift all scores of a query: name to sorted indices."""
    only = s.key_units - s.other_units
    found: dict[str, set[int]] = defaultdict(set)
    for c in s.contributions:
        tied = s.conflicts(c.parameter)
        if c.parameter not in s.shifts or c.axis != 0 or tied:
            continue
        pairs = zip(c.units.tolist(), c.slices.tolist(), strict=True)
        found[c.parameter].update(i for u, i in pairs if u in only)
    return {name: sorted(indices) for name, indices in found.items() if indices}


def balance_laws(s: Scaling, constant: dict[str, set[int]]) -> list[Law]:
    """The quadratic laws of all scaling symmetries, in the order of their layers.

    Args:
        s: state after the whole trace.
        constant: entries of biases that are conserved each by itself, so that a law need not
            contain them.

    Returns:
        ``gram`` laws where units can be mixed, ``rows`` laws where they can only be scaled.
    """
    classes = _classes(s, constant)
    groups: dict[tuple, list[_Class]] = defaultdict(list)
    for c in classes:
        shape = []
        for slot, slices in c.slices.items():
            counts: dict[float, int] = defaultdict(int)
            for exponent in slices.values():
                counts[exponent] += 1
            shape += [(slot[0], -1 if slot[1] is None else slot[1], e, n)
                      for e, n in counts.items()]  # fmt: skip
        key = (tuple(sorted(shape)), frozenset(c.kinds), c.eps, c.diagonal)
        groups[key if c.diagonal else (*key, c.signature)].append(c)
    ordered = sorted(groups.values(), key=lambda g: min(c.first[1] for c in g))
    return _numbered([_law(s, group) for group in ordered])


def _numbered(laws: list[Law]) -> list[Law]:
    """Laws of one name are those of heads, in order."""
    names = [law.name for law in laws]
    out = []
    for i, law in enumerate(laws):
        many, nth = names.count(law.name) > 1, names[:i].count(law.name)
        out.append(replace(law, name=f"{law.name} (head {nth})") if many else law)
    return out


def _classes(s: Scaling, constant: dict[str, set[int]]) -> list[_Class]:
    found: dict[int, _Class] = defaultdict(_Class)
    order: dict[int, int] = {}
    for position, c in enumerate(s.contributions):
        slot = (c.parameter, c.axis)
        skip = constant.get(c.parameter, set())
        for unit, at in zip(c.units.tolist(), c.slices.tolist(), strict=True):
            root, ratio = s.classes.find(unit)
            if root in s.classes.dead or at in skip:
                continue
            order.setdefault(root, position)
            slices = found[root].slices[slot]
            slices[at] = slices.get(at, 0.0) + c.exponent * ratio
    for unit in range(1, len(s.classes.parent)):
        root, ratio = s.classes.find(unit)
        if root not in found:
            continue
        c = found[root]
        kind = s.kinds.get(unit)
        if kind:
            c.kinds.add(kind)
        c.eps = max(c.eps, s.eps.get(unit, 0.0))
        c.diagonal = c.diagonal or unit in s.diagonal
        # A unit has exponent ``ratio``; that of a query, value or gain is to be positive.
        rank = {"query": 3, "value": 2, "gain": 1, "scale": 1}.get(kind or "", 0)
        if c.first == (0.0, 0) or rank > c.first[1]:
            c.first = (ratio if rank else -ratio, rank)
    rows: dict[int, set[int]] = defaultdict(set)
    for number, row in enumerate(s.together):
        for unit in row.unique().tolist():
            root = s.classes.find(unit)[0]
            if unit != FIXED and root in found:
                rows[root].add(number)
    out = []
    for root, c in found.items():
        c.slices = {k: {i: e for i, e in v.items() if abs(e) > 1e-12} for k, v in c.slices.items()}
        c.slices = {k: v for k, v in c.slices.items() if v}
        signs = {e > 0 for v in c.slices.values() for e in v.values()}
        # Without a norm, nothing grows alone but what the output never reads.
        if not c.slices or (len(signs) == 1 and not c.eps and "scale" not in c.kinds):
            continue
        least = min(abs(e) for v in c.slices.values() for e in v.values())
        scale = (1 if c.first[0] > 0 else -1) / least
        c.slices = {k: {i: round(e * scale, 9) for i, e in v.items()} for k, v in c.slices.items()}
        c.first = (scale, order[root])
        c.signature = frozenset(rows[root])
        out.append(c)
    return out


def _law(s: Scaling, group: list[_Class]) -> Law:
    slots: dict[tuple[str, int | None, float], list[list[int]]] = defaultdict(list)
    group = sorted(group, key=lambda c: next(sorted(v) for v in c.slices.values()))
    for c in group:
        for (name, axis), slices in c.slices.items():
            by_weight: dict[float, list[int]] = defaultdict(list)
            for at, exponent in slices.items():
                by_weight[exponent].append(at)
            for weight, listed in by_weight.items():
                slots[name, axis, weight].append(sorted(listed))
    pieces = [_piece(s, *slot, listed) for slot, listed in slots.items()]
    pieces.sort(key=lambda p: p.weight < 0)
    gram = len(group) > 1 and not group[0].diagonal
    note = ""
    if group[0].eps:
        note = f"scale invariance before a norm: exact as its eps ({group[0].eps:g}) goes to 0"
    name = _name(pieces, {"scale"} if group[0].eps else group[0].kinds - {"scale"})
    return Law(
        name, _formula(s, pieces, gram), tuple(pieces), "gram" if gram else "rows", note=note
    )


def _piece(
    s: Scaling, name: str, axis: int | None, weight: float, listed: list[list[int]]
) -> Piece:
    index = torch.tensor(listed)
    p = s.trace.params[name]
    whole = axis is not None and index.shape == (p.shape[axis], 1)
    if whole and torch.equal(index[:, 0], torch.arange(p.shape[axis or 0])):
        return Piece(name, weight, axis)
    return Piece(name, weight, axis, index)


def _name(pieces: list[Piece], kinds: set[str]) -> str:
    owners = list(dict.fromkeys(p.parameter.rpartition(".")[0] or p.parameter for p in pieces))
    kind = next((k for k in ("scale", "query", "value", "gain") if k in kinds), "balance")
    label = {"query": "query/key", "value": "value/output"}.get(kind, kind)
    shown = ", ".join(owners[:4]) + (f", … ({len(owners)} modules)" if len(owners) > 4 else "")
    return f"{label}: {shown}"


def _slices(s: Scaling, p: Piece) -> int:
    tensor = s.trace.params[p.parameter]
    return tensor.numel() if p.axis is None else tensor.shape[p.axis]


def _formula(s: Scaling, pieces: list[Piece], gram: bool) -> str:
    terms = []
    for p in pieces:
        size = "" if abs(p.weight) == 1 else f"{abs(p.weight):g} "
        whole = p.index is not None and p.index.numel() == _slices(s, p)
        body = _gram_text(p) if gram else _row_text(p, whole)
        terms.append(("− " if p.weight < 0 else "+ ") + size + body)
    cut = terms[:6] + ([f"… ({len(terms)} terms)"] if len(terms) > 6 else [])
    return " ".join(cut).removeprefix("+ ")


def _row_text(p: Piece, whole: bool) -> str:
    """``‖W[j]‖²`` for rows, ``‖W[:,j]‖²`` for columns."""
    at = "j"
    if p.index is not None and len(p.index) == 1:
        return f"‖{p.parameter}‖²" if whole else f"‖part of {p.parameter}‖²"
    if p.index is not None:
        first = p.index[:, 0]
        run = p.index.shape[1] == 1 and torch.equal(first, first[0] + torch.arange(len(first)))
        at = f"{int(first[0])}+j" if run and p.axis is not None else "those of j"
    lead = {0: "", None: "", 1: ":,"}.get(p.axis, f"axis {p.axis}: ")
    return f"‖{p.parameter}[{lead}{at}]‖²"


def _gram_text(p: Piece) -> str:
    """``W Wᵀ`` for rows, ``Wᵀ W`` for columns, with the slices if not all."""
    at = ""
    if p.index is not None:
        flat = p.index.reshape(-1).sort().values
        run = torch.equal(flat, flat[0] + torch.arange(len(flat)))
        span = f"{int(flat[0])}:{int(flat[-1]) + 1}" if run else "those of the head"
        at = f"[{span}]" if p.axis != 1 else f"[:,{span}]"
    name = f"{p.parameter}{at}"
    return f"{name}ᵀ {name}" if p.axis == 1 else f"{name} {name}ᵀ"
