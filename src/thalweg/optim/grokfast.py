"""Grokfast: amplify the slow part of the gradients, which is what generalises late.

A low-pass filter of the gradients' past is added to the gradient, between backward and step, in
front of any optimizer.

Source: J. Lee, B. G. Kang, K. Kim, K. M. Lee 2024, arXiv 2405.20233; here as in the companion study
of GrokAlign, arXiv 2506.12284. Departure: a filter of gradients in half precision is kept in
float32.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["GrokfastEMA", "GrokfastMA"]


class GrokfastEMA:
    """Adds an exponential average of past gradients to the gradient.

        h ← α h + (1 − α) g,   g ← g + λ h,   h = g at first

    Call ``apply()`` after backward (and after ``scaler.unscale_``) and before clipping and step.
    A gradient that is not finite stays in the average: skip ``apply`` for a step that is skipped.
    Parameters without a gradient, and their averages, are left alone.

    Args:
        model: the model, or its parameters.
        alpha: α, in [0, 1).
        lamb: λ, not negative.
        foreach: few kernels for all parameters rather than a loop; None for yes.

    Raises:
        ValueError: if there is no parameter, a setting is out of range, or, in ``apply``, a
            gradient is sparse.

    Cost: one average of the size of the parameters.

    Source: Lee et al. 2024, arXiv 2405.20233; entry grokalign.

    Example:
        A constant gradient leaves as (1 + λ) g from the first step on.

        >>> p = nn.Parameter(torch.zeros(1))
        >>> p.grad = torch.ones(1)
        >>> GrokfastEMA([p], lamb=2.0).apply()
        >>> p.grad
        tensor([3.])
    """

    def __init__(
        self,
        model: nn.Module | Iterable[Tensor],
        *,
        alpha: float = 0.98,
        lamb: float = 2.0,
        foreach: bool | None = None,
    ) -> None:
        if not 0 <= alpha < 1:
            raise ValueError(f"alpha must be in [0, 1), got {alpha}")
        self._params, self.lamb = _named(model), _checked(lamb)
        self.alpha, self._foreach = alpha, foreach is not False
        self._averages: dict[str, Tensor] = {}

    @torch.no_grad()
    def apply(self) -> None:
        """Filter the present gradients, in place."""
        grads = _gradients(self._params)
        for name, g in grads.items():
            if name not in self._averages:
                self._averages[name] = _wide(g).clone()
        if not grads:
            return
        if not self._foreach:
            for name, g in grads.items():
                h = self._averages[name]
                h.mul_(self.alpha).add_(_wide(g), alpha=1 - self.alpha)
                g.add_(h, alpha=self.lamb)
            return
        averages = [self._averages[name] for name in grads]
        torch._foreach_mul_(averages, self.alpha)
        wide = [_wide(g) for g in grads.values()]
        torch._foreach_add_(averages, wide, alpha=1 - self.alpha)
        torch._foreach_add_(list(grads.values()), averages, alpha=self.lamb)

    def state_dict(self) -> dict[str, Any]:
        """The averages, by the name of the parameter, and the settings."""
        return {"alpha": self.alpha, "lamb": self.lamb, "averages": dict(self._averages)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state.

        Raises:
            ValueError: if it is of other parameters.
        """
        averages = _fitting(self._params, {n: [h] for n, h in state["averages"].items()})
        self.alpha, self.lamb = state["alpha"], state["lamb"]
        self._averages = {name: h for name, (h,) in averages.items()}


class GrokfastMA:
    """Adds the mean of the last gradients to the gradient, as soon as there are enough.

        g ← g + λ mean(g_{t−w+1}, …, g_t)   for t ≥ w

    Used as ``GrokfastEMA``, at the price of a window of gradients.

    Args:
        model: the model, or its parameters.
        window: w, gradients in the mean, the present one included.
        lamb: λ, not negative.

    Raises:
        ValueError: if there is no parameter, a setting is out of range, or, in ``apply``, a
            gradient is sparse.

    Cost: ``window`` times the size of the parameters.

    Source: Lee et al. 2024, arXiv 2405.20233; entry grokalign.

    Example:
        >>> p = nn.Parameter(torch.zeros(1))
        >>> filter = GrokfastMA([p], window=2, lamb=10.0)
        >>> for g in (1.0, 3.0):
        ...     p.grad = torch.tensor([g])
        ...     filter.apply()
        ...     print(p.grad.item())
        1.0
        23.0
    """

    def __init__(
        self, model: nn.Module | Iterable[Tensor], *, window: int = 100, lamb: float = 5.0
    ) -> None:
        if window < 1:
            raise ValueError(f"window must be at least 1, got {window}")
        self._params, self.lamb, self.window = _named(model), _checked(lamb), window
        self._past: dict[str, list[Tensor]] = {}

    @torch.no_grad()
    def apply(self) -> None:
        """Filter the present gradients, in place."""
        for name, g in _gradients(self._params).items():
            past = self._past.setdefault(name, [])
            past.append(_wide(g).clone())
            if len(past) > self.window:
                past.pop(0)
            if len(past) == self.window:
                # summed anew, so that no rounding and no gradient outlives the window
                total = past[0].clone()
                for h in past[1:]:
                    total.add_(h)
                g.add_(total, alpha=self.lamb / self.window)

    def state_dict(self) -> dict[str, Any]:
        """The gradients of the window, by the name of the parameter, and the settings."""
        past = {name: list(grads) for name, grads in self._past.items()}
        return {"window": self.window, "lamb": self.lamb, "past": past}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state.

        Raises:
            ValueError: if it is of other parameters.
        """
        self._past = _fitting(self._params, state["past"])
        self.window, self.lamb = state["window"], state["lamb"]


def _named(model: nn.Module | Iterable[Tensor]) -> dict[str, Tensor]:
    if isinstance(model, nn.Module):
        named: dict[str, Tensor] = {n: p for n, p in model.named_parameters() if p.requires_grad}
    else:
        named = {str(i): p for i, p in enumerate(model)}
    if not named:
        raise ValueError("there is no parameter to filter: give a model or its parameters")
    return named


def _checked(lamb: float) -> float:
    if not 0 <= lamb < float("inf"):
        raise ValueError(f"lamb must be finite and not negative, got {lamb}")
    return lamb


def _gradients(params: dict[str, Tensor]) -> dict[str, Tensor]:
    grads = {name: p.grad for name, p in params.items() if p.grad is not None}
    for name, g in grads.items():
        if g.layout != torch.strided:
            raise ValueError(
                f"grokfast: the gradient of {name!r} is sparse; its average would be dense. Leave "
                "the parameter out, or make the embedding's gradient dense"
            )
    return grads


def _wide(g: Tensor) -> Tensor:
    return g.float() if g.dtype in (torch.float16, torch.bfloat16) else g


def _fitting(params: dict[str, Tensor], kept: dict[str, list[Tensor]]) -> dict[str, list[Tensor]]:
    """Copies of kept gradients on the devices of their parameters."""
    for name, grads in kept.items():
        if name not in params or any(h.shape != params[name].shape for h in grads):
            raise ValueError(
                f"grokfast: the state holds {name!r}, of shape {tuple(grads[0].shape)}, and no "
                "parameter here is that; load it with the model that it was saved with"
            )
    return {
        name: [h.to(params[name].device, copy=True) for h in grads] for name, grads in kept.items()
    }
