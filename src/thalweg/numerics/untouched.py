"""Evaluating a loss so that nothing of it remains: no random numbers drawn, no buffer moved."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

__all__ = ["random_state", "set_random_state", "untouched"]

RandomState = list[tuple[torch.device, Tensor]]


@contextmanager
def untouched(params: Sequence[Tensor]) -> Iterator[None]:
    """Lets a loss be evaluated so that nothing of it remains.

    Random state is put back; modules that run inside see copies of their buffers (BatchNorm's
    running statistics move in the copies); attention takes its plain kernel and compiled modules
    run eagerly, the only forms that can be differentiated twice.

    Args:
        params: the parameters: their devices are those whose random state is kept.

    Example:
        >>> import torch
        >>> norm = torch.nn.BatchNorm1d(1)
        >>> with untouched(list(norm.parameters())):
        ...     _ = norm(torch.tensor([[1.0], [3.0]]))
        >>> norm.running_mean
        tensor([0.])
    """
    swapped: list[tuple[nn.Module, str, Tensor]] = []
    seen: set[int] = set()

    def copy_buffers(module: nn.Module, _: Any) -> None:
        # Objects are swapped, not contents: the graph may hold on to what the forward pass saw.
        if id(module) in seen:
            return
        for m in module.modules():
            if id(m) in seen:
                continue
            seen.add(id(m))
            for name, buffer in m._buffers.items():
                if buffer is not None:
                    swapped.append((m, name, buffer))
                    m._buffers[name] = buffer.clone()

    state = random_state(params)
    hook = nn.modules.module.register_module_forward_pre_hook(copy_buffers)
    try:
        with _eager(), sdpa_kernel(SDPBackend.MATH), torch.enable_grad():
            yield
    finally:
        hook.remove()
        for module, name, buffer in swapped:
            module._buffers[name] = buffer
        set_random_state(state)


@contextmanager
def _eager() -> Iterator[None]:
    if "torch._dynamo" not in sys.modules:  # nothing is compiled; and its import takes a second
        yield
        return
    with torch.compiler.set_stance("force_eager"), warnings.catch_warnings():
        # the hook on buffers fires a second time for the compiled wrapper, to no effect
        warnings.filterwarnings("ignore", "Using `torch.compile", UserWarning)
        yield


def random_state(params: Sequence[Tensor]) -> RandomState:
    """The random state of the CPU and of the CUDA devices of these parameters."""
    devices = {p.device for p in params if p.device.type == "cuda"}
    cpu = (torch.device("cpu"), torch.get_rng_state())
    return [cpu, *((d, torch.cuda.get_rng_state(d)) for d in devices)]


def set_random_state(state: RandomState) -> None:
    """Puts back what ``random_state`` took."""
    for device, s in state:
        torch.cuda.set_rng_state(s, device) if device.type == "cuda" else torch.set_rng_state(s)
