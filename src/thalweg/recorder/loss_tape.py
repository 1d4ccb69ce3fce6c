"""Captures the loss of one training step so that it can be evaluated again.

For one scheduled step a torch-function mode writes down what the script computes from the model's
output to the scalar that it calls ``backward`` on: the model calls with their inputs, the loss with
its targets, any arithmetic on the way (regularisers, accumulation factors). Playing the tape back
gives loss(model(x), y) at the current weights. What cannot be written down is said, never guessed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten, tree_map
from torch.utils.weak import WeakIdKeyDictionary

from thalweg.recorder.modes import pop_mode, push_mode

__all__ = ["LossClosure", "LossTape"]


@dataclasses.dataclass(frozen=True)
class _Slot:
    """Stands for the i-th value that depends on the model, when the tape is played back."""

    index: int


@dataclasses.dataclass(frozen=True)
class _Call:
    function: Callable[..., Any]
    args: Any
    kwargs: Any
    out: tuple[int, ...]
    name: str
    shapes: tuple[list[list[int]], list[list[int]]]


@dataclasses.dataclass(frozen=True)
class LossClosure:
    """The loss of a captured step as a function of the current weights.

    Attributes:
        description: what is re-evaluated, such as ``Net -> cross_entropy``.
        models: the modules that it calls.
    """

    calls: tuple[_Call, ...]
    roots: tuple[tuple[int, Tensor | None], ...]
    description: str
    models: tuple[nn.Module, ...]

    def __call__(self) -> Tensor:
        """Evaluates the loss, 0-d, with a graph if grad mode is on.

        It runs the model in its present mode: ``thalweg.numerics.untouched`` around it leaves
        buffers and random state as they were.
        """
        values: dict[int, Any] = {}

        def fill(x: Any) -> Any:
            return values[x.index] if isinstance(x, _Slot) else x

        for call in self.calls:
            out = call.function(*tree_map(fill, call.args), **tree_map(fill, call.kwargs))
            for index, t in zip(call.out, _tensors(out), strict=True):
                values[index] = t
        terms = [values[i] if scale is None else values[i] / scale for i, scale in self.roots]
        return torch.stack([t.reshape(()) for t in terms]).sum()

    def signature(self, most: int = 32) -> list[dict[str, Any]]:
        """Name and tensor shapes (inputs, outputs) of each call after the models, in order."""
        return [
            {"call": call.name, "inputs": call.shapes[0], "outputs": call.shapes[1]}
            for call in self.calls
            if not isinstance(call.function, nn.Module)
        ][:most]

    def model_call(self) -> tuple[nn.Module, Tensor] | str:
        """The first module called and its one input, or why there is no such."""
        for call in self.calls:
            if not isinstance(call.function, nn.Module):
                continue
            given = tree_flatten((call.args, call.kwargs))[0]
            if len(given) == 1 and call.args and isinstance(given[0], Tensor):
                return call.function, given[0].detach()
            return f"{call.name} is called with {len(given)} arguments, not with one tensor"
        return "no module was called"

    @property
    def samples(self) -> int:
        """Length of the first tensor that a model is called with; 0 if there is none."""
        for call in self.calls:
            if isinstance(call.function, nn.Module):
                for x in tree_flatten((call.args, call.kwargs))[0]:
                    if isinstance(x, Tensor) and x.ndim:
                        return len(x)
        return 0

    def parts(self) -> list[LossClosure]:
        """The loss of each backward pass by itself: the micro-batches of an accumulated step."""
        return [
            dataclasses.replace(self, calls=tuple(needed_for(self.calls, {i})), roots=((i, scale),))
            for i, scale in self.roots
        ]


def needed_for(calls: Sequence[_Call], wanted: set[int]) -> list[_Call]:
    """The calls on which some values depend, in order."""
    wanted, kept = set(wanted), []
    for call in reversed(calls):
        if wanted.isdisjoint(call.out):
            continue
        kept.append(call)
        leaves = tree_flatten((call.args, call.kwargs))[0]
        wanted |= {x.index for x in leaves if isinstance(x, _Slot)}
    return kept[::-1]


class LossTape:
    """Records one step between ``open`` and ``close``.

    Args:
        models: the modules whose outputs start the tape.

    Attributes:
        closure: after ``close``, the captured loss, or None.
        why_not: if there is none, the reason.
        watched: torch functions that passed by since ``open``, for the budget.
    """

    def __init__(self, models: Sequence[nn.Module]) -> None:
        self.closure: LossClosure | None = None
        self.why_not = "no backward ran while the recorder watched"
        self._models = tuple(models)
        self._params = WeakIdKeyDictionary({p: True for m in models for p in m.parameters()})
        self._slots = WeakIdKeyDictionary()
        self._calls: list[_Call] = []
        self._roots: list[tuple[int, Tensor | None]] = []
        self._failure: str | None = None
        self._handles: list[Any] = []
        self.watched = 0
        self._depth = 0
        self._pending: Any = None
        self._count = 0
        self._mode = _Recording(self)

    def open(self) -> None:
        """Starts recording."""
        for model in self._models:
            self._handles.append(
                model.register_forward_pre_hook(self._model_called, with_kwargs=True)
            )
            self._handles.append(
                model.register_forward_hook(self._model_returned, with_kwargs=True)
            )
        push_mode(self._mode)

    def stop(self) -> None:
        """Takes the hooks and the mode away."""
        pop_mode(self._mode)
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def close(self) -> None:
        """Stops recording and makes the closure."""
        self.stop()
        if self._failure is None and self._roots:
            needed = needed_for(self._calls, {i for i, _ in self._roots})
            models = {c.name: None for c in needed if isinstance(c.function, nn.Module)}
            functions = {c.name: None for c in needed if not isinstance(c.function, nn.Module)}
            self.closure = LossClosure(
                tuple(needed),
                tuple(self._roots),
                " -> ".join([" + ".join(models), *functions]),
                self._models,
            )
        elif self._failure is not None:
            self.why_not = self._failure
        self._slots.clear()

    def backward(self, root: Any, scale: Tensor | None) -> None:
        """Notes a scalar on which backward ran, and what a gradient scaler multiplied it by."""
        if not isinstance(root, Tensor) or root.numel() != 1:
            self.fail("backward ran on something that is not a scalar")
            return
        slot = self._slots.get(root)
        if slot is None:
            self.fail("backward ran on a tensor that was not seen computed from the model's output")
            return
        self._roots.append((slot, None if scale is None else scale.detach().clone()))

    def rescale(self, factor: Tensor) -> None:
        """Gradients were divided by ``factor`` after all: so is the loss."""
        self._roots = [(i, factor if s is None else s * factor) for i, s in self._roots]

    def forget(self) -> None:
        """Gradients were cleared: what ran backward before does not count."""
        self._roots.clear()

    def called(self, func: Callable[..., Any], args: Any, kwargs: Any, out: Any) -> None:
        """A torch function ran outside the models."""
        if self._depth:
            return
        leaves = tree_flatten((args, kwargs))[0]
        if not any(isinstance(x, Tensor) and self._tracked(x) for x in leaves):
            return
        name = getattr(func, "__name__", str(func))
        if name == "__setitem__" and args[0] in self._slots:
            self.fail("the script writes into a tensor that depends on the model's output")
        tensors = _tensors(out)
        if tensors:
            self._write(func, args, kwargs, tensors, name)

    def _tracked(self, t: Tensor) -> bool:
        return t in self._slots or t in self._params

    def _model_called(self, model: nn.Module, args: Any, kwargs: Any) -> None:
        self._depth += 1
        if self._depth == 1:
            try:
                self._pending = tree_map(self._hold, (args, kwargs))
            except Exception as error:  # ours: the training must not see it
                self._pending = None
                self.fail(f"the inputs of {type(model).__name__} cannot be kept: {error!r}")

    def _model_returned(self, model: nn.Module, args: Any, kwargs: Any, out: Any) -> None:
        self._depth = max(0, self._depth - 1)
        if self._depth == 0 and self._pending is not None and torch.is_grad_enabled():
            args, kwargs = self._pending
            self._append(model, args, kwargs, _tensors(out), type(model).__name__)

    def _write(self, func: Any, args: Any, kwargs: Any, out: list[Tensor], name: str) -> None:
        inputs = [list(x.shape) for x in tree_flatten((args, kwargs))[0] if isinstance(x, Tensor)]
        held_args, held_kwargs = tree_map(self._hold, (args, kwargs))
        self._append(func, held_args, held_kwargs, out, name, inputs)

    def _append(
        self,
        func: Any,
        args: Any,
        kwargs: Any,
        out: list[Tensor],
        name: str,
        inputs: Sequence[list[int]] = (),
    ) -> None:
        indices = []
        for t in out:
            self._slots[t] = self._count
            indices.append(self._count)
            self._count += 1
        shapes = list(inputs), [list(t.shape) for t in out]
        self._calls.append(_Call(func, args, kwargs, tuple(indices), name, shapes))

    def _hold(self, x: Any) -> Any:
        """An argument as the tape keeps it: a slot, a parameter itself, or a detached constant."""
        if not isinstance(x, Tensor):
            return x
        if x in self._slots:
            return _Slot(self._slots[x])
        return x if x in self._params else x.detach().requires_grad_(x.requires_grad and x.is_leaf)

    def fail(self, why: str) -> None:
        """Notes why there will be no closure; the first reason counts."""
        self._failure = self._failure or why


class _Recording(TorchFunctionMode):
    def __init__(self, tape: LossTape) -> None:
        super().__init__()
        self._tape = tape

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        self._tape.watched += 1
        if torch.is_grad_enabled():
            try:
                self._tape.called(func, args, kwargs, out)
            except Exception as error:  # ours: the training must not see it
                self._tape.fail(
                    f"{getattr(func, '__name__', func)} cannot be written down: {error!r}"
                )
        return out


def _tensors(value: Any) -> list[Tensor]:
    """The floating tensors in a function's or model's result, in a fixed order."""
    if isinstance(value, Tensor):
        return [value] if value.is_floating_point() or value.is_complex() else []
    leaves = tree_flatten(value)[0]
    if len(leaves) == 1 and leaves[0] is value and hasattr(value, "__dict__"):
        leaves = tree_flatten(list(vars(value).values()))[0]  # an output object of the user's own
    return [
        x for x in leaves if isinstance(x, Tensor) and (x.is_floating_point() or x.is_complex())
    ]
