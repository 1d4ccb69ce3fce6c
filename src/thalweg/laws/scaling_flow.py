"""Follows a trace from input to output and applies the rule of each operation to its labels."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from thalweg.laws.scaling import Scaling, inputs_of, is_real
from thalweg.laws.scaling_attention import ATTENTION_RULES, SCORE_PASSES
from thalweg.laws.scaling_elementwise import (
    ELEMENTWISE_RULES,
    NONLINEAR,
    ONE_INPUT,
    SHAPES,
    note_transpose,
)
from thalweg.laws.scaling_layers import LAYER_RULES
from thalweg.laws.trace import Op, Trace

__all__ = ["follow"]

_RULES: dict[str, Callable[[Scaling, Op], None]] = {
    **ELEMENTWISE_RULES,
    **LAYER_RULES,
    **ATTENTION_RULES,
}
#: Rules that say themselves which units they use as keys and which as anything else.
_OWN_BOOKS = {*ATTENTION_RULES} - {"softmax"}
#: Operations that return something about tensors, not made of their numbers.
_SILENT = {"zeros_like", "ones_like", "empty_like", "full_like", "new_zeros", "new_ones",
           "new_tensor", "new_full", "new_empty", "randn_like", "rand_like", "argmax", "eq", "ne",
           "lt", "gt", "le", "ge", "__eq__", "__ne__", "__lt__", "__gt__", "isnan", "tensor",
           "requires_grad_", "requires_grad", "retain_grad", "_assert_async"}  # fmt: skip


def follow(trace: Trace) -> Scaling:
    """What the whole forward asks of the scalings of units.

    Args:
        trace: of a forward.

    Returns:
        The final state: classes of units, and which slices of parameters scale with them.
    """
    state = Scaling(trace)
    for op in trace.ops:
        if op.name in _SILENT:
            continue
        inputs = inputs_of(op)
        _books(state, op, inputs)
        if note_transpose(state, op):
            continue
        labels = [state.label(t) for t in inputs if _counts(state, op, t)]
        if op.name != "embedding" and not any(labels) and not _layer(op):
            state.labels.pop(id(op.out), None)
            continue
        rule = _RULES.get(op.name)
        if rule is not None:
            state_before = state.labels.pop(id(op.out), None)
            if state_before is not None and any(op.out is t for t in inputs):
                state.labels[id(op.out)] = state_before  # in place: it is read first
            rule(state, op)
            if op.name in ONE_INPUT:
                # Slopes of a PReLU, a learnt mask: nothing is claimed of them.
                for other in inputs[1:]:
                    state.stop(state.label(other))
        elif op.name in NONLINEAR:
            state.not_followed(op, "")
            state.labels.pop(id(op.out), None)
        else:
            what = "an in-place write" if op.name == "__setitem__" else f"operation {op.name!r}"
            state.not_followed(op, f"{what} is not known, so nothing is claimed across it")
            state.labels.pop(id(op.out), None)
    state.finish()
    return state


def _layer(op: Op) -> bool:
    """Whether the operation makes units even if its input has none."""
    return op.name in LAYER_RULES or op.name in ATTENTION_RULES


def _counts(state: Scaling, op: Op, value: Tensor) -> bool:
    """Whether to look up the label: a weight of a layer is not used number by number."""
    if not is_real(value):
        return False
    if _layer(op):
        return id(value) in state.labels
    return True


def _books(state: Scaling, op: Op, inputs: list[Tensor]) -> None:
    """Notes units used as anything but attention keys."""
    if op.name in SHAPES or op.name in ("to", "contiguous"):
        return
    for value in inputs:
        scores = state.pending.get(id(value))
        if scores is None:
            continue
        if op.name in SCORE_PASSES and not any(
            state.labels.get(id(t)) for t in inputs if t is not value
        ):
            state.pending[id(op.out)] = scores
        elif op.name != "softmax":
            state.other_units.update(scores.unique().tolist())
    if op.name not in _OWN_BOOKS:
        for value in inputs:
            for units, _ in state.labels.get(id(value), ()):
                state.other_units.update(units.unique().tolist())
