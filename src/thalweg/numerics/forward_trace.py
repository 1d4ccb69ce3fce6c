"""What a forward pass really does: every torch function it calls, in order, with its tensors.

Who feeds whom is read from calls, not from class names, so a hand-written block and
``nn.TransformerEncoderLayer`` are seen alike. The module is copied, made float64, and run as
training runs it but for dropout: batch norms use batch statistics.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

__all__ = [
    "Op",
    "Trace",
    "as_double",
    "call",
    "double_precision",
    "outputs_of",
    "prepared",
    "trace_forward",
]


@dataclass(frozen=True)
class Op:
    """One call of a torch function.

    Attributes:
        func: the function.
        name: its name, without the underscore of in-place variants.
        args: as called.
        kwargs: as called.
        out: what it returned.
        module: dotted name of the module that called it.
        reads: nodes of its tensor arguments; a node is a tensor until it is written in place.
        writes: nodes of its tensor results.
        inplace: whether it writes into one of its arguments.
    """

    func: Callable[..., Any]
    name: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    out: Any
    module: str
    reads: tuple[int, ...]
    writes: tuple[int, ...]
    inplace: bool = False

    def named(self, *names: str) -> dict[str, Any]:
        """Arguments by name, given in the order of the signature; None where one was left out."""
        got: dict[str, Any] = dict.fromkeys(names)
        got.update(zip(names, self.args, strict=False))
        got.update({k: v for k, v in self.kwargs.items() if k in got})
        return got


@dataclass
class Trace:
    """All calls of one forward.

    Attributes:
        ops: in order.
        outputs: the tensors that it returned.
        output_nodes: their nodes.
        names: id of a parameter to its name.
        params: name to parameter, of the copy that was run.
    """

    names: dict[int, str]
    params: dict[str, nn.Parameter]
    ops: list[Op] = field(default_factory=list)
    outputs: list[Tensor] = field(default_factory=list)
    output_nodes: list[int] = field(default_factory=list)

    def name(self, value: Any) -> str | None:
        """Name of a parameter; None for anything else."""
        return self.names.get(id(value))


def prepared(module: nn.Module) -> nn.Module:
    """A float64 copy in eval mode, but for batch norms, which use batch statistics.

    Args:
        module: left as it is.
    """
    copied = copy.deepcopy(module).double().eval()
    for sub in copied.modules():
        if isinstance(sub, nn.modules.batchnorm._BatchNorm):
            sub.train()
            sub.track_running_stats = False  # batch statistics, and no trace left in buffers
    config: Any = getattr(copied, "config", None)
    if getattr(config, "use_cache", None):
        config.use_cache = False  # cached keys are returned, but no loss reads them
    return copied


def call(module: nn.Module, inputs: Any) -> Any:
    """``module`` on a tensor, a tuple of positional inputs or a dict of named ones."""
    if isinstance(inputs, dict):
        return module(**inputs)
    return module(*inputs) if isinstance(inputs, tuple) else module(inputs)


def outputs_of(out: Any) -> list[Tensor]:
    """The floating-point tensors that a loss may read.

    A mapping with ``logits`` or ``last_hidden_state`` (Hugging Face) is read through that.
    """
    for key in ("logits", "last_hidden_state"):
        if isinstance(out, dict) and isinstance(out.get(key), Tensor):
            return [out[key]]
    found = tree_leaves(dict(out) if isinstance(out, dict) else out)
    return [t for t in found if isinstance(t, Tensor) and t.is_floating_point()]


class double_precision(TorchFunctionMode):
    """Turns casts to float32 inside a forward (norms, softmax, rotary tables) into float64."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Calls ``func`` with float32 replaced."""
        func, args, kwargs = _doubled(func, args, kwargs or {})
        return func(*args, **kwargs)


def _doubled(func: Any, args: Any, kwargs: Any) -> tuple[Any, Any, Any]:
    if func is Tensor.float:
        return Tensor.double, args, kwargs
    if getattr(func, "__name__", "") in ("to", "softmax", "log_softmax", "type", "sum", "mean"):
        swap = {torch.float32: torch.float64}
        args = tuple(swap.get(a, a) if isinstance(a, torch.dtype) else a for a in args)
        if kwargs.get("dtype") is torch.float32:
            kwargs = {**kwargs, "dtype": torch.float64}
    return func, args, kwargs


class _Recorder(TorchFunctionMode):
    def __init__(self, trace: Trace, inside: list[str]) -> None:
        super().__init__()
        self.trace, self.inside = trace, inside
        self.nodes: dict[int, int] = {}
        self.count = 0

    def node(self, tensor: Tensor) -> int:
        if id(tensor) not in self.nodes:
            self.count += 1
            self.nodes[id(tensor)] = self.count
        return self.nodes[id(tensor)]

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        func, args, kwargs = _doubled(func, args, kwargs or {})
        out = func(*args, **kwargs)
        results = [t for t in tree_leaves(out) if isinstance(t, Tensor)]
        name = getattr(func, "__name__", str(func))
        if not results and name != "__setitem__":
            return out
        inputs = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        reads = tuple(self.node(t) for t in inputs)
        if name == "__setitem__":
            results = [args[0]]
        writes = []
        inplace = any(t is a for t in results for a in inputs)
        for tensor in results:
            self.nodes.pop(id(tensor), None)  # written in place: a new node
            writes.append(self.node(tensor))
        plain = name if name.startswith("__") else name.rstrip("_")
        where = self.inside[-1] if self.inside else ""
        op = Op(func, plain, args, kwargs, out, where, reads, tuple(writes), inplace)
        self.trace.ops.append(op)
        return out


@contextmanager
def watched(module: nn.Module, inside: list[str]) -> Iterator[None]:
    """Keeps the dotted name of the running module at the end of ``inside``."""

    def enter(name: str) -> Callable[..., None]:
        return lambda *_: inside.append(name)

    def leave(*_: Any) -> None:
        inside.pop()

    handles: list[Any] = []
    for name, sub in module.named_modules():
        handles.append(sub.register_forward_pre_hook(enter(name)))
        handles.append(sub.register_forward_hook(leave, always_call=True))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def trace_forward(module: nn.Module, inputs: Any) -> Trace:
    """Runs a prepared module once and records what it does.

    Args:
        module: from ``prepared``.
        inputs: a tensor, tuple or dict.

    Returns:
        The trace of what the outputs depend on.
    """
    params = dict(module.named_parameters())
    trace = Trace({id(p): n for n, p in params.items()}, params)
    inside: list[str] = []
    recorder = _Recorder(trace, inside)
    # With gradients on, or nn.TransformerEncoderLayer takes its fused path.
    with watched(module, inside), torch.enable_grad(), recorder:
        out = call(module, inputs)
    trace.outputs = outputs_of(out)
    trace.output_nodes = [recorder.node(t) for t in trace.outputs]
    trace.ops = _needed(trace)
    return trace


def _needed(trace: Trace) -> list[Op]:
    """The calls that the outputs depend on; in-place ones too, which may write through a view."""
    wanted, kept = set(trace.output_nodes), []
    for op in reversed(trace.ops):
        if op.inplace or wanted.intersection(op.writes):
            wanted.update(op.reads)
            kept.append(op)
    return kept[::-1]


def as_double(inputs: Any) -> Any:
    """Floating-point tensors of the inputs in float64."""

    def one(value: Any) -> Any:
        real = isinstance(value, Tensor) and value.is_floating_point()
        return value.detach().double() if real else value

    return tree_map(one, inputs)
