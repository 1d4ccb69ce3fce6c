"""Finds the models of a training by watching which modules are called, and names the parameters.

A global forward hook runs only until each optimizer has stepped once. A module called while no
other module is running is a root; the roots that own parameters of an optimizer are its models.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

__all__ = ["Discovery", "describe_model", "is_compiled", "parameter_names", "unwrapped"]

# What wrappers (torch.compile, FSDP, DDP) add to the names of the parameters that they wrap.
_COMPILE_WARNING = r"Using `torch\.compile\(module\)` when there are global hooks"
_WRAPPER = re.compile(r"(^|(?<=\.))(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")


class Discovery:
    """Watches module calls from construction until ``close``.

    Attributes:
        roots: modules called at the outermost level, in order of first call.
    """

    def __init__(self) -> None:
        self.roots: list[nn.Module] = []
        self._running: list[int] = []
        self._handles: list[Any] = []
        self._filter: Any = None
        self.open()

    def open(self) -> None:
        """Starts watching (again)."""
        if self._handles:
            return
        self._running.clear()
        # torch.compile warns of global hooks; ours leave as soon as they meet a compiled module.
        warnings.filterwarnings("ignore", message=_COMPILE_WARNING, category=UserWarning)
        self._filter = warnings.filters[0]
        self._handles = [
            register_module_forward_pre_hook(self._enter),
            register_module_forward_hook(self._leave, always_call=True),
        ]

    def close(self) -> None:
        """Stops watching."""
        for handle in self._handles:
            handle.remove()
        self._handles = []
        if self._filter in warnings.filters:
            warnings.filters.remove(self._filter)  # pyright: ignore[reportAttributeAccessIssue]

    def _enter(self, module: nn.Module, args: Any) -> None:
        if torch.compiler.is_compiling():
            return
        if not self._running and all(module is not seen for seen in self.roots):
            self.roots.append(module)
            if _is_optimized(module):
                self.close()  # before dynamo traces hooks into its graph
                return
        self._running.append(id(module))

    def _leave(self, module: nn.Module, args: Any, output: Any) -> None:
        if torch.compiler.is_compiling():
            return
        # An exception inside a forward may have left entries of modules that never returned.
        if id(module) in self._running:
            del self._running[self._running.index(id(module)) :]

    def models(self, params: Iterable[Tensor]) -> list[nn.Module]:
        """Roots that own at least one of ``params``, unwrapped, without those inside another."""
        wanted = {id(p) for p in params}
        owners = [
            unwrapped(root)
            for root in self.roots
            if any(id(p) in wanted for p in root.parameters())
        ]
        inner = {id(m) for owner in owners for m in owner.modules() if m is not owner}
        return [m for m in dict.fromkeys(owners) if id(m) not in inner]


def unwrapped(module: nn.Module) -> nn.Module:
    """The user's module inside DataParallel, DistributedDataParallel and torch.compile."""
    while True:
        if isinstance(module, nn.DataParallel | nn.parallel.DistributedDataParallel):
            module = module.module
        elif _is_optimized(module):
            module = module._orig_mod  # pyright: ignore[reportAssignmentType]
        else:
            return module


def _is_optimized(module: nn.Module) -> bool:
    """Whether it is the wrapper that ``torch.compile(module)`` returns."""
    return type(module).__name__ == "OptimizedModule" and hasattr(module, "_orig_mod")


def is_compiled(models: Sequence[nn.Module]) -> bool:
    """Whether torch.compile has compiled anything: module hooks may then never fire."""
    import sys

    if any(getattr(m, "_compiled_call_impl", None) is not None for m in models):
        return True
    # Importing torch._dynamo alone says nothing: optimizers do it. Compiled frames do.
    dynamo = sys.modules.get("torch._dynamo.utils")
    return dynamo is not None and dynamo.counters["frames"]["total"] > 0


def parameter_names(models: Sequence[nn.Module], params: Iterable[Tensor]) -> list[str]:
    """A unique name for each parameter, as its model names it.

    With several models, names are led by the class of the model; a parameter that no model owns is
    ``param<i>``.

    Example:
        >>> model = nn.Linear(2, 1)
        >>> parameter_names([model], [model.bias, torch.zeros(1)])
        ['bias', 'param1']
    """
    known: dict[int, str] = {}
    for model, label in zip(models, labels(models), strict=True):
        for name, p in model.named_parameters():
            known.setdefault(id(p), _WRAPPER.sub("", f"{label}.{name}" if label else name))
    return [known.get(id(p), f"param{i}") for i, p in enumerate(params)]


def describe_model(model: nn.Module, label: str) -> dict[str, Any]:
    """What the header says of a model."""
    params = list(model.named_parameters())
    factors = _width_factors(dict(params))
    return {
        "label": label,
        "class": type(model).__name__,
        "parameters": sum(p.numel() for _, p in params),
        "trainable": sum(p.numel() for _, p in params if p.requires_grad),
        "tensors": {n: list(p.shape) for n, p in params},
        "frozen": [n for n, p in params if not p.requires_grad],
        **({"width_factors": factors} if factors else {}),
    }


def _width_factors(params: Mapping[str, nn.Parameter]) -> dict[str, dict[str, float]]:
    """By kind of optimizer, what muP multiplies each learning rate with; empty without muP."""
    shapes = {n: getattr(p, "base_shape", None) for n, p in params.items()}
    if all(s is None for s in shapes.values()):
        return {}
    from thalweg.nn.mup import BaseShape
    from thalweg.optim.mup import Kind, mup_factor

    known = {n: s for n, s in shapes.items() if isinstance(s, BaseShape) and s.num_infinite <= 2}
    if not known:
        return {}
    kinds: tuple[Kind, ...] = ("adam", "sgd")
    return {kind: {n: mup_factor(s, kind) for n, s in known.items()} for kind in kinds}


def labels(models: Sequence[nn.Module]) -> list[str]:
    """What leads the names of each model's parts: nothing for one model, else its class."""
    if len(models) < 2:
        return [""] * len(models)
    classes = [type(m).__name__ for m in models]
    return [
        c if classes.count(c) == 1 else f"{c}{classes[:i].count(c)}" for i, c in enumerate(classes)
    ]
