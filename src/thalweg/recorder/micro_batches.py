"""What each micro-batch of an accumulated step counts for: its items, its loss, an item's weight.

A loss of ``torch.nn.functional`` is a mean over its items, or their sum; the script turns it into
the scalar on which it runs backward. Their ratio says what one item, a token say, weighs in the
gradient of the step. Where that differs between micro-batches, the step follows another loss than
the mean over its items.

Watched in recorded steps only. What is kept of a loss is a number and the number of its node in the
graph, so that no graph lives longer than it would.
"""

from __future__ import annotations

import functools
import inspect
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from thalweg.recorder.plan import MICRO_BATCHES, Plan
from thalweg.recorder.scalars import Scalars
from thalweg.recorder.store import Store

__all__ = ["MicroBatches", "items_of"]

MOST = 64  # micro-batches of a step that are written down
MOST_NODES = 64  # between the scalar that backward ran on and the loss
# Their means leave out targets with ``ignore_index`` and divide by class weights.
_OF_CLASSES = ("cross_entropy", "nll_loss")


@dataclass(frozen=True)
class _Loss:
    """A loss that was computed: what it is, how many items it counts, its value, 0-d."""

    kind: tuple[Any, ...]
    items: Tensor
    value: Tensor
    mean: bool


class MicroBatches:
    """The losses of the step under way, and which of them backward ran on.

    A step of fewer than two backward passes leaves no rows; neither does one in which backward ran
    on anything but one loss each time, all of one kind: nothing can be compared there.

    Args:
        store: gives series their codes.
        scalars: take the figures.
        plan: which of them.

    Attributes:
        wanted: whether any is.
    """

    def __init__(self, store: Store, scalars: Scalars, plan: Plan) -> None:
        self._names = [name for name in MICRO_BATCHES if plan.wants(name)]
        self.wanted = bool(self._names)
        self._store, self._scalars = store, scalars
        self._computed: dict[tuple[int, str], _Loss] = {}
        self._passes: list[tuple[_Loss, Tensor]] = []
        self._comparable = True

    def computed(self, name: str, loss: Tensor, args: tuple[Any, ...], kwargs: Any) -> None:
        """A loss function was called for training."""
        if not loss.requires_grad or loss.numel() != 1 or loss.grad_fn is None:
            return
        found = items_of(name, args, kwargs)
        if found is not None:
            items, mean, kind = found
            node = loss.grad_fn
            self._computed[_key(node)] = _Loss(kind, items, loss.detach().reshape(()), mean)

    def backward(self, root: Any, scale: Tensor | None) -> None:
        """Backward ran from ``root``, which a gradient scaler had multiplied by ``scale``."""
        losses = self._losses_below(root) if isinstance(root, Tensor) else []
        if len(losses) != 1:
            self._comparable = False
            return
        value = root.detach().reshape(())
        self._passes.append((losses[0], value if scale is None else value / scale))

    def cleared(self) -> None:
        """Gradients were cleared: what ran backward before does not count."""
        self._passes.clear()
        self._comparable = True

    def forget(self) -> None:
        """A step has ended."""
        self._computed.clear()
        self.cleared()

    def write(self, step: int, time_s: float) -> None:
        """Sends the figures of a step that is about to be forgotten."""
        passes = self._passes
        alike = len({loss.kind for loss, _ in passes}) == 1
        if len(passes) < 2 or not alike or not self._comparable:
            return
        codes, values = [], []
        for i, (loss, root) in enumerate(passes[:MOST], start=1):
            weight, each = root / loss.value, loss.value
            if loss.mean:
                weight = weight / loss.items
            else:
                each = each / loss.items
            figures: dict[str, Tensor] = dict(
                zip(MICRO_BATCHES, (loss.items, each, weight), strict=True)
            )
            codes += [self._store.series(name, f"micro-batch {i}") for name in self._names]
            values += [figures[name] for name in self._names]
        self._scalars.add_many(step, time_s, codes, values)

    def _losses_below(self, root: Tensor) -> list[_Loss]:
        """The losses of which a scalar is made: the graph is searched breadth first, a little."""
        found: list[_Loss] = []
        nodes = [] if root.grad_fn is None else [root.grad_fn]
        for node in nodes:
            loss = self._computed.get(_key(node))
            if loss is not None:
                found.append(loss)
            elif len(nodes) < MOST_NODES:
                nodes += [child for child, _ in node.next_functions if child is not None]
        return found


def items_of(
    name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[Tensor, bool, tuple[Any, ...]] | None:
    """What a call of a loss of ``torch.nn.functional`` counts.

    Args:
        name: of the function.
        args: of the call.
        kwargs: of the call.

    Returns:
        The number of items (targets that are not ignored, by their class weights; else numbers in
        the target), 0-d; whether the loss is their mean, else their sum; and what two calls have
        in common that differ in the number of items alone. None for other reductions and losses.

    Example:
        >>> logits, target = torch.zeros(3, 5), torch.tensor([1, -100, 2])
        >>> items_of("cross_entropy", (logits, target), {})
        (tensor(2), True, ('cross_entropy', True, 5))
    """
    call = _signature(name).bind(*args, **kwargs)
    call.apply_defaults()
    given = call.arguments
    out, target, reduction = given.get("input"), given.get("target"), given.get("reduction")
    legacy = given.get("size_average") is not None or given.get("reduce") is not None
    if legacy or reduction not in ("mean", "sum"):
        return None
    if not isinstance(out, Tensor) or not isinstance(target, Tensor) or not out.ndim:
        return None
    mean = reduction == "mean"
    if name not in _OF_CLASSES:
        # A second task, rather than a longer sequence, has targets of another width.
        tail = target.shape[1:] if target.ndim <= 2 else target.shape[2:]
        return _number(target.numel(), out), mean, (name, mean, target.ndim, tail)
    classes = out.shape[1] if out.ndim > 1 else out.shape[0]
    kind = name, mean, classes
    if target.is_floating_point():  # a distribution for each item
        return _number(target.numel() / classes, out), mean, kind
    counted = target != given["ignore_index"]
    weight = given.get("weight")
    if weight is None:
        return counted.sum(), mean, kind
    return (weight.detach()[target.where(counted, 0)] * counted).sum(), mean, kind


@functools.cache
def _signature(name: str) -> inspect.Signature:
    return inspect.signature(getattr(F, name))


def _number(value: float, like: Tensor) -> Tensor:
    """Filled on the device, for a copy of a number to it would wait for it."""
    return torch.full((), value, dtype=torch.float64 if like.is_cpu else None, device=like.device)


def _key(node: Any) -> tuple[int, str]:
    """Tells a node of the graph from all others, also when it is gone."""
    return node._sequence_nr(), node.name()
