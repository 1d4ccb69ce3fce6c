"""Costly instruments inside a recording: those that evaluate the loss of a captured step again.

A probe runs between two steps, on the batch of the step that has just ended and at the weights that
it left behind. Which arguments an instrument gets follows from what it says it needs.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from thalweg.instruments import HessianDensity, Reading, stability_threshold
from thalweg.numerics import untouched
from thalweg.recorder.at_inputs import at_inputs
from thalweg.recorder.loss_tape import LossClosure
from thalweg.recorder.tracked import Tracked

__all__ = ["Probes"]

Loss = Callable[[], Tensor]
NAN = float("nan")
VECTORS = 32  # of the length of all parameters: what Lanczos may come to hold
DENSITY_PARTS = 64  # points of a density that become rows
SHARE = 0.25  # of the free memory that they may take


class Probes:
    """Runs costly instruments on a captured loss.

    Args:
        functions: instrument to the function that measures it.
        seed: of the random starts; every run of a probe draws its own.
    """

    def __init__(self, functions: dict[str, Callable[..., Any]], *, seed: int = 0) -> None:
        self._functions = functions
        self._generator = torch.Generator().manual_seed(seed)
        self._guess: dict[str, Tensor | None] = {}

    def wants_update(self, name: str) -> bool:
        """Whether an instrument needs the update of the step."""
        return "update" in self._functions[name].needs  # pyright: ignore[reportFunctionMemberAccess]

    def wants_loss(self, name: str) -> bool:
        """Whether an instrument evaluates the loss again."""
        needs = self._functions[name].needs  # pyright: ignore[reportFunctionMemberAccess]
        return bool({"closure", "micro_batches", "inputs"} & set(needs))

    def run(
        self, name: str, closure: Loss | None, tracked: Tracked
    ) -> Iterator[tuple[str, str, Reading]]:
        """Measures one instrument: instrument, part and reading of each figure.

        Args:
            name: the instrument.
            closure: the loss of the step that has ended; not needed for the weights alone.
            tracked: its optimizer.
        """
        function = self._functions[name]
        needs = function.needs  # pyright: ignore[reportFunctionMemberAccess]
        params = [p for p in tracked.params if p.requires_grad]
        if needs == ("params",):
            measured = function(tracked.params)
            yield name, tracked.label, Reading(float(measured.total))
            for part, value in zip(tracked.names, measured.each.tolist(), strict=True):
                if value == value:  # a vector has none
                    yield name, part, Reading(value)
            return
        assert closure is not None
        if "closure" in needs and not _fits(params):
            yield name, "", Reading(NAN, NAN, "skipped:memory")
        elif needs == ("inputs",):
            yield from at_inputs(name, function, closure)
        elif name == "hessian_density":
            yield from _density(function(closure, params, generator=self._generator))
        elif name == "sharpness":
            yield from self._sharpness(function, closure, tracked, params)
        elif needs == ("closure",):
            yield name, "", function(closure, params, generator=self._generator)
        elif needs == ("closure", "update"):
            yield name, "", self._along_update(function, closure, tracked)
        elif needs == ("micro_batches",):
            yield name, "", _over_micro_batches(function, closure, params)

    def _sharpness(
        self,
        function: Callable[..., Any],
        closure: Loss,
        tracked: Tracked,
        params: Sequence[Tensor],
    ) -> Iterator[tuple[str, str, Reading]]:
        """λ_max, beside the threshold of the optimizer; preconditioned where the optimizer is."""
        limit = stability_threshold(tracked.optimizer)
        yield "stability_threshold", "", Reading(limit.threshold, NAN, limit.status)
        wanted: list[tuple[str, Sequence[Tensor] | None]] = [("", None)]
        if limit.preconditioner is not None:
            pairs = zip(tracked.params, limit.preconditioner, strict=True)
            wanted.append(("preconditioned", [d for p, d in pairs if p.requires_grad]))
        for part, preconditioner in wanted:
            reading = function(
                closure,
                params,
                preconditioner=preconditioner,
                v0=self._guess.get(part),
                generator=self._generator,
            )
            self._guess[part] = reading.vector
            yield "sharpness", part, reading

    def _along_update(
        self, function: Callable[..., Any], closure: Loss, tracked: Tracked
    ) -> Reading:
        """At the weights before the step, where its update was to lower the loss."""
        update = tracked.update
        if update is None:
            return Reading(NAN, NAN, "unsupported:the update of this step was not kept")
        lr = float(tracked.optimizer.param_groups[0].get("lr", 1.0))
        after = [p.data for p in tracked.params]
        try:
            for p, now, moved in zip(tracked.params, after, update, strict=True):
                p.data = now - moved.view_as(now)
            return function(closure, tracked.params, update, lr=lr)
        finally:
            for p, now in zip(tracked.params, after, strict=True):
                p.data = now
            tracked.update = None


def _density(found: HessianDensity) -> Iterator[tuple[str, str, Reading]]:
    """Where the eigenvalues lie, ``eigenvalue[i]``, and how densely, ``density[i]``."""
    name, density = "hessian_density", found.density
    if density is None:
        yield name, "", Reading(NAN, NAN, found.status)
        return
    chosen = torch.linspace(0, len(density.grid) - 1, DENSITY_PARTS).round().long()
    for i, at in enumerate(chosen.tolist()):
        yield name, f"eigenvalue[{i}]", Reading(float(density.grid[at]))
        value, error = float(density.values[at]), float(density.stderr[at])
        yield name, f"density[{i}]", Reading(value, error)


def _over_micro_batches(
    function: Callable[..., Any], closure: Loss, params: Sequence[Tensor]
) -> Reading:
    """Gradients of the micro-batches that the step accumulated."""
    parts = closure.parts() if isinstance(closure, LossClosure) else []
    if len(parts) < 3:
        why = f"the step has {len(parts)} micro-batches; 3 or more are needed"
        return Reading(NAN, NAN, f"unsupported:{why}")
    sizes = [part.samples for part in parts]
    if len(set(sizes)) > 1:
        return Reading(NAN, NAN, "unsupported:micro-batches of different sizes")
    grads = []
    for part in parts:
        with untouched(params):
            found = torch.autograd.grad(part(), params, allow_unused=True, materialize_grads=True)
        grads.append([len(parts) * g for g in found])  # a part is its share of the mean
    return function(grads, sizes)


def _fits(params: Sequence[Tensor]) -> bool:
    needed = VECTORS * sum(p.numel() * p.element_size() for p in params)
    return needed <= SHARE * _free_memory(params[0].device)


def _free_memory(device: torch.device) -> float:
    if device.type == "cuda":
        return float(torch.cuda.mem_get_info(device)[0])
    try:
        return float(os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (ValueError, OSError):
        return float("inf")
