"""Where the recorder hears of training: a few places in torch that every loop passes through.

Optimizer steps (torch's global hooks), ``backward`` (the scalar whose gradient is taken),
``zero_grad``, gradient scalers, ``AccumulationContext``, and the loss functions of
``torch.nn.functional``. Each costs about a microsecond when nothing is scheduled, sees values and
changes none, and is put back on ``close``.
"""

from __future__ import annotations

import functools
import types
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.optim.optimizer import (
    Optimizer,
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)

from thalweg.optim.accumulation import AccumulationContext

__all__ = ["Attachment", "Listener"]

# Losses of torch.nn.functional whose names do not end in "_loss".
_OTHER_LOSSES = (
    "cross_entropy",
    "binary_cross_entropy",
    "binary_cross_entropy_with_logits",
    "kl_div",
)


class Listener(Protocol):
    """What an attachment tells, in the order of a training step."""

    def after_zero_grad(self) -> None:
        """Gradients were cleared."""
        ...

    def after_scale(self, scaled: Tensor, scale: Tensor) -> None:
        """A gradient scaler multiplied a loss."""
        ...

    def after_accumulation(self, loss: Tensor) -> None:
        """Accumulated gradients were divided by the count of all; ``loss`` is the mean over it."""
        ...

    def after_backward(self, roots: Any, gradients: Any) -> None:
        """Backward ran from ``roots``."""
        ...

    def before_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> Any:
        """An optimizer is about to step; may return new (args, kwargs)."""
        ...

    def after_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        """An optimizer has stepped."""
        ...

    def scaler_step(self, optimizer: Optimizer, step: Callable[[], Any]) -> Any:
        """A gradient scaler decides whether the optimizer steps; must call ``step`` once."""
        ...

    def loss_computed(
        self, name: str, loss: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        """The loss function ``name`` returned ``loss``, for training or for evaluation."""
        ...


class Attachment:
    """Puts the wrappers in place on construction, removes them on ``close``.

    Attributes:
        scaler: the gradient scaler that stepped last, if one is in use.
    """

    def __init__(self, listener: Listener) -> None:
        self._scaler: weakref.ref[Any] | None = None
        self._replaced: list[tuple[Any, str, Any, Any]] = []
        self._losses: dict[str, Any] = {}
        self._handles = [
            register_optimizer_step_pre_hook(listener.before_step),
            register_optimizer_step_post_hook(listener.after_step),
        ]
        self._wrap_backward(listener)
        self._wrap_zero_grad(listener)
        self._wrap_scaler(listener)
        self._wrap_losses(listener)
        self._wrap_accumulation(listener)

    @property
    def scaler(self) -> Any:
        """See the class."""
        return None if self._scaler is None else self._scaler()

    def close(self) -> None:
        """Removes every hook and wrapper that is still ours."""
        for handle in self._handles:
            handle.remove()
        for owner, name, wrapper, original in reversed(self._replaced):
            # Someone who wrapped our wrapper keeps working; theirs must not be thrown away.
            if getattr(owner, name) is wrapper:
                setattr(owner, name, original)
        self._replaced.clear()

    def _replace(self, owner: Any, name: str, wrapper: Any) -> None:
        original = getattr(owner, name)
        functools.update_wrapper(wrapper, original)
        setattr(owner, name, wrapper)
        self._replaced.append((owner, name, wrapper, original))

    def _wrap_backward(self, listener: Listener) -> None:
        original = torch.autograd.backward

        def backward(tensors: Any, grad_tensors: Any = None, *args: Any, **kwargs: Any) -> None:
            original(tensors, grad_tensors, *args, **kwargs)
            listener.after_backward(tensors, grad_tensors)

        self._replace(torch.autograd, "backward", backward)

    def _wrap_zero_grad(self, listener: Listener) -> None:
        for owner in (Optimizer, torch.nn.Module):
            original = owner.zero_grad

            def zero_grad(self: Any, *args: Any, _original: Any = original, **kwargs: Any) -> None:
                _original(self, *args, **kwargs)
                listener.after_zero_grad()

            self._replace(owner, "zero_grad", zero_grad)

    def _wrap_scaler(self, listener: Listener) -> None:
        attached, scaler = self, torch.amp.GradScaler
        original_scale, original_step = scaler.scale, scaler.step

        def scale(self: Any, outputs: Any) -> Any:
            scaled = original_scale(self, outputs)
            if isinstance(scaled, Tensor) and scaled is not outputs:
                listener.after_scale(scaled, self._scale)
            return scaled

        def step(self: Any, optimizer: Optimizer, *args: Any, **kwargs: Any) -> Any:
            if not self.is_enabled():
                return original_step(self, optimizer, *args, **kwargs)
            attached._scaler = weakref.ref(self)
            return listener.scaler_step(
                optimizer, lambda: original_step(self, optimizer, *args, **kwargs)
            )

        self._replace(scaler, "scale", scale)
        self._replace(scaler, "step", step)

    def _wrap_accumulation(self, listener: Listener) -> None:
        original = AccumulationContext.__exit__

        def leave(self: AccumulationContext, kind: Any, error: Any, trace: Any) -> None:
            original(self, kind, error, trace)
            if self.loss is not None:
                listener.after_accumulation(self.loss)

        self._replace(AccumulationContext, "__exit__", leave)

    def _wrap_losses(self, listener: Listener) -> None:
        for name in dir(F):
            original = getattr(F, name)
            if not isinstance(original, types.FunctionType):
                continue
            if not name.endswith("_loss") and name not in _OTHER_LOSSES:
                continue
            self._losses[name] = original
            self._replace(F, name, _loss_wrapper(name, original, listener))

        original_script = torch.jit.script

        def script(*args: Any, **kwargs: Any) -> Any:
            # TorchScript compiles what it finds in torch.nn.functional; let it find the original.
            with self._original_losses():
                return original_script(*args, **kwargs)

        self._replace(torch.jit, "script", script)

    @contextmanager
    def _original_losses(self) -> Iterator[None]:
        wrappers = {name: getattr(F, name) for name in self._losses}
        for name, original in self._losses.items():
            setattr(F, name, original)
        try:
            yield
        finally:
            for name, wrapper in wrappers.items():
                setattr(F, name, wrapper)


def _loss_wrapper(
    name: str, original: Callable[..., Tensor], listener: Listener
) -> Callable[..., Tensor]:
    inside = False

    def loss(*args: Any, **kwargs: Any) -> Tensor:
        nonlocal inside
        if inside or torch.compiler.is_compiling():
            # Under a torch-function mode the original comes back here through its public name.
            return original(*args, **kwargs)
        inside = True
        try:
            out = original(*args, **kwargs)
        finally:
            inside = False
        listener.loss_computed(name, out, args, kwargs)
        return out

    return loss
