"""The loss that the next optimizer step follows: what backward ran on since the last one."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

__all__ = ["StepLoss"]


class StepLoss:
    """Sums the scalars on which backward ran, free of the factor of a gradient scaler.

    Attributes:
        value: the sum, 0-d, detached; None before the first backward.
        used: whether a step has had it: the next backward starts a new sum.
        backwards: how many scalars there were, over all steps.
        scale: the last factor of a gradient scaler, if there was one.
        divided: the factor by which the last root was divided, None if it had none.
    """

    def __init__(self) -> None:
        self.value: Tensor | None = None
        self.used = True
        self.backwards = 0
        self.scale: Tensor | None = None
        self.divided: Tensor | None = None
        self._scaled: Tensor | None = None

    def scaled(self, loss: Tensor, scale: Tensor) -> None:
        """A gradient scaler multiplied a loss by ``scale``; ``loss`` is the product."""
        self._scaled, self.scale = loss, scale

    def backward(self, roots: Any, gradients: Any) -> tuple[Any, Tensor | None]:
        """Backward ran.

        Args:
            roots: what ``backward`` was called on.
            gradients: of the roots; the loss has none.

        Returns:
            The one root, if there is one, and the scale to divide it by, if it was scaled.
        """
        root, scale = roots, None
        if type(roots) in (list, tuple) and len(roots) == 1:
            root = roots[0]
        if self._scaled is not None:
            scale = self.scale if self._scaled is root else None
            self._scaled = None
        self.divided = scale
        if isinstance(root, Tensor) and root.numel() == 1 and gradients is None:
            value = root.detach() if scale is None else root.detach() / scale
            self.value = value if self.used or self.value is None else self.value + value
            self.used = False
            self.backwards += 1
        return root, scale

    def accumulated(self, loss: Tensor) -> Tensor | None:
        """Gradients were rescaled so that the step follows ``loss``.

        Returns:
            What the sum of the roots is divided by to be that, or None if there is no sum.
        """
        if self.used or self.value is None:
            return None
        precise = torch.promote_types(self.value.dtype, torch.float32)
        factor, self.value = (self.value / loss).to(precise), loss.to(precise)
        return factor
