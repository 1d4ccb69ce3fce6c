"""Sums that gradient flow conserves because a shift of an activation is never seen.

LayerNorm does not see a shift of all features of its input, a softmax over keys none of all scores
of a query, batch norm none of a channel, cross-entropy none of all logits. A map whose output is
read only in such ways has gradients whose columns sum to zero: 1ᵀ∇W = 0, so 1ᵀW is conserved.

Source: D. Kunin et al. 2020, arXiv 2012.04728 (softmax layer, batch norm). The residual stream and
key biases are derived in ``docs/mathematics.md``.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from thalweg.laws.law import Law, Piece
from thalweg.laws.scaling_elementwise import SHAPES
from thalweg.laws.trace import Op, Trace

__all__ = ["CROSS_ENTROPY", "shift_laws"]

CROSS_ENTROPY = "under cross-entropy"
_STREAM = "the residual stream is read only through LayerNorm"
_IDENTITY = {"to", "float", "double", "contiguous", "clone", "type", "type_as"}
_ADDS = {"add", "__add__", "__radd__", "__iadd__"}
_SCALES = {"mul", "__mul__", "__rmul__", "__imul__", "div", "__truediv__"}

#: How shifts are seen: along the last axis freely; constant in a channel of axis 1 (``None`` group
#: count) or in a group of channels.
_Kind = tuple[str, int]
_FEATURES, _CHANNELS = ("features", 0), ("channels", 0)


@dataclass(frozen=True)
class _Unseen:
    """Kinds of shift of one node that nothing downstream sees, and on what that hangs."""

    kinds: frozenset[_Kind]
    notes: frozenset[str] = frozenset()


def shift_laws(trace: Trace, key_biases: dict[str, list[int]], loss: str) -> list[Law]:
    """The laws of degree one: sums over outputs that no one sees.

    Args:
        trace: of a forward.
        key_biases: entries of biases that only shift the scores of a query.
        loss: ``cross-entropy`` if the output is the logits of one; else any loss is allowed.
    """
    unseen = _unseen(trace, loss)
    uses: dict[str, list[list[tuple[Piece, str, str]]]] = defaultdict(list)
    for op in trace.ops:
        for name, pieces in _used(trace, op, unseen).items():
            uses[name].append(pieces)
    laws = []
    for name, listed in uses.items():
        if not trace.params[name].requires_grad:
            continue
        for piece, formula, note in listed[0]:
            same = all(any(_alike(piece, q) for q, _, _ in other) for other in listed[1:])
            if same:
                laws.append(Law(f"sums: {name}", formula, (piece,), "sum", note=note))
    for name, indices in key_biases.items():
        if trace.params[name].requires_grad:
            piece = Piece(name, 1.0, 0, torch.tensor(indices)[:, None])
            laws.append(Law(f"key bias: {name}", f"{name} of the keys, each entry", (piece,), "sum",
                            note="it shifts all scores of a query alike"))  # fmt: skip
    return laws


def _alike(a: Piece, b: Piece) -> bool:
    if (a.parameter, a.axis) != (b.parameter, b.axis) or (a.index is None) != (b.index is None):
        return False
    return a.index is None or b.index is None or torch.equal(a.index, b.index)


def _unseen(trace: Trace, loss: str) -> dict[int, _Unseen]:
    """For every node that is read, the shifts that nothing sees. One pass from the end."""
    kinds: dict[int, frozenset[_Kind]] = {}
    notes: dict[int, frozenset[str]] = defaultdict(frozenset)
    for out, node in zip(trace.outputs, trace.output_nodes, strict=True):
        kinds[node] = frozenset()
        if loss == "cross-entropy" and len(trace.outputs) == 1:
            # Classes are on axis 1 of images and on the last axis of everything else.
            kinds[node] = frozenset([("classes", 1) if out.ndim > 3 else _FEATURES])
            notes[node] = frozenset([CROSS_ENTROPY])
    for op in reversed(trace.ops):
        tensors = [t for t in tree_leaves((op.args, op.kwargs)) if isinstance(t, Tensor)]
        for place, (tensor, node) in enumerate(zip(tensors, op.reads, strict=True)):
            allowed, why = _allowed(op, place, tensor, kinds, notes)
            kinds[node] = kinds.get(node, allowed) & allowed
            notes[node] = notes[node] | why
    return {node: _Unseen(found, notes[node]) for node, found in kinds.items()}


def _allowed(
    op: Op, place: int, tensor: Tensor, kinds: dict[int, Any], notes: dict[int, Any]
) -> tuple[frozenset[_Kind], frozenset[str]]:
    """Shifts of one argument that the operation, and all that follows it, does not see."""
    none: tuple[frozenset[_Kind], frozenset[str]] = (frozenset(), frozenset())
    if not tensor.is_floating_point() or not tensor.ndim:
        return none
    if place == 0 and op.name == "layer_norm":
        shape = op.named("input", "normalized_shape")["normalized_shape"]
        return (frozenset([_FEATURES]), frozenset([_STREAM])) if len(shape) == 1 else none
    if place == 0 and op.name == "batch_norm":
        training = op.named("i", "m", "v", "w", "b", "training")["training"]
        return (frozenset([_CHANNELS]), frozenset()) if training else none
    if place == 0 and op.name == "instance_norm":
        return frozenset([_CHANNELS]), frozenset()
    if place == 0 and op.name == "group_norm":
        return frozenset([("groups", op.named("i", "n")["n"])]), frozenset()
    if op.name in ("softmax", "log_softmax") and place == 0:
        axis = op.named("input", "dim")["dim"]
        return (frozenset([_FEATURES]) if axis in (-1, tensor.ndim - 1) else none[0]), none[1]
    if not op.writes:
        return none
    after = [kinds.get(node, frozenset()) for node in op.writes]
    passed, why = frozenset.intersection(*after), frozenset().union(*(notes[n] for n in op.writes))
    return passed & _carried(op, tensor), why


def _carried(op: Op, tensor: Tensor) -> frozenset[_Kind]:
    """Kinds of shift that come out of an operation as they went in."""
    every = frozenset([_FEATURES, _CHANNELS, ("classes", 1), *(("groups", n) for n in range(129))])
    nothing: frozenset[_Kind] = frozenset()
    if op.name in _IDENTITY:
        return every
    if op.name == "dropout":
        return every if op.named("input", "p")["p"] == 0 else nothing
    if op.name in _ADDS:
        if not isinstance(op.out, Tensor) or tensor.shape[-1] != op.out.shape[-1]:
            return nothing
        return every if tensor.shape == op.out.shape else frozenset([_FEATURES])
    if op.name in _SCALES:
        others = [a for a in op.args[:2] if a is not tensor]
        plain = [not isinstance(a, Tensor) or a.numel() == 1 for a in others]
        return every if others and all(plain) else nothing
    if op.name in ("mean", "sum"):
        dims = op.named("input", "dim")["dim"]
        listed = [dims] if isinstance(dims, int) else list(dims or range(tensor.ndim))
        keeps = all(d % tensor.ndim != tensor.ndim - 1 for d in listed)
        return frozenset([_FEATURES]) if keeps else nothing
    if op.name in SHAPES:
        return frozenset([_FEATURES]) if _keeps_last(op, tensor.shape[-1]) else nothing
    return nothing


def _keeps_last(op: Op, width: int) -> bool:
    """Whether each result of a reshape has the features of its input on its last axis, in order."""

    def shadow(value: Any) -> Any:
        if not isinstance(value, Tensor) or not value.is_floating_point():
            return value
        if not value.ndim:
            return value
        return torch.arange(value.shape[-1]).expand(value.shape).contiguous()

    moved = op.func(*tree_map(shadow, op.args), **tree_map(shadow, op.kwargs))
    for out in tree_leaves(moved):
        if not isinstance(out, Tensor) or not out.ndim or out.shape[-1] != width:
            return False
        if not torch.equal(out, torch.arange(width).expand(out.shape)):
            return False
    return True


def _used(
    trace: Trace, op: Op, unseen: dict[int, _Unseen]
) -> dict[str, list[tuple[Piece, str, str]]]:
    """Every parameter that an operation reads, with the sums that this use conserves."""
    found: dict[str, list[tuple[Piece, str, str]]] = {}
    out = unseen.get(op.writes[0], _Unseen(frozenset())) if op.writes else _Unseen(frozenset())
    note = "; ".join(sorted(out.notes))
    tensors = [t for t in tree_leaves((op.args, op.kwargs)) if isinstance(t, Tensor)]
    roles = _roles(op)
    for tensor, node in zip(tensors, op.reads, strict=True):
        name = trace.name(tensor)
        if name is None:
            continue
        role = next((r for r, t in roles.items() if t is tensor), None)
        pieces: list[tuple[Piece, str, str]] = []
        if role is None:
            # Added as it is, like a table of positions: its own node says what is seen of it.
            raw = unseen.get(node, _Unseen(frozenset()))
            if _FEATURES in raw.kinds:
                index = torch.arange(tensor.numel()).reshape(-1, tensor.shape[-1])
                listed = "; ".join(sorted(raw.notes))
                pieces.append((Piece(name, 1.0, None, index), f"row sums of {name}", listed))
        elif role == "bias":
            pieces = _bias(name, tensor.numel(), out.kinds, note)
        elif role == "table" and _FEATURES in out.kinds:
            pieces.append((Piece(name, 1.0, 0), f"row sums of {name}", note))
        elif role in ("out_in", "in_out") and _FEATURES in out.kinds:
            axis = 1 if role == "out_in" else 0
            pieces.append((Piece(name, 1.0, axis), f"column sums 1ᵀ{name} over outputs", note))
        elif role == "kernel" and ("classes", 1) in out.kinds:
            index = torch.arange(tensor.numel()).reshape(len(tensor), -1).T
            text = f"sums of {name} over outputs"
            pieces.append((Piece(name, 1.0, None, index), text, note))
        found.setdefault(name, []).extend(pieces)
    return found


def _bias(name: str, size: int, kinds: frozenset[_Kind], note: str) -> list[tuple[Piece, str, str]]:
    pieces = []
    whole = Piece(name, 1.0, 0, torch.arange(size)[None])
    if _FEATURES in kinds or ("classes", 1) in kinds:
        pieces.append((whole, f"sum of {name}", note))
    if _CHANNELS in kinds:
        pieces.append((Piece(name, 1.0, 0), f"{name}, each entry", "the batch norm removes it"))
    for kind, groups in kinds:
        if kind == "groups" and size % groups == 0:
            index = torch.arange(size).reshape(groups, -1)
            text = f"sums of {name} over the groups of the norm"
            pieces.append((Piece(name, 1.0, 0, index), text, ""))
    return pieces


def _roles(op: Op) -> dict[str, Any]:
    """The parameters of layers that make activations by their rows."""
    if op.name == "linear":
        got = op.named("input", "weight", "bias")
        return {"out_in": got["weight"], "bias": got["bias"]}
    if op.name == "addmm" and len(op.args) == 3 and not op.kwargs:
        return {"in_out": op.args[2], "bias": op.args[0]}
    if op.name in ("matmul", "__matmul__") and op.args[1].ndim == 2:
        return {"in_out": op.args[1]}
    if op.name in ("conv1d", "conv2d", "conv3d"):
        got = op.named("input", "weight", "bias")
        return {"kernel": got["weight"], "bias": got["bias"]}
    if op.name == "embedding":
        table = next(
            (t for t in op.args[:2] if isinstance(t, Tensor) and t.is_floating_point()), None
        )
        return {"table": table}
    if op.name == "multi_head_attention_forward":
        names = (*"qkvwh", "in_w", "in_b", "bk", "bv", "z", "p", "out_proj_weight", "out_proj_bias")
        got = op.named(*names)
        return {"out_in": got["out_proj_weight"], "bias": got["out_proj_bias"]}
    if op.name in ("batch_norm", "group_norm"):
        lead = ("input", "mean", "var") if op.name == "batch_norm" else ("input", "num_groups")
        return {"bias": op.named(*lead, "weight", "bias")["bias"]}
    return {}
