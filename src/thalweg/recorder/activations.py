"""Captures activation statistics of one step through temporary module hooks.

Hooks sit on the modules for the duration of one scheduled step and are gone the next. Activation
functions called as functions (``F.relu``, ``h.relu()``) are seen by a torch-function mode that is
active for the same step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

import thalweg.instruments
from thalweg.instruments import activation_rms, dormant_fraction
from thalweg.recorder.discovery import labels
from thalweg.recorder.modes import pop_mode, push_mode

__all__ = ["ActivationCapture"]

# Those whose units can die: near zero, or flat, on one side. For tanh and sigmoid dormancy says
# nothing.
_MODULES = (
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.ELU, nn.CELU, nn.SELU, nn.GELU, nn.SiLU,
    nn.Mish, nn.Softplus, nn.Hardswish,
)  # fmt: skip
_NAMES = (
    "relu", "relu_", "relu6", "leaky_relu", "leaky_relu_", "prelu", "elu", "celu", "selu", "gelu",
    "silu", "mish", "softplus", "hardswish",
)  # fmt: skip
# What a hooked module call and a call under the mode cost beyond what is timed inside (seen on a
# 2 GHz core): Python's way in and out.
HOOK_S, CALL_S = 5e-6, 2e-6
ROWS = 512  # samples or positions of which ranks are taken
_FUNCTIONS = {
    function: name
    for name in _NAMES
    for owner in (F, torch, Tensor)
    if (function := getattr(owner, name, None)) is not None
}
_CONVOLUTIONS = (
    nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d,
)  # fmt: skip


class ActivationCapture:
    """Watches the first training forward of each module between ``open`` and ``close``.

    Args:
        models: whose leaf modules are watched.
        series: instrument and part to the code of their series.
        rms: whether root mean squares are wanted.
        dormant: whether dormant fractions are wanted.
        ranks: ranks of the features that are wanted, by name.

    Attributes:
        codes: of the statistics captured since ``open``.
        values: the statistics, 0-d tensors, not yet on the host.
        fired: modules whose hooks ran since ``open``.
        seconds: what watching cost inside the step, for the budget.
        failure: a fault of ours since ``open``: hooks run inside the training and must not raise.
    """

    def __init__(
        self,
        models: Sequence[nn.Module],
        series: Callable[[str, str], int],
        *,
        rms: bool = True,
        dormant: bool = True,
        ranks: Sequence[str] = (),
    ) -> None:
        self._series = series
        self._rms, self._dormant = rms, dormant
        self._ranks = [(name, getattr(thalweg.instruments, name)) for name in ranks]
        self._modules = [
            (f"{label}.{name}" if label and name else label or name, module)
            for model, label in zip(models, labels(models), strict=True)
            for name, module in model.named_modules()
        ]
        self._activations = {name for name, m in self._modules if isinstance(m, _MODULES)}
        self._handles: list[Any] = []
        self._path: list[str] = []
        self._visits: dict[str, int] = {}
        self._unit_dim = -1
        self._seen: set[str] = set()
        self._mode = _Functions(self)
        self.codes: list[int] = []
        self.values: list[Tensor] = []
        self.fired = 0
        self.seconds = 0.0
        self.failure: Exception | None = None

    def open(self) -> None:
        """Registers the hooks for one step."""
        self.codes, self.values = [], []
        self.fired, self.seconds, self.failure = 0, 0.0, None
        self._seen.clear()
        self._path.clear()
        self._visits.clear()
        for name, module in self._modules:
            leaf = next(module.children(), None) is None
            self._handles.append(
                module.register_forward_pre_hook(lambda m, args, n=name: self._enter(n))
            )
            hook = self._leaf_done if leaf else self._done
            self._handles.append(
                module.register_forward_hook(
                    lambda m, args, out, n=name, h=hook: h(n, m, out), always_call=not leaf
                )
            )
        if self._dormant or self._ranks:
            push_mode(self._mode)

    def close(self) -> None:
        """Removes the hooks."""
        pop_mode(self._mode)
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def _enter(self, name: str) -> None:
        self._path.append(name)
        self._visits[name] = self._visits.get(name, 0) + 1

    def _done(self, name: str, module: nn.Module, output: Any) -> None:
        self.fired += 1
        self.seconds += HOOK_S
        if name in self._path:
            del self._path[self._path.index(name) :]

    def _leaf_done(self, name: str, module: nn.Module, output: Any) -> None:
        self._done(name, module, output)
        if not isinstance(output, Tensor) or not torch.is_grad_enabled():
            return
        if isinstance(module, _CONVOLUTIONS):
            self._unit_dim = 1
        elif isinstance(module, nn.Linear):
            self._unit_dim = -1
        if self._rms and output.is_floating_point():
            self._keep("activation_rms", name, lambda: activation_rms(output))
        if isinstance(module, _MODULES):
            self._keep_units(name, output)

    def function_called(self, name: str, output: Any) -> None:
        """An activation function was called as a function inside the module now running."""
        if not self._path or not isinstance(output, Tensor) or not torch.is_grad_enabled():
            return
        inside = self._path[-1]
        if inside in self._activations:  # nn.ReLU calls F.relu: its own hook has it
            return
        if self._visits.get(inside, 0) > 1:  # the next micro-batch, or a module used twice
            return
        part = f"{inside}.{name}" if inside else name
        count = 0
        # A module that calls relu twice has two layers of units.
        while (key := f"{part}{count or ''}") in self._seen:
            count += 1
        self._seen.add(key)
        self._keep_units(key, output)

    def _keep_units(self, part: str, output: Tensor) -> None:
        """What the outputs of an activation function say of the units of a layer."""
        if not output.is_floating_point() or output.ndim == 0:
            return
        dim = 1 if self._unit_dim == 1 and output.ndim > 1 else -1
        if self._dormant:
            self._keep("dormant_fraction", part, lambda: dormant_fraction(output, dim=dim))
        for name, rank in self._ranks:
            if output.ndim > 1 and output.numel() > 0:
                features = output.detach().movedim(dim, -1).flatten(0, -2)[:ROWS]
                self._keep(name, part, lambda rank=rank, h=features: rank(h))

    def _keep(self, instrument: str, part: str, measure: Callable[[], Tensor]) -> None:
        # Under vmap or grad of torch.func what is seen here belongs to the transform and cannot be
        # read after it: a Jacobian that is measured between two steps, say.
        if torch._C._are_functorch_transforms_active():
            return
        start = perf_counter()
        code = self._series(instrument, part)
        if code not in self.codes and self.failure is None:
            try:
                value = measure()
            except Exception as error:  # an odd kind of tensor, or no memory
                self.failure = error
            else:
                self.codes.append(code)
                self.values.append(value)
        self.seconds += perf_counter() - start


class _Functions(TorchFunctionMode):
    """Sees activation functions called as functions."""

    def __init__(self, capture: ActivationCapture) -> None:
        super().__init__()
        self._capture = capture

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        self._capture.seconds += CALL_S
        name = _FUNCTIONS.get(func)
        if name is not None:
            self._capture.function_called(name, out)
        return out
