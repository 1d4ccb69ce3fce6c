"""A loss that compares every prediction with every target: (B, 1) against (B,) becomes (B, B).

Nothing fails, the loss is finite and even falls: to the variance of the targets, which is what the
best constant prediction reaches.
"""

from __future__ import annotations

from itertools import zip_longest
from typing import Any

import numpy as np

from thalweg.doctor.diagnosis import Diagnosis, Evidence
from thalweg.doctor.readings import finite, spread, training_loss
from thalweg.recorder.run import Run

__all__ = ["broadcast_loss"]

# Losses that compare element by element; their two first inputs must be of one shape.
_ELEMENTWISE = {
    "mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss", "soft_margin_loss",
    "gaussian_nll_loss", "poisson_nll_loss", "kl_div",
}  # fmt: skip
# Arithmetic with which scripts write losses of their own. Broadcasting is ordinary here: only a
# column against a row of the same length, and of another rank, is taken for an accident.
_ARITHMETIC = {"sub", "subtract", "rsub", "__sub__", "__rsub__"}


def broadcast_loss(run: Run) -> list[Diagnosis]:
    """Finds a loss whose prediction and target are of different shapes."""
    for call in run.header.get("loss_calls") or []:
        inputs = [tuple(shape) for shape in call.get("inputs") or []][:2]
        if len(inputs) < 2 or inputs[0] == inputs[1]:
            continue
        mutual = _mutual(*inputs)
        if call.get("call") in _ELEMENTWISE and inputs[1] != ():
            return [_diagnosis(run, call, inputs, "problem" if mutual else "warning")]
        if call.get("call") in _ARITHMETIC and mutual and _column_and_row(*inputs):
            return [_diagnosis(run, call, inputs, "problem")]
    return []


def _broadcast(a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(max(m, n) for m, n in zip_longest(a[::-1], b[::-1], fillvalue=1))[::-1]


def _mutual(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
    """Whether each of the two is stretched by the other."""
    size = np.prod(_broadcast(a, b), dtype=float)
    return size > np.prod(a, dtype=float) and size > np.prod(b, dtype=float)


def _column_and_row(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
    return len(a) != len(b) and [n for n in a if n > 1] == [n for n in b if n > 1]


def _diagnosis(
    run: Run, call: dict[str, Any], inputs: list[tuple[int, ...]], severity
) -> Diagnosis:
    a, b = inputs
    name = call["call"]
    evidence = [
        Evidence(f"{name} gets {a} and {b}; together they stretch to {_broadcast(a, b)}", (2,))
    ]
    steps, loss = finite(training_loss(run))
    if len(loss) >= 30:
        tail = loss[-max(8, len(loss) // 4) :]
        text = f"the loss ends at {np.median(tail):.3g} ± {spread(tail):.1g} a batch"
        evidence.append(
            Evidence(text, (int(steps[-1]),), float(np.median(tail)), spread(tail), ("loss", ""))
        )
    return Diagnosis(
        "broadcast_loss",
        severity,
        f"prediction and target have different shapes, {a} and {b}: every prediction is compared "
        "with every target",
        tuple(evidence),
        None,
        "torch broadcasting semantics: sizes are aligned from the last axis",
        "Give both one shape: `loss_fn(prediction.squeeze(-1), target)` or "
        "`loss_fn(prediction, target.unsqueeze(-1))`",
        False,
    )
