"""What elementwise operations, reshapes and poolings ask of the scalings of units."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from thalweg.laws.scaling import Label, Scaling, inputs_of, is_real
from thalweg.laws.trace import Op
from thalweg.laws.unit_classes import FIXED

__all__ = ["ELEMENTWISE_RULES", "NONLINEAR", "ONE_INPUT", "SHAPES", "note_transpose"]

#: Operations that only move numbers about: done to the labels as they are.
SHAPES = {
    *("view", "reshape", "flatten", "transpose", "permute", "contiguous", "chunk", "split"),
    *("split_with_sizes", "unbind", "unflatten", "__getitem__", "unsqueeze", "squeeze", "expand"),
    *("expand_as", "repeat", "repeat_interleave", "swapaxes", "movedim", "narrow", "select"),
    *("clone", "cat", "concat", "stack", "roll", "flip", "t", "__get__", "view_as", "reshape_as"),
    *("tensor_split", "index_select", "tile"),
}
#: Known to be not homogeneous: nothing is conserved through them, and nothing is left uncovered.
NONLINEAR = {
    *("gelu", "silu", "tanh", "sigmoid", "softplus", "elu", "selu", "celu", "mish", "hardtanh"),
    *("relu6", "hardswish", "hardsigmoid", "softsign", "log_softmax", "logsigmoid", "exp", "sin"),
    *("cos", "erf", "log", "log1p", "logsumexp", "cross_entropy", "softmax", "tanhshrink"),
    *("softshrink", "hardshrink", "threshold", "clamp", "clamp_min", "clamp_max"),
}
_TINY = 1e-3  # a constant this small added to a mean of squares is the ε of a norm


def note_transpose(s: Scaling, op: Op) -> bool:
    """Whether it transposes a weight, for a product to come: not used number by number yet."""
    if op.name not in ("t", "transpose", "__get__", "permute", "swapaxes"):
        return False
    name = s.trace.name(op.args[0])
    if name is None or op.args[0].ndim != 2 or not isinstance(op.out, Tensor):
        return False
    if op.out.stride() != op.args[0].mT.stride() or op.out.shape != op.args[0].mT.shape:
        return False
    s.views[id(op.out)] = name
    return True


def _shape(s: Scaling, op: Op) -> None:
    _whole_tables(s, op)
    labels = [s.label(t) for t in inputs_of(op) if is_real(t)]
    degrees = next(([d for _, d in label] for label in labels if label), None)
    if degrees is None:
        return
    if any(label and [d for _, d in label] != degrees for label in labels):
        s.not_followed(op, f"{op.name} joins activations that scale differently")
        return
    outs: list[Any] = [t for t in tree_leaves(op.out) if isinstance(t, Tensor)]
    found: list[list[tuple[Tensor, float]]] = [[] for _ in outs]
    for i, degree in enumerate(degrees):

        def shadow(value: Any, i: int = i) -> Any:
            if not isinstance(value, Tensor) or not is_real(value):
                return value
            label = s.label(value)
            # Contiguous, since labels are broadcast and a view of them might not exist.
            return label[i][0].contiguous() if label else torch.full(value.shape, FIXED)

        args, kwargs = tree_map(shadow, op.args), tree_map(shadow, op.kwargs)
        moved = [t for t in tree_leaves(op.func(*args, **kwargs)) if isinstance(t, Tensor)]
        for k, units in enumerate(moved):
            found[k].append((units, degree))
    for out, label in zip(outs, found, strict=True):
        s.set(out, tuple(label))


def _whole_tables(s: Scaling, op: Op) -> None:
    """Another input may read other rows of a table of positions: they scale with those read."""
    if op.name not in ("__getitem__", "narrow", "select", "index_select"):
        return
    for value in inputs_of(op):
        if s.trace.name(value) is not None and value.ndim > 1:
            for units, _ in s.label(value):
                flat = units.reshape(-1, units.shape[-1])
                s.classes.tie(flat, flat[:1].expand_as(flat))


def _complex(s: Scaling, op: Op) -> None:
    """Pairs on the last axis become complex numbers: a pair is scaled as one."""
    label = s.label(op.args[0])
    for units, _ in label:
        s.classes.tie(units, units[..., :1].expand_as(units))
        s.mark_diagonal(units)
    s.set(op.out, tuple((units[..., 0], d) for units, d in label))


def _pairs(s: Scaling, op: Op) -> None:
    s.set(op.out, tuple((units[..., None], d) for units, d in s.label(op.args[0])))


def _same(s: Scaling, op: Op) -> None:
    s.set(op.out, s.label(op.args[0]))


def _homogeneous(s: Scaling, op: Op) -> None:
    """ReLU and its like, of degree one: a unit may be scaled, not mixed with others."""
    _degree(s, op, 1.0)


def _glu(s: Scaling, op: Op) -> None:
    """A · σ(b): the half that is multiplied scales, the half in the sigmoid does not."""
    axis = op.named("input", "dim")["dim"]
    axis = -1 if axis is None else axis
    out = []
    for units, degree in s.label(op.args[0]):
        kept, gate = units.chunk(2, axis)
        s.classes.stop(gate)
        s.mark_diagonal(kept)
        out.append((kept, degree))
    s.set(op.out, tuple(out))


def _dropout(s: Scaling, op: Op) -> None:
    p = op.named("input", "p")["p"]
    (_same if p == 0 else _homogeneous)(s, op)


def _pow(s: Scaling, op: Op) -> None:
    exponent = 2.0 if op.name == "square" else op.named("input", "exponent")["exponent"]
    if not isinstance(exponent, int | float) or exponent == 0 or isinstance(op.args[0], float):
        s.not_followed(op, "a power whose exponent is not a number")
        return
    _degree(s, op, float(exponent))


def _degree(s: Scaling, op: Op, degree: float) -> None:
    label = s.label(op.args[0])
    for units, _ in label:
        s.mark_diagonal(units)
    s.set(op.out, tuple((units, degree * d) for units, d in label))


def _root(s: Scaling, op: Op) -> None:
    _degree(s, op, {"sqrt": 0.5, "rsqrt": -0.5, "reciprocal": -1.0}[op.name])


def _add(s: Scaling, op: Op) -> None:
    left, right = op.args[:2]
    a, b = s.label(left), s.label(right)
    scalar = next((v for v in (left, right) if not isinstance(v, Tensor)), None)
    if scalar is not None:
        label = a or b
        if scalar != 0 and not 0 < abs(scalar) <= _TINY:
            s.stop(label)
            return
        for units, _ in label if scalar else ():
            s.eps.update((u, float(scalar)) for u in units.unique().tolist())
        s.set(op.out, label)
        return
    if not a or not b or [d for _, d in a] != [d for _, d in b]:
        s.stop(a)
        s.stop(b)
        return
    for (x, _), (y, _) in zip(a, b, strict=True):
        x, y = torch.broadcast_tensors(x, y)
        s.classes.tie(x, y)
        if set(x.unique().tolist()) & set(y.unique().tolist()):
            s.mark_diagonal(x[x != y])  # one source added to itself in another order
    s.set(op.out, a)


def _mul(s: Scaling, op: Op) -> None:
    left, right = op.args[:2]
    a, b = s.label(left), s.label(right)
    for value, label in ((left, b), (right, a)):
        if isinstance(value, Tensor) and value.numel() > 1:
            for units, _ in label:
                s.mark_diagonal(units)
    for value, label in ((left, a), (right, b)):
        if s.trace.name(value) is not None:
            for units, _ in label:
                s.mark_diagonal(units)
                s.mark(units, "gain")
    if op.name in ("div", "__truediv__", "true_divide"):
        b = tuple((units, -d) for units, d in b)
    shape = op.out.shape
    both = [(units.broadcast_to(shape), d) for units, d in (*a, *b)]
    s.set(op.out, _cancelled(s, both))


def _cancelled(s: Scaling, parts: list[tuple[Tensor, float]]) -> Label:
    """Without pairs of components that undo each other, as x and 1/rms(x)."""
    left = list(parts)
    for i in range(len(left)):
        for j in range(i + 1, len(left)):
            if left[i][1] == -left[j][1] and left[i][1] != 0 and _equal(s, left[i][0], left[j][0]):
                rest = [p for k, p in enumerate(left) if k not in (i, j)]
                for unit in left[i][0].unique().tolist():
                    s.kinds.setdefault(unit, "scale")
                return _cancelled(s, rest)
    return tuple(left)


def _equal(s: Scaling, x: Tensor, y: Tensor) -> bool:
    pairs = torch.stack([x.reshape(-1), y.reshape(-1)]).unique(dim=1).T.tolist()
    return all(s.classes.find(u) == s.classes.find(v) for u, v in pairs)


def _mean(s: Scaling, op: Op) -> None:
    axes = op.named("input", "dim")["dim"]
    label = s.label(op.args[0])
    ndim = op.args[0].ndim
    dims = list(range(ndim)) if axes is None else [axes] if isinstance(axes, int) else list(axes)
    out = []
    for units, degree in label:
        least = units.amin(dims, keepdim=True)
        if bool((units != least).any()):
            s.classes.tie(units, least.expand_as(units))
            s.mark_diagonal(units)
        out.append((least.reshape(op.out.shape), degree))
    s.set(op.out, tuple(out))


def _pool(s: Scaling, op: Op) -> None:
    """Poolings over the last axes, as many as the name says: channels stay what they are."""
    _over_places(s, op, int(op.name[-2]))


def _over_places(s: Scaling, op: Op, dims: int) -> None:
    label, out = s.label(op.args[0]), op.out[0] if isinstance(op.out, tuple) else op.out
    made = []
    for units, degree in label:
        flat = units.flatten(-dims)
        first = flat[..., :1]
        if bool((flat != first).any()):
            s.classes.tie(flat, first.expand_as(flat))
        if "max" in op.name:
            s.mark_diagonal(units)
        made.append((first.reshape(*first.shape[:-1], *[1] * dims), degree))
    s.set(out, tuple(made))


def _pad(s: Scaling, op: Op) -> None:
    got = op.named("input", "pad", "mode", "value")
    value, widths = got["value"] or got["mode"] not in (None, "constant"), got["pad"]
    if value or op.args[0].ndim < 3 or len(widths) > 2 * (op.args[0].ndim - 2):
        s.not_followed(op, "padding other than zeros around places")
        return
    _over_places(s, op, len(widths) // 2)


def _masked(s: Scaling, op: Op) -> None:
    value = op.named("input", "mask", "value")["value"]
    if isinstance(value, int | float) and value == 0:
        _homogeneous(s, op)
    else:
        s.stop(s.label(op.args[0]))


_POOLS = ("max_pool1d", "max_pool2d", "max_pool3d", "avg_pool1d", "avg_pool2d", "avg_pool3d",
          "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d",
          "adaptive_max_pool1d", "adaptive_max_pool2d")  # fmt: skip
ELEMENTWISE_RULES = {
    **dict.fromkeys(SHAPES, _shape),
    **dict.fromkeys(("to", "float", "double", "type", "type_as", "neg", "__neg__"), _same),
    **dict.fromkeys(("relu", "leaky_relu", "prelu", "abs", "rrelu"), _homogeneous),
    **dict.fromkeys(("dropout", "dropout1d", "dropout2d", "feature_dropout"), _dropout),
    **dict.fromkeys(("pow", "__pow__", "square"), _pow),
    **dict.fromkeys(("sqrt", "rsqrt", "reciprocal"), _root),
    **dict.fromkeys(
        ("add", "__add__", "__radd__", "__iadd__", "sub", "__sub__", "__isub__", "__rsub__"), _add
    ),
    **dict.fromkeys(
        ("mul", "__mul__", "__rmul__", "__imul__", "div", "__truediv__", "true_divide", "multiply"),
        _mul,
    ),
    **dict.fromkeys(("mean", "sum"), _mean),
    **dict.fromkeys(_POOLS, _pool),
    "view_as_complex": _complex,
    "view_as_real": _pairs,
    "pad": _pad,
    "glu": _glu,
    "masked_fill": _masked,
}
#: Rules that look at the first tensor only.
ONE_INPUT = {name for name, rule in ELEMENTWISE_RULES.items() if rule not in (_shape, _add, _mul)}
