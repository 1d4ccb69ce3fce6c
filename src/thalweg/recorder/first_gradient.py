"""Sees whether a training clears its gradients: whether the first step's lives on."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.utils.weak import TensorWeakRef

__all__ = ["FirstGradient"]


class FirstGradient:
    """A gradient of the first step, held weakly until the second."""

    def __init__(self) -> None:
        self._held: tuple[Tensor, TensorWeakRef] | None = None

    def take(self, params: Sequence[Tensor]) -> None:
        """Remembers one at the end of the first step."""
        for param in params:
            if param.grad is not None:
                self._held = param, TensorWeakRef(param.grad)
                return

    def cleared(self) -> None:
        """``zero_grad`` was called."""
        self._held = None

    def lived_on(self) -> bool:
        """Whether it is still there: no one cleared it.

        Zeroing ``.grad`` in place by hand, without ``zero_grad``, looks the same.
        """
        if self._held is None:
            return False
        (param, gradient), self._held = self._held, None
        return param.grad is not None and gradient() is param.grad
