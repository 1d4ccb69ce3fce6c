"""Looks at every tensor of a step that is run again: norms by layer, and the first bad one.

A replay has time: hooks sit on every module, a torch-function mode sees every operation, and each
result has a hook for its gradient. What is *first* is first in the order of computation: the batch,
the forward pass, the loss, the backward pass, the gradients, the weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import Optimizer
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten
from torch.utils.weak import WeakIdKeyDictionary

from thalweg.instruments import activation_rms
from thalweg.recorder.discovery import labels, parameter_names
from thalweg.recorder.modes import pop_mode, push_mode

__all__ = ["Bad", "Moment", "Walk"]

#: These write infinities on purpose: attention masks.
_MASKS = (
    "full", "full_like", "new_full", "masked_fill", "masked_fill_", "fill_", "where", "tensor",
    "__setitem__", "as_tensor", "zeros_like", "empty", "empty_like",
)  # fmt: skip


@dataclass(frozen=True)
class Bad:
    """The first tensor that is not finite.

    Attributes:
        step: in which it arose.
        phase: ``input``, ``forward``, ``loss``, ``backward``, ``gradient`` or ``weight``.
        where: module or parameter.
        what: the operation or tensor, in words.
        nan: how many of its values are nan.
        inf: how many are infinite.
        numel: of how many.
    """

    step: int
    phase: str
    where: str
    what: str
    nan: int
    inf: int
    numel: int


@dataclass
class Moment:
    """One step that was run again.

    Attributes:
        step: its number.
        losses: on which ``backward`` ran.
        activation_rms: of the output of each layer, in the order of the forward pass.
        grad_norm: of each parameter, as the optimizer used it.
        update_norm: of each parameter.
        weight_norm: of each parameter, after the step.
    """

    step: int
    losses: list[float] = field(default_factory=list)
    activation_rms: dict[str, float] = field(default_factory=dict)
    grad_norm: dict[str, float] = field(default_factory=dict)
    update_norm: dict[str, float] = field(default_factory=dict)
    weight_norm: dict[str, float] = field(default_factory=dict)


class Walk:
    """Watches steps between ``open`` and ``close``.

    Args:
        models: whose modules and parameters.
        optimizers: whose steps.

    Attributes:
        moments: the steps seen.
        bad: the first tensor that was not finite, None while there is none.
    """

    def __init__(self, models: Sequence[nn.Module], optimizers: Sequence[Optimizer]) -> None:
        self.moments: list[Moment] = []
        self.bad: Bad | None = None
        self._modules = [
            (f"{label}.{name}" if label and name else label or name, module)
            for model, label in zip(models, labels(models), strict=True)
            for name, module in model.named_modules()
        ]
        self._params = [[p for g in o.param_groups for p in g["params"]] for o in optimizers]
        self._names = [parameter_names(models, params) for params in self._params]
        self._before: list[Tensor] = []
        self._path: list[str] = []
        self._handles: list[Any] = []
        self._readers = WeakIdKeyDictionary()
        self._mode = _Operations(self)
        self._open = False
        self._computing = False  # between a model's call and backward: clipping comes after

    def open(self) -> None:
        """Puts hooks and mode in place."""
        self._open = True
        for name, module in self._modules:
            leaf = next(module.children(), None) is None
            self._handles += [
                module.register_forward_pre_hook(lambda m, a, n=name: self._module_called(n)),
                module.register_forward_hook(
                    lambda m, a, out, n=name, leaf=leaf: self._module_returned(n, m, out, leaf),
                ),
            ]
        push_mode(self._mode)
        self._check_weights()

    def close(self) -> None:
        """Takes them away."""
        if not self._open:
            return
        self._open = False
        pop_mode(self._mode)
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    # -- the course of a step ------------------------------------------------------------------

    def begin(self, step: int) -> None:
        """A step begins, or the next optimizer's part of it."""
        if not self.moments or self.moments[-1].step != step:
            self.moments.append(Moment(step))
        self._path.clear()

    def fed(self, what: str, values: Sequence[Any]) -> None:
        """Values from outside go into the step."""
        if not self.moments:
            return
        for value in values:
            if isinstance(value, Tensor):
                # A mask may hold infinities; data and targets may not.
                masks = value.isinf().any() and not (value == float("inf")).any()
                if not (masks and not value.isnan().any()):
                    self._check(value, "input", "", what)

    def backward(self, root: Any, loss: float | None) -> None:
        """Backward has run from ``root``."""
        self._computing = False
        if not self.moments:
            return
        if loss is not None:
            self.moments[-1].losses.append(loss)
        for params, names in zip(self._params, self._names, strict=True):
            for p, name in zip(params, names, strict=True):
                if p.grad is not None:
                    self._check(p.grad, "gradient", name, "its gradient")

    def before_step(self, index: int) -> None:
        """An optimizer is about to step."""
        if self.moments:
            self._before = [p.detach().clone() for p in self._params[index]]
            for name, p in zip(self._names[index], self._params[index], strict=True):
                if p.grad is not None:
                    self.moments[-1].grad_norm[name] = _norm(p.grad)

    def after_step(self, index: int) -> None:
        """It has."""
        if not self.moments:
            return
        moment, before = self.moments[-1], self._before
        for i, (name, p) in enumerate(zip(self._names[index], self._params[index], strict=True)):
            moment.weight_norm[name] = _norm(p)
            if i < len(before):
                moment.update_norm[name] = _norm(p.detach() - before[i])
        self._before = []
        self._check_weights()

    # -- what hooks tell -----------------------------------------------------------------------

    def _module_called(self, name: str) -> None:
        self._path.append(name)
        self._computing = True

    def _module_returned(self, name: str, module: nn.Module, out: Any, leaf: bool) -> None:
        if name in self._path:
            del self._path[self._path.index(name) :]
        if not leaf or not isinstance(out, Tensor) or not out.is_floating_point():
            return
        if not torch.is_grad_enabled() or not self.moments:
            return
        moment = self.moments[-1]
        self._computing = False  # what is computed here is ours
        if name not in moment.activation_rms:
            moment.activation_rms[name] = float(activation_rms(out.detach().double()))
        self._computing = True
        self._check(out, "forward", name, f"the output of {type(module).__name__}")

    def operation(self, name: str, args: Any, kwargs: Any, out: Any) -> None:
        """A torch function has run, in the model or on its output."""
        if not self._computing or not self.moments or not torch.is_grad_enabled():
            return
        if name == "backward":
            return
        inputs = [x for x in tree_flatten((args, kwargs))[0] if isinstance(x, Tensor)]
        where = self._path[-1] if self._path else ""
        for x in inputs:
            if x in self._readers:
                self._readers[x].append(_called(where, name))
        for t in tree_flatten(out)[0]:
            if not isinstance(t, Tensor) or not t.is_floating_point():
                continue
            if self.bad is None and not t.detach().isfinite().all():
                finite = all(x.detach().isfinite().all() for x in inputs if x.is_floating_point())
                new_nan = t.detach().isnan().any() and not any(
                    x.detach().isnan().any() for x in inputs if x.is_floating_point()
                )
                if new_nan or (finite and name not in _MASKS):
                    self._check(t, "forward", where, f"the result of {name}")
            if t.requires_grad and t not in self._readers:
                readers: list[str] = []
                self._readers[t] = readers
                t.register_hook(partial(self._gradient, _called(where, name), readers))

    def _gradient(self, label: str, readers: list[str], gradient: Tensor) -> None:
        through = f" through {', '.join(dict.fromkeys(readers))}" if readers else ""
        self._check(gradient, "backward", label, f"the gradient that comes back{through}")

    def _check_weights(self) -> None:
        for params, names in zip(self._params, self._names, strict=True):
            for p, name in zip(params, names, strict=True):
                self._check(p, "weight", name, "the weight after the step")

    def _check(self, t: Tensor, phase: str, where: str, what: str) -> None:
        if self.bad is not None or not (t.is_floating_point() or t.is_complex()):
            return
        t = t.detach()
        if bool(t.isfinite().all()):
            return
        step = self.moments[-1].step if self.moments else 0
        nan, inf = int(t.isnan().sum()), int(t.isinf().sum())
        self.bad = Bad(step, phase, where, what, nan, inf, t.numel())


class _Operations(TorchFunctionMode):
    def __init__(self, walk: Walk) -> None:
        super().__init__()
        self._walk = walk

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        name = getattr(func, "__name__", str(func))
        if name != "__get__":
            self._walk.operation(name, args, kwargs or {}, out)
        return out


def _norm(t: Tensor) -> float:
    """In double precision: the norm of what is finite is finite."""
    t = t.detach()
    dtype = torch.complex128 if t.is_complex() else torch.float64
    return float(torch.linalg.vector_norm(t, dtype=dtype))


def _called(where: str, name: str) -> str:
    return f"{where}: {name}" if where else name
