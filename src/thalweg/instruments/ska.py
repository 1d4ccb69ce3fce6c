"""Entropy diagnostics of sigmoid layers, whatever trains them, and what they amount to.

Along a path, −(1/ln 2) ∫ z dσ(z) is the change of the unit's Bernoulli entropy, whatever the path.
For the same reason the Lagrangian −z σ'(z) ż is a total derivative in time: every path satisfies
its Euler–Lagrange equation, and a principle of least action made of it selects nothing.

Source: B. Mahi 2025, arXiv 2504.03214, for the diagnostics; both consequences are derived here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from thalweg.numerics.untouched import untouched
from thalweg.optim.ska_fit import Sign, SKAHistory, history_of, step_figures

__all__ = ["SKAMonitor", "bernoulli_entropy_change", "is_null_lagrangian", "ska_lagrangian"]


def bernoulli_entropy_change(Z0: Tensor, Z1: Tensor) -> Tensor:
    """Change of the entropy of independent units from one state to another, in bits.

        Σ h(σ(Z1)) − h(σ(Z0)),   h(p) = −p log₂ p − (1 − p) log₂(1 − p)

    Args:
        Z0: pre-activations before, any shape.
        Z1: those after, the same shape.

    Returns:
        0-d sum over all entries; accurate where units are saturated.

    Raises:
        ValueError: if the shapes differ.

    Source:
        Derived from the entropy of Mahi 2025, arXiv 2504.03214; entry ska.

    Example:
        From p = ½ to p = ¾, and from ½ to certainty:

        >>> zero = torch.zeros(1)
        >>> bernoulli_entropy_change(zero, torch.tensor([math.log(3)]))
        tensor(-0.1887)
        >>> bernoulli_entropy_change(zero, torch.tensor([100.0]))
        tensor(-1.)
    """
    if Z0.shape != Z1.shape:
        raise ValueError(f"Z0 and Z1 must have one shape, got {Z0.shape} and {Z1.shape}")
    return (_entropy(Z1) - _entropy(Z0)).sum() / math.log(2)


def _entropy(z: Tensor) -> Tensor:
    """h(σ(z)) in nats; even in z, and softplus(z) − z σ(z) would cancel for large z."""
    size = z.abs()
    return torch.log1p(torch.exp(-size)) + size * torch.sigmoid(-size)


def ska_lagrangian(z: Tensor, velocity: Tensor) -> Tensor:
    """L(z, ż) = −Σ z σ'(z) ż, what the paper integrates to an action; (d,), (d,) to 0-d.

    Source:
        Mahi 2025, arXiv 2504.03214, section on the action.
    """
    d = torch.sigmoid(z)
    return -(z * d * (1 - d) * velocity).sum()


def is_null_lagrangian(
    lagrangian: Callable[[Tensor, Tensor], Tensor] = ska_lagrangian,
    dim: int = 3,
    *,
    num_samples: int = 16,
    tol: float = 1e-9,
    generator: torch.Generator | None = None,
) -> bool:
    """Whether every path satisfies the Euler–Lagrange equation, so that the action selects none.

        d/dt ∂L/∂ż − ∂L/∂z = 0 for all z, ż, z̈

    Looked at in random z, ż, z̈ in float64; L of finite smoothness can be null there and not
    elsewhere.

    Args:
        lagrangian: ``(z (dim,), velocity (dim,)) -> 0-d``, made of differentiable torch operations.
        dim: of z.
        num_samples: random points.
        tol: of the equation, relative to its largest term.
        generator: of the points.

    Returns:
        True if L is a total derivative.

    Raises:
        ValueError: if there are no points or L does not return one number.

    Source:
        Derived for the action of Mahi 2025, arXiv 2504.03214; entry ska.

    Example:
        >>> is_null_lagrangian(), is_null_lagrangian(lambda z, v: (v**2 - z**2).sum() / 2)
        (True, False)
    """
    if num_samples < 1 or dim < 1:
        raise ValueError(f"num_samples and dim must be at least 1, got {num_samples} and {dim}")
    generator = generator or torch.Generator().manual_seed(0)
    momentum = torch.func.grad(lagrangian, argnums=1)
    for _ in range(num_samples):
        z, v, a = torch.randn(3, dim, generator=generator, dtype=torch.float64)
        value = lagrangian(z, v)
        if value.numel() != 1:
            raise ValueError(f"lagrangian must return one number, got {tuple(value.shape)}")
        along: Any = torch.func.jvp(momentum, (z, v), (v, a))
        rate, force = along[1], torch.func.grad(lagrangian)(z, v)
        if (rate - force).abs().max() > tol * max(rate.abs().max(), force.abs().max()):
            return False
    return True


class SKAMonitor:
    """The diagnostics of ``ska_fit`` for any network with sigmoid units and any optimizer.

    Call ``after_step(x)`` with the same batch after every step. Weights, buffers, random state and
    mode stay as they are.

    Args:
        model: the network.
        layers: names of the modules whose outputs are pre-activations, as in ``named_modules``.
        sign: of the Tensor Net, see ``ska_fit``.

    Raises:
        ValueError: if there is no layer, a name is unknown, or a module does not return a tensor.

    Source:
        Mahi 2025, arXiv 2504.03214; entry ska.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 3), nn.Sigmoid(), nn.Linear(3, 1), nn.Sigmoid())
        >>> monitor, x = SKAMonitor(model, ["0", "2"]), torch.ones(4, 2)
        >>> for _ in range(3):
        ...     monitor.after_step(x, lr=0.1)
        >>> monitor.history().entropy.abs().max()  # nothing trains it
        tensor(0.)
    """

    def __init__(self, model: nn.Module, layers: Sequence[str], *, sign: Sign = "code") -> None:
        modules = dict(model.named_modules())
        unknown = [name for name in layers if name not in modules]
        if unknown or not layers:
            raise ValueError(
                f"layers must be names of modules, got {list(layers)}: see {[*modules]}"
            )
        if sign not in ("code", "paper"):
            raise ValueError(f"sign must be 'code' or 'paper', got {sign!r}")
        self._model = model
        self._sign: Sign = sign
        self._modules = {name: modules[name] for name in layers}
        self._before: list[Tensor] | None = None
        self._rows: list[list[dict[str, Tensor]]] = []

    def after_step(self, x: Tensor, *, lr: float = 1.0) -> None:
        """Evaluate the batch and compare with the call before; the first call compares nothing.

        Args:
            x: what the model takes.
            lr: time since the call before, as the step size.
        """
        if not lr > 0:
            raise ValueError(f"lr must be positive, got {lr}: it is the step of time")
        now = self._pre_activations(x)
        if self._before is not None:
            row = []
            for module, z, z_before in zip(self._modules.values(), now, self._before, strict=True):
                if z.shape != z_before.shape:
                    raise ValueError(
                        f"pre-activations {tuple(z.shape)} after {tuple(z_before.shape)}: give the "
                        "same batch every time"
                    )
                figures = step_figures(z, z_before, lr, self._sign)
                weight = getattr(module, "weight", None)
                norm = weight.detach().norm() if isinstance(weight, Tensor) else z.new_tensor(0.0)
                row.append({**figures, "weight_norm": norm})
            self._rows.append(row)
        self._before = now

    def history(self) -> SKAHistory:
        """All so far, one row for each call but the first.

        Raises:
            ValueError: before the second call.
        """
        if not self._rows:
            raise ValueError("call after_step at least twice: each row compares two states")
        return history_of(self._rows)

    def _pre_activations(self, x: Tensor) -> list[Tensor]:
        seen: dict[str, Tensor] = {}

        def catch(name: str) -> Callable[..., None]:
            def hook(module: nn.Module, args: object, out: object) -> None:
                if not isinstance(out, Tensor):
                    raise ValueError(f"layer {name!r} returns {type(out).__name__}, not a tensor")
                seen[name] = out.detach().clone()

            return hook

        hooks = [m.register_forward_hook(catch(n)) for n, m in self._modules.items()]
        try:
            with untouched(list(self._model.parameters())), torch.no_grad():
                self._model(x)
        finally:
            for hook in hooks:
                hook.remove()
        missing = [name for name in self._modules if name not in seen]
        if missing:
            raise ValueError(f"the forward pass does not call {missing}")
        return [seen[name] for name in self._modules]
