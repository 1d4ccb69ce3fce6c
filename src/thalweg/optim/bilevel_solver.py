"""What methods for two levels share: the two variables, steps on the lower one, saving.

Source: the shape is that of ``torch.optim.Optimizer`` (PyTorch, 2019), but for two variables and
losses that are called by the method itself, so that it is no subclass.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from thalweg.optim.bilevel_problem import BilevelProblem, as_draw
from thalweg.optim.leaves import Leaves, scalar

__all__ = ["BilevelSolver"]


class BilevelSolver(ABC):
    """A method that owns an upper and a lower variable; subclasses say what a step does.

    Save it by ``state_dict()`` and ``load_state_dict()``: a method resumed on the same batches goes
    on as if it had not stopped, bit for bit. Set ``lr`` and ``lower_lr`` at any time to decay them.

    Args:
        problem: the two losses.
        x: upper variable to start from, copied.
        y: lower variable to start from, copied.
        lr: step size of x.
        lower_lr: step size of y.
        generator: of the method's own random choices.

    Attributes:
        lr: step size of x.
        lower_lr: step size of y.
        num_steps: steps taken.
    """

    def __init__(
        self,
        problem: BilevelProblem,
        x: Any,
        y: Any,
        *,
        lr: float,
        lower_lr: float,
        generator: torch.Generator | None = None,
    ) -> None:
        for name, value in (("lr", lr), ("lower_lr", lower_lr)):
            if not value > 0:
                raise ValueError(f"{name} must be positive, got {value}")
        self.problem, self.lr, self.lower_lr, self.num_steps = problem, lr, lower_lr, 0
        self._x, self._y = Leaves(x, "x"), Leaves(y, "y")
        for leaves in (self._x, self._y):
            leaves.tensors = [t.clone() for t in leaves.tensors]
        self._state: dict[str, list[Tensor]] = {}
        self._generator = generator

    @property
    def x(self) -> Any:
        """The upper variable, a nest like the one given; it changes with each step."""
        return self._x.build(self._x.tensors)

    @property
    def y(self) -> Any:
        """The lower variable, a nest like the one given; it changes with each step."""
        return self._y.build(self._y.tensors)

    def step(self, batch: Any = None, lower_batch: Any = None) -> Tensor:
        """One step on x, with the steps on y that belong to it.

        Args:
            batch: handed to both losses for the hypergradient; a callable is called at each use.
            lower_batch: handed to the lower loss for steps on y, default ``batch``; a callable is
                called for each of them.

        Returns:
            Upper loss before the step on x, 0-d, detached.

        Raises:
            ValueError: if a loss is no scalar, or a series grows (see ``hypergradient``).
        """
        loss = self._step(batch, as_draw(batch if lower_batch is None else lower_batch))
        self.num_steps += 1
        return loss

    @abstractmethod
    def _step(self, batch: Any, draw: Callable[[], Any]) -> Tensor:
        """One step on x, and what it needs of y; returns the upper loss before it."""

    def _lower_step(self, draw: Callable[[], Any], lr: float) -> None:
        """One gradient step on g in y."""
        ys = self._y.tracked()
        with torch.enable_grad():
            loss = scalar(self.problem.lower_loss(self.x, self._y.build(ys), draw()), "lower_loss")
        grads = torch.autograd.grad(loss, ys, allow_unused=True, materialize_grads=True)
        torch._foreach_add_(self._y.tensors, grads, alpha=-lr)

    def state_dict(self) -> dict[str, Any]:
        """All that ``load_state_dict`` needs: tensors as they are, not copied, and numbers."""
        random = None if self._generator is None else self._generator.get_state()
        return {
            "x": list(self._x.tensors),
            "y": list(self._y.tensors),
            "lr": self.lr,
            "lower_lr": self.lower_lr,
            "num_steps": self.num_steps,
            "state": {name: list(tensors) for name, tensors in self._state.items()},
            "generator": random,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved state, copied into this method's tensors.

        Raises:
            ValueError: if x or y of the saved state has other shapes.
        """
        for name, leaves in (("x", self._x), ("y", self._y)):
            _check_shapes(name, state[name], leaves.tensors)
        for leaves, saved in ((self._x, state["x"]), (self._y, state["y"])):
            for mine, other in zip(leaves.tensors, saved, strict=True):
                mine.copy_(other)
        self.lr, self.lower_lr = state["lr"], state["lower_lr"]
        self.num_steps = state["num_steps"]
        device = self._x.tensors[0].device
        self._state = {
            name: [t.detach().clone().to(device) for t in tensors]
            for name, tensors in state["state"].items()
        }
        if self._generator is not None and state["generator"] is not None:
            self._generator.set_state(state["generator"])

    def __repr__(self) -> str:
        size = [sum(t.numel() for t in leaves.tensors) for leaves in (self._x, self._y)]
        return (
            f"{type(self).__name__}(x: {size[0]} numbers, y: {size[1]} numbers, lr={self.lr}, "
            f"lower_lr={self.lower_lr}, {self.num_steps} steps)"
        )


def _check_shapes(name: str, saved: Sequence[Tensor], mine: Sequence[Tensor]) -> None:
    found, wanted = [tuple(t.shape) for t in saved], [tuple(t.shape) for t in mine]
    if found != wanted:
        raise ValueError(f"the saved {name} has shapes {found}, this one has {wanted}")
