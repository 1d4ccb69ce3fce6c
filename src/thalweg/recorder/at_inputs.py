"""Instruments of a model and its inputs inside a recording: Jacobians and their kernel.

The inputs are the first of the batch with which the captured step called the model, or of the fixed
probe batch. The model is in eval mode meanwhile, so that samples don't mix and nothing is random.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from thalweg.instruments import Reading
from thalweg.recorder.loss_tape import LossClosure

__all__ = ["FixedLoss", "at_inputs"]

NAN = float("nan")
SAMPLES = 32  # inputs measured
MOST_OUTPUTS = 64  # of one input: each costs a backward pass
MOST_PARTS = 64  # entries of a vector that become rows


@dataclass(frozen=True)
class FixedLoss:
    """A loss on a batch that stays the same: ``loss_fn(model, batch)``."""

    loss_fn: Callable[[nn.Module, Any], Tensor]
    model: nn.Module
    batch: Any

    def __call__(self) -> Tensor:
        """The loss at the present weights, 0-d."""
        return self.loss_fn(self.model, self.batch)

    def model_call(self) -> tuple[nn.Module, Tensor] | str:
        """The model and its inputs, taken to be the batch or its first entry; or why not."""
        first = self.batch
        if isinstance(first, Sequence) and first:
            first = first[0]
        if isinstance(first, Tensor):
            return self.model, first
        return f"the probe is neither a tensor nor (inputs, …), but {type(self.batch).__name__}"


def at_inputs(
    name: str, function: Callable[..., Any], closure: Callable[[], Tensor]
) -> Iterator[tuple[str, str, Reading]]:
    """Measures one instrument of ``(model, x)``: instrument, part and reading of each figure."""
    call = "the loss says nothing of its inputs"
    if isinstance(closure, LossClosure | FixedLoss):
        call = closure.model_call()
    if isinstance(call, str):
        yield name, "", Reading(NAN, NAN, f"unsupported:{call}")
        return
    model, x = call
    with _evaluating(model):
        try:
            with torch.no_grad():
                out = model(x[:1])
            if not isinstance(out, Tensor) or out.numel() > MOST_OUTPUTS:
                many = f"{out.numel()} numbers" if isinstance(out, Tensor) else "no tensor"
                why = f"unsupported:one input gives {many}; at most {MOST_OUTPUTS} can be measured"
                yield name, "", Reading(NAN, NAN, why)
                return
            result = function(model, x[:SAMPLES])
        except ValueError as error:  # what the instrument says of its inputs
            yield name, "", Reading(NAN, NAN, f"unsupported:{error}")
            return
    if isinstance(result, Reading):
        yield name, "", result
        return
    for part in ("smallest", "largest", "rms_defect"):
        yield name, part, _mean(getattr(result, part))
    for i, value in enumerate(result.singular_values.T[:MOST_PARTS]):
        yield name, f"singular_values[{i}]", _mean(value)


def _mean(values: Tensor) -> Reading:
    """Mean over inputs, with its standard error."""
    v = values.double()
    error = float(v.std()) / len(v) ** 0.5 if len(v) > 1 else NAN
    return Reading(float(v.mean()), error)


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    modes = [(m, m.training) for m in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
