"""What a training step is fed from outside: the tensors and numbers that its result depends on.

Two doors let data into a step. The model is called with a batch; and between its return and
``backward`` torch functions combine its output with targets, masks, factors. A feed stands at both:
it hands every outside value to a handler, and puts what the handler returns in its place. The black
box keeps the values, a replay puts the kept ones back.

A value is from outside if it is a number, or a tensor that does not depend on the models. What a
script computes of such values alone, shuffling or one-hot codes say, passes unseen: only where they
meet the models do they count.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakIdKeyDictionary

from thalweg.recorder.modes import pop_mode, push_mode

__all__ = ["Feed", "Handler"]

#: Reading an attribute feeds nothing, and ``backward`` ends the step's computation.
_SILENT = ("__get__", "backward")


class Handler(Protocol):
    """Gets the outside values of each call; ``None`` stands for one that depends on a model."""

    def model_called(self, root: int, leaves: list[Any]) -> Sequence[Any] | None:
        """A model is called; returns what to call it with instead, or None."""
        ...

    def function_called(self, name: str, leaves: list[Any]) -> Sequence[Any] | None:
        """A torch function is called on a model's output; returns likewise."""
        ...


class Feed:
    """Watches the calls of some models, and what is computed after them, from ``open`` on.

    Args:
        roots: the models, as the script calls them.
        handler: is told.
        training: for each, whether it is in training mode when it trains; calls in the other mode,
            or without gradients, are evaluation and pass unseen.

    Attributes:
        opaque: types of model arguments that could not be looked into.
    """

    def __init__(
        self,
        roots: Sequence[nn.Module],
        handler: Handler,
        training: Sequence[bool],
        on_fault: Callable[[Exception], None] | None = None,
    ) -> None:
        self.opaque: set[str] = set()
        self._roots, self._handler, self._training = list(roots), handler, list(training)
        self._indices = {id(root): i for i, root in enumerate(self._roots)}
        self._on_fault = on_fault
        self._wrapped: list[tuple[Any, Any, Any]] = []
        self._inside: nn.Module | None = None
        self._live = self._pushed = False
        self._derived = WeakIdKeyDictionary()
        self._mode = _Window(self)

    def open(self) -> None:
        """Starts watching.

        The ``__call__`` of the models' classes is wrapped: hooks on the models themselves would go
        along when the script pickles or copies them.
        """
        for cls in {type(root) for root in self._roots}:
            own = cls.__dict__.get("__call__")
            wrapper = self._wrapping(cls.__call__)
            cls.__call__ = wrapper
            self._wrapped.append((cls, own, wrapper))

    def close(self) -> None:
        """Takes everything away."""
        for cls, own, wrapper in self._wrapped:
            if cls.__dict__.get("__call__") is wrapper:  # else someone wrapped it in turn
                if own is None:
                    del cls.__call__
                else:
                    cls.__call__ = own
        self._wrapped.clear()
        self.rest()

    def pause(self) -> None:
        """``backward`` ran: what comes now, until the next model call, feeds nothing."""
        self._live, self._inside = False, None

    def rest(self) -> None:
        """The step's computation is over: nothing is watched until the next model call."""
        self.pause()
        if self._pushed:
            pop_mode(self._mode)
            self._pushed = False
        if self._derived:
            self._derived.clear()

    def _wrapping(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def call(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
            index = self._indices.get(id(module))
            if (
                index is None
                or self._inside is not None
                or not self._wrapped
                or torch.compiler.is_compiling()
                or not torch.is_grad_enabled()
                or module.training != self._training[index]
            ):
                return original(module, *args, **kwargs)
            args, kwargs = self._enter(index, args, kwargs)
            self._inside = module
            out = original(module, *args, **kwargs)
            if self._inside is module:
                self._inside = None
                self._derive(out)
                self._live = self._pushed = True
                push_mode(self._mode)
            return out

        return call

    def _enter(self, index: int, args: Any, kwargs: Any) -> tuple[Any, Any]:
        self._live = False
        if self._pushed:
            pop_mode(self._mode)
            self._pushed = False
        leaves: list[Any] = []
        self._look(args, leaves, top=True)
        if kwargs:
            self._look(kwargs, leaves, top=True)
        instead = self._told(self._handler.model_called, index, leaves)
        if instead is None:
            return args, kwargs
        values = iter(instead)
        return _rebuilt(args, values), _rebuilt(kwargs, values)

    def _told(self, tell: Callable[..., Any], *args: Any) -> Any:
        """What the handler says; a fault of a recording's own must not reach the script."""
        if self._on_fault is None:
            return tell(*args)
        try:
            return tell(*args)
        except Exception as error:
            self._on_fault(error)
            return None

    def function(self, func: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Runs a torch function that was called in the window after a model's return."""
        if not self._live:
            return func(*args, **kwargs)
        name = getattr(func, "__name__", "")
        if name in _SILENT or not torch.is_grad_enabled():
            return func(*args, **kwargs)
        leaves: list[Any] = []
        self._look(args, leaves)
        if kwargs:
            self._look(kwargs, leaves)
        inside = sum(leaf is None for leaf in leaves)
        if not inside:
            return func(*args, **kwargs)
        if inside < len(leaves):
            instead = self._told(self._handler.function_called, name, leaves)
            if instead is not None:
                values = iter(instead)
                args, kwargs = _rebuilt(args, values), _rebuilt(kwargs, values)
        out = func(*args, **kwargs)
        self._derive(out)
        return out

    def _derive(self, value: Any) -> None:
        """Remembers results that carry no gradient but depend on a model."""
        if isinstance(value, Tensor):
            if not value.requires_grad:
                self._derived[value] = True
        elif isinstance(value, list | tuple):
            for inner in value:
                self._derive(inner)
        elif isinstance(value, Mapping):
            for inner in value.values():
                self._derive(inner)

    def _look(self, value: Any, leaves: list[Any], *, top: bool = False) -> None:
        """Appends the tensors and numbers in a value, None for those from inside."""
        kind = type(value)
        if kind is Tensor or isinstance(value, Tensor):
            inside = (
                value.requires_grad
                or kind is nn.Parameter
                or (bool(self._derived) and value in self._derived)
            )
            leaves.append(None if inside else value)
        elif value is None or kind is str:
            return
        elif isinstance(value, int | float):
            leaves.append(value)
        elif isinstance(value, list | tuple):
            for inner in value:
                self._look(inner, leaves, top=top)
        elif kind is dict or isinstance(value, Mapping):
            for inner in value.values():
                self._look(inner, leaves, top=top)
        elif top and hasattr(value, "__dict__") and kind is not type:
            self.opaque.add(kind.__name__)


class _Window(TorchFunctionMode):
    def __init__(self, feed: Feed) -> None:
        super().__init__()
        self._feed = feed

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        return self._feed.function(func, args, kwargs or {})


def _rebuilt(value: Any, instead: Iterator[Any]) -> Any:
    """The value with its leaves replaced, in the order in which ``Feed`` lists them."""
    if isinstance(value, Tensor):
        new = next(instead)
        return value if new is None else new.to(value.device)
    if isinstance(value, int | float):
        new = next(instead)
        return value if new is None else new
    if isinstance(value, list | tuple):
        items = [_rebuilt(inner, instead) for inner in value]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    if isinstance(value, Mapping):
        out: Any = copy.copy(value)
        for key, inner in value.items():
            out[key] = _rebuilt(inner, instead)
        return out
    return value
