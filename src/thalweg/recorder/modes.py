"""Pushing a torch-function mode across statements of somebody else's program.

The user may enter and leave modes of their own in between, last in first out. Ours lies below all
of theirs, so that leaving one never pops ours; only ``torch.device`` contexts, which insist on the
bottom of the stack, stay below it.
"""

from __future__ import annotations

from torch.overrides import TorchFunctionMode, _len_torch_function_stack, _pop_mode, _push_mode
from torch.utils._device import DeviceContext

__all__ = ["pop_mode", "push_mode"]


def push_mode(mode: TorchFunctionMode) -> None:
    """Activates a mode below the user's."""
    stack = _unwind()
    bottom = 1 if stack and isinstance(stack[0], DeviceContext) else 0
    for m in [*stack[:bottom], mode, *stack[bottom:]]:
        _push_mode(m)


def pop_mode(mode: TorchFunctionMode) -> None:
    """Deactivates it wherever it lies; does nothing if it is not active."""
    for m in _unwind():
        if m is not mode:
            _push_mode(m)


def _unwind() -> list[TorchFunctionMode]:
    """Empties the stack; bottom first."""
    return [_pop_mode() for _ in range(_len_torch_function_stack())][::-1]
