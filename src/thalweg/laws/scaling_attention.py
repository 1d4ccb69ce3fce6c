"""What attention asks of the scalings of units: queries against keys, values through the softmax.

A score q_i·k_j stays the same if the units of q and k that it contracts scale inversely. A head
mixes values of one unit over positions, so values scale as they are. Grouped queries, rotary pairs
and fused projections need no rule of their own: the labels say which units meet.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from thalweg.laws.scaling import Label, Scaling
from thalweg.laws.scaling_layers import linear_label, parameter_matmul
from thalweg.laws.trace import Op

__all__ = ["ATTENTION_RULES", "SCORE_PASSES"]

#: Operations after which scores are still scores: the softmax is still the next that matters.
SCORE_PASSES = {"mul", "__mul__", "__rmul__", "div", "__truediv__", "true_divide", "masked_fill",
                "add", "__add__", "__radd__", "__iadd__", "to", "float", "type", "where",
                "__imul__", "__itruediv__", "dropout"}  # fmt: skip


def contract(s: Scaling, queries: Label, keys: Label) -> Tensor | None:
    """Scores of queries (…, T, a) and keys (…, T', a) must not change; returns the key units."""
    if len(queries) != 1 or len(keys) != 1:
        s.stop(queries)
        s.stop(keys)
        return None
    (q, q_degree), (k, k_degree) = queries[0], keys[0]
    for units in (q, k):
        s.classes.tie(units, units[..., :1, :].expand_as(units))
        _heads(s, units)
    first, second = torch.broadcast_tensors(q[..., 0, :], k[..., 0, :])
    s.classes.tie(first, second, -k_degree / q_degree)
    s.mark(q, "query")
    s.mark(k, "key")
    s.other_units.update(q.unique().tolist())
    return k


def attend(s: Scaling, values: Label, positions: int) -> Label:
    """Label of weights @ values: each unit mixed over positions (…, T', a) → (…, T, a)."""
    out = []
    for units, degree in values:
        s.classes.tie(units, units[..., :1, :].expand_as(units))
        _heads(s, units)
        s.mark(units, "value")
        s.other_units.update(units.unique().tolist())
        out.append((units[..., :1, :].expand(*units.shape[:-2], positions, -1), degree))
    return tuple(out)


def _heads(s: Scaling, units: Tensor) -> None:
    rows = units[..., 0, :].reshape(-1, units.shape[-1]).unique(dim=0)
    s.together.extend(rows)


def _sdpa(s: Scaling, op: Op) -> None:
    names = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal")
    got: dict[str, Any] = {**dict(zip(names, op.args, strict=False)), **op.kwargs}
    query, key, value = (got[n] for n in names[:3])
    labels = [s.label(t) for t in (query, key, value)]
    s.stop(s.label(got.get("attn_mask")))
    if got.get("enable_gqa") and query.shape[-3] != key.shape[-3]:
        repeat = query.shape[-3] // key.shape[-3]
        for i in (1, 2):
            labels[i] = tuple((u.repeat_interleave(repeat, -3), d) for u, d in labels[i])
    keys = contract(s, labels[0], labels[1])
    if keys is not None:
        s.key_units.update(keys.unique().tolist())
    s.set(op.out, attend(s, labels[2], query.shape[-2]))


def _matmul(s: Scaling, op: Op) -> None:
    if parameter_matmul(s, op):
        for units, _ in s.label(op.args[0]):
            s.other_units.update(units.unique().tolist())
        return
    left, right = op.args[:2]
    a, b = s.label(left), s.label(right)
    if a and b and left.ndim >= 2 and right.ndim >= 2:
        keys = contract(s, a, tuple((u.mT, d) for u, d in b))
        if keys is not None:
            s.pending[id(op.out)] = keys
    elif b and right.ndim >= 2 and left.ndim >= 2:
        spread = tuple(
            (u.expand(*op.out.shape[:-2], *u.shape[-2:]), d) for u, d in b
        )  # heads that share values
        s.set(op.out, attend(s, spread, left.shape[-2]))
    else:
        s.stop(a)
        s.stop(b)


def _einsum(s: Scaling, op: Op) -> None:
    """Scores ``bihd,bjhd->bhij`` and mixtures ``bhij,bjhd->bihd`` of attention by hand."""
    text, *operands = op.args
    terms = text.replace(" ", "").split("->") if isinstance(text, str) else []
    if len(terms) != 2 or len(operands) != 2 or "." in text or terms[0].count(",") != 1:
        s.not_followed(op, "an einsum other than one of two operands")
        return
    (left, right), result = terms[0].split(","), terms[1]
    a, b = (s.label(t) for t in operands)
    if a and not b:  # weights come first
        (left, right), (a, b) = (right, left), (b, a)
    summed = [i for i in left if i in right and i not in result]
    own = [[i for i in term if i not in other] for term, other in ((left, right), (right, left))]
    shared = [i for i in left if i in right and i in result]
    if len(summed) != 1 or any(len(o) != 1 or o[0] not in result for o in own):
        s.not_followed(op, f"einsum {text!r}")
        return

    def ordered(label: Label, term: str, order: list[str]) -> Label:
        return tuple((u.permute([term.index(i) for i in order]), d) for u, d in label)

    if a and b:
        keys = contract(
            s,
            ordered(a, left, [*shared, *own[0], *summed]),
            ordered(b, right, [*shared, *own[1], *summed]),
        )
        if keys is not None and result[-1] == own[1][0]:
            s.pending[id(op.out)] = keys
        elif keys is not None:
            s.other_units.update(keys.unique().tolist())
        return
    values = ordered(b, right, [*shared, *summed, *own[1]])
    mixed = attend(s, values, op.out.shape[result.index(own[0][0])])
    order = "".join([*shared, *own[0], *own[1]])
    s.set(op.out, ordered(mixed, order, list(result)))


def _softmax(s: Scaling, op: Op) -> None:
    scores = s.pending.get(id(op.args[0]))
    axis = op.named("input", "dim")["dim"]
    if scores is not None:
        into = s.key_units if axis in (-1, op.out.ndim - 1) else s.other_units
        into.update(scores.unique().tolist())
    s.stop(s.label(op.args[0]))


_MHA = inspect.signature(F.multi_head_attention_forward)


def _multihead(s: Scaling, op: Op) -> None:
    got = _MHA.bind(*op.args, **op.kwargs)
    got.apply_defaults()
    a: dict[str, Any] = dict(got.arguments)
    unusual = [n for n in ("bias_k", "bias_v", "static_k", "static_v") if a[n] is not None]
    if unusual or a["add_zero_attn"]:
        s.not_followed(op, f"attention with {', '.join(unusual) or 'add_zero_attn'}")
        return
    s.stop(s.label(a["attn_mask"]))
    tensors = [a["query"], a["key"], a["value"]]
    lengths = [t.shape[0] for t in tensors]
    labels = [s.label(t) for t in tensors]
    for label in labels:
        for units, _ in label:
            s.other_units.update(units.unique().tolist())
    width, heads = a["embed_dim_to_check"], a["num_heads"]
    bias, fused = a["in_proj_bias"], s.trace.name(a["in_proj_weight"])
    if a["use_separate_proj_weight"]:
        made = []
        for i, n in enumerate(("q_proj_weight", "k_proj_weight", "v_proj_weight")):
            name = s.trace.name(a[n])
            if name is None:
                s.not_followed(op, f"{n} is no parameter but computed from some")
                return
            made.append(linear_label(s, labels[i], name, None))
            if bias is not None:
                _bias_rows(s, bias, made[i], i * width)
    elif fused is None:
        s.not_followed(op, "in_proj_weight is no parameter but computed from some")
        return
    elif tensors[0] is tensors[1] is tensors[2]:
        made = list(linear_label(s, labels[0], fused, bias).split(width))
    else:
        spans = [(i * width, (i + 1) * width) for i in range(3)]
        made = [
            linear_label(s, label, fused, bias, rows=span)
            for label, span in zip(labels, spans, strict=True)
        ]
    # (heads, positions, a)
    split = [
        ((units.reshape(heads, 1, -1).expand(-1, length, -1), 1.0),)
        for units, length in zip(made, lengths, strict=True)
    ]
    keys = contract(s, split[0], split[1])
    if keys is not None:
        s.key_units.update(keys.unique().tolist())
    mixed = attend(s, split[2], lengths[0])
    joined = tuple((u.transpose(0, 1).reshape(lengths[0], -1), d) for u, d in mixed)
    out_name = s.trace.name(a["out_proj_weight"])
    if out_name is None:
        s.not_followed(op, "out_proj.weight is no parameter but computed from some")
        s.stop(joined)
        return
    units = linear_label(s, joined, out_name, a["out_proj_bias"])
    s.set(op.out[0], ((units, 1.0),))


def _bias_rows(s: Scaling, bias: Tensor, units: Tensor, low: int) -> None:
    """Rows of the shared bias of projections that have weights of their own."""
    name = s.trace.name(bias)
    if name is None:
        s.classes.stop(units)
        return
    rows = torch.arange(low, low + len(units))
    noted = (c for c in s.contributions if c.parameter == name)
    if not any(torch.equal(c.slices, rows) for c in noted):  # the layer may be called twice
        s.shifts.add(name)
        s.put(name, 0, units, rows, 1.0)


ATTENTION_RULES = {
    "scaled_dot_product_attention": _sdpa,
    "multi_head_attention_forward": _multihead,
    "matmul": _matmul,
    "__matmul__": _matmul,
    "bmm": _matmul,
    "softmax": _softmax,
    "einsum": _einsum,
}
