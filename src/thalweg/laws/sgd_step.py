"""What a step of SGD has just done, read from the optimizer once for all laws.

Source: the update rule of ``torch.optim.SGD``; derivation in ``docs/mathematics.md``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch.optim.optimizer import Optimizer

from thalweg.laws.squares import Squares

__all__ = ["SGDStep", "velocities"]


class SGDStep:
    """Directions and velocities of one step, by the names of their parameters.

    Attributes:
        groups: name to the param group that holds the parameter.
        velocities: name to the momentum buffer, of the parameters that have one.
        velocity_squares: q(v, v) of laws.
        direction_squares: q(u, u) of laws.
    """

    def __init__(self, optimizer: Optimizer, params: Mapping[str, Tensor]) -> None:
        self._params = params
        groups = {id(p): g for g in optimizer.param_groups for p in g["params"]}
        self.groups: dict[str, dict[str, Any]] = {
            n: groups[id(p)] for n, p in params.items() if id(p) in groups
        }
        self.velocities = velocities(optimizer, params)
        self.velocity_squares = Squares(self.velocities)
        self.directions = _Directions(self)
        self.direction_squares = Squares(self.directions)

    def direction(self, name: str) -> Tensor:
        """The direction u in which a parameter has moved, from the weights after the step.

        θ = θ⁺ + ηu, so u(1 − ηλ) = g + λθ⁺, with Nesterov momentum g + λθ⁺ + βv⁺.
        """
        group, parameter = self.groups[name], self._params[name]
        if group["momentum"] and not group["nesterov"]:
            return self.velocities[name]
        gradient = parameter.grad
        assert gradient is not None
        decay = float(group["weight_decay"])
        total = (-gradient if group["maximize"] else gradient) + decay * parameter.detach()
        if group["momentum"]:
            total = total + float(group["momentum"]) * self.velocities[name]
        return total / (1.0 - float(group["lr"]) * decay)

    def before(self, name: str) -> Tensor:
        """The parameter before the step."""
        return self._params[name].detach() + float(self.groups[name]["lr"]) * self.directions[name]


class _Directions(dict[str, Tensor]):
    """Directions, each made when it is first asked for."""

    def __init__(self, step: SGDStep) -> None:
        super().__init__()
        self._step = step

    def __missing__(self, name: str) -> Tensor:
        self[name] = self._step.direction(name)
        return self[name]


def velocities(optimizer: Optimizer, params: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Name to momentum buffer, of the parameters that have one."""
    found = {n: optimizer.state.get(p, {}).get("momentum_buffer") for n, p in params.items()}
    return {n: v for n, v in found.items() if v is not None}
