"""What layers ask of the scalings of units: linear maps, convolutions, embeddings, norms."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from thalweg.laws.scaling import Label, Scaling
from thalweg.laws.trace import Op

__all__ = ["LAYER_RULES", "linear_label"]


def linear_label(
    s: Scaling,
    label: Label,
    weight: str,
    bias: Any,
    *,
    in_axis: int = 1,
    channel: int = -1,
    groups: int = 1,
    rows: tuple[int, int] | None = None,
) -> Tensor:
    """(n,) the units that a linear map makes; what it reads pays with its columns.

    Args:
        s: the state.
        label: of the input.
        weight: name of the weight, with inputs along ``in_axis`` and outputs along the other of
            the first two axes.
        bias: None, a parameter, or anything else (then nothing can be scaled).
        in_axis: 0 or 1.
        channel: the axis of the input that is read.
        groups: of a convolution.
        rows: only these rows of the weight (``in_axis`` 1), as in cross-attention.
    """
    shape = s.trace.params[weight].shape
    ins = tuple((s.row(units, channel), degree) for units, degree in label)
    low, high = rows or (0, shape[1 - in_axis])
    name = s.trace.name(bias)
    if groups > 1:
        for units, _ in ins:
            s.mark_diagonal(units)

    def contribute(outs: Tensor) -> None:
        for units, degree in ins:
            if groups == 1 and rows is None:
                s.put(weight, in_axis, units, torch.arange(len(units)), -degree)
                continue
            cells = _cells(shape, groups, low, high)  # (inputs, numbers that read each)
            s.put(weight, None, units.repeat_interleave(cells.shape[1]), cells.reshape(-1), -degree)
        s.put(weight, 1 - in_axis, outs, torch.arange(low, high), 1.0)
        if name is not None:
            s.shifts.add(name)
            s.put(name, 0, outs, torch.arange(low, high), 1.0)
        elif bias is not None:
            s.classes.stop(outs)
            s.stop(s.label(bias))

    key = ("rows", weight, low, high) if rows else ("linear", weight, in_axis, groups, name)
    names = [weight] if name is None else [weight, name]
    return s.use(key, names, ins, high - low, contribute)


def _cells(shape: torch.Size, groups: int, low: int, high: int) -> Tensor:
    """(in, n) the flat indices of the numbers of a weight (out, in / groups, …) that read each."""
    number = 1
    for size in shape:
        number *= size
    flat = torch.arange(number).reshape(shape)[low:high]
    grouped = flat.reshape(groups, (high - low) // groups, shape[1], -1)
    return grouped.transpose(1, 2).reshape(groups * shape[1], -1)


def _linear(s: Scaling, op: Op) -> None:
    got = op.named("input", "weight", "bias")
    weight = s.trace.name(got["weight"])
    if weight is None:
        s.not_followed(op, "the weight of a linear map is no parameter but computed from some")
        return
    _put_linear(s, op, got["input"], weight, got["bias"], in_axis=1)


def _put_linear(s: Scaling, op: Op, x: Any, weight: str, bias: Any, *, in_axis: int) -> None:
    units = linear_label(s, s.label(x), weight, bias, in_axis=in_axis)
    s.set(op.out, ((units, 1.0),))


def _addmm(s: Scaling, op: Op) -> None:
    """``bias + x @ weight``: Hugging Face's Conv1D, with the weight transposed."""
    bias, x, weight = op.args[:3]
    name = s.trace.name(weight)
    if name is None or op.kwargs or len(op.args) > 3:
        s.not_followed(op, "addmm of something other than a parameter")
        return
    _put_linear(s, op, x, name, bias, in_axis=0)


def parameter_matmul(s: Scaling, op: Op) -> bool:
    """``x @ W`` or ``x @ W.T`` with a parameter W; whether it was one."""
    if len(op.args) < 2 or not isinstance(op.args[1], Tensor) or op.args[1].ndim != 2:
        return False
    x, weight = op.args[:2]
    name, turned = s.trace.name(weight), s.views.get(id(weight))
    if turned is not None:
        _put_linear(s, op, x, turned, None, in_axis=1)
    elif name is not None:
        _put_linear(s, op, x, name, None, in_axis=0)
    return bool(name or turned)


def _conv(s: Scaling, op: Op) -> None:
    names = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
    got = op.named(*names)
    weight = s.trace.name(got["weight"])
    if weight is None:
        s.not_followed(op, "the weight of a convolution is no parameter but computed from some")
        return
    channel = 1 if got["input"].ndim == got["weight"].ndim else 0
    units = linear_label(
        s,
        s.label(got["input"]),
        weight,
        got["bias"],
        channel=channel,
        groups=got["groups"] or 1,
    )
    s.set(op.out, ((_along(units, op.out, channel), 1.0),))


def _embedding(s: Scaling, op: Op) -> None:
    # torch.embedding takes (weight, indices), F.embedding the other way round.
    weight = next((a for a in (*op.args[:2], *op.kwargs.values()) if s.trace.name(a)), None)
    name = s.trace.name(weight)
    if name is None or weight is None:
        s.not_followed(op, "the table of an embedding is no parameter but computed from some")
        return
    width = weight.shape[1]
    padding = op.named("input", "weight", "padding_idx")["padding_idx"]
    units = s.use(
        ("embedding", name),
        [name],
        (),
        width,
        lambda outs: s.put(name, 1, outs, torch.arange(width), 1.0),
    )
    if padding is not None and bool(weight[padding].any()):
        # That row has no gradient: it does not scale with the others unless it is zero.
        s.classes.stop(units)
    s.set(op.out, ((units, 1.0),))


def _layer_norm(s: Scaling, op: Op) -> None:
    rms = op.name == "rms_norm"
    names = ("input", "normalized_shape", "weight", "eps") if rms else (
        "input", "normalized_shape", "weight", "bias", "eps")  # fmt: skip
    got = op.named(*names)
    dims = len(got["normalized_shape"])
    for units, _ in s.label(got["input"]):
        flat = units.reshape(-1, units.shape[-dims:].numel())
        _tie_all(s, flat, got["eps"] or (torch.finfo(torch.float32).eps if rms else 1e-5))
    gain, shift = got["weight"], got.get("bias")
    s.set(op.out, _gain(s, gain, shift))


def _group_norm(s: Scaling, op: Op) -> None:
    got = op.named("input", "num_groups", "weight", "bias", "eps")
    for units, _ in s.label(got["input"]):
        flat = units.reshape(units.shape[0] * got["num_groups"], -1)
        _tie_all(s, flat, got["eps"] or 1e-5)
    s.set(op.out, _along_label(_gain(s, got["weight"], got["bias"]), op.out))


def _batch_norm(s: Scaling, op: Op) -> None:
    got = op.named("input", "mean", "var", "weight", "bias", "training", "momentum",
                            "eps")  # fmt: skip
    per_sample = op.name == "instance_norm"
    if not per_sample and not got["training"]:
        s.not_followed(op, "batch norm with fixed statistics")
        s.set(op.out, _along_label(_gain(s, got["weight"], got["bias"]), op.out))
        return
    for units, _ in s.label(got["input"]):
        # A channel at all places; the units of different channels stay apart.
        flat = units.movedim(1, 0).reshape(units.shape[1], -1)
        _tie_all(s, flat, got["eps"] or 1e-5)
    s.set(op.out, _along_label(_gain(s, got["weight"], got["bias"]), op.out))


def _tie_all(s: Scaling, flat: Tensor, eps: float) -> None:
    """Normalised together: scaled together or not at all, and then seen only through ε."""
    s.classes.tie(flat, flat[:, :1].expand_as(flat))
    s.mark_diagonal(flat)
    for unit in flat.unique().tolist():
        s.eps[unit] = max(eps, s.eps.get(unit, 0.0))
    s.mark(flat, "scale")


def _gain(s: Scaling, gain: Any, shift: Any) -> Label:
    """Label of γ x̂ + β with the shape of γ."""
    if gain is None:
        return ()
    names = [s.trace.name(gain)] + ([] if shift is None else [s.trace.name(shift)])
    if None in names:
        for computed in (gain, shift):
            s.stop(s.label(computed))
        return ()
    known = [n for n in names if n is not None]
    axis = 0 if gain.ndim == 1 else None

    def contribute(outs: Tensor) -> None:
        s.shifts.update(known[1:])
        for name in known:
            s.put(name, axis, outs, torch.arange(len(outs)), 1.0)

    outs = s.use(("gain", *known), known, (), gain.numel(), contribute)
    s.mark_diagonal(outs)
    s.mark(outs, "gain")
    return ((outs.reshape(gain.shape), 1.0),)


def _along(units: Tensor, out: Tensor, channel: int) -> Tensor:
    """Units as a tensor that broadcasts along the channel axis of ``out``."""
    shape = [1] * out.ndim
    shape[channel] = len(units)
    return units.reshape(shape)


def _along_label(label: Label, out: Tensor) -> Label:
    return tuple((_along(units, out, 1), degree) for units, degree in label)


LAYER_RULES = {
    "linear": _linear,
    "addmm": _addmm,
    "conv1d": _conv,
    "conv2d": _conv,
    "conv3d": _conv,
    "embedding": _embedding,
    "layer_norm": _layer_norm,
    "rms_norm": _layer_norm,
    "group_norm": _group_norm,
    "batch_norm": _batch_norm,
    "instance_norm": _batch_norm,
}
