"""Gradients of a loss on parts of a batch, and what their difference from the whole's comes from.

Source: "Fixing Gradient Accumulation", Debut, Zucker, Mueller, Shieh, Bossan 2024
(huggingface.co/blog/gradient_accumulation); the search for the cause is this package's own.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from thalweg.numerics.untouched import random_state, set_random_state

__all__ = ["Accumulate", "Cause", "LossFn", "Probe", "relative_error"]

Cause = Literal[
    "ok",
    "count-normalisation",
    "batch-norm",
    "dropout/RNG",
    "non-decomposable",
    "nondeterministic kernel",
    "missing zero_grad",
]
LossFn = Callable[[nn.Module, Any], Any]
Accumulate = Callable[[nn.Module, list[Any]], None]


class Probe:
    """Gradients of a loss as flat vectors, each drawn with the same random state."""

    def __init__(self, model: nn.Module, loss_fn: LossFn, params: dict[str, nn.Parameter]) -> None:
        self.model, self.loss_fn, self.params = model, loss_fn, params
        self.state = random_state(list(params.values()))
        self.counted = False
        self.dtype = torch.float64

    def loss(self, batch: Any) -> tuple[Tensor, Any]:
        """The loss, and the count where ``loss_fn`` gives one."""
        made = self.loss_fn(self.model, batch)
        self.counted = isinstance(made, tuple)
        value, count = made if isinstance(made, tuple) else (made, None)
        if not isinstance(value, Tensor) or value.numel() != 1 or not value.requires_grad:
            raise ValueError(
                "loss_fn must return a scalar that depends on the parameters, or (sum, count)"
            )
        self.dtype = value.dtype
        return value, count

    def sum_of(self, batch: Any) -> tuple[Tensor, Any]:
        """The gradient of the loss as it is returned, and the count."""
        loss, count = self.loss(batch)
        found = torch.autograd.grad(loss, list(self.params.values()), allow_unused=True)
        pairs = zip(found, self.params.values(), strict=True)
        flat = [(torch.zeros_like(p) if g is None else g).reshape(-1) for g, p in pairs]
        # float32 at least: the comparison must not add rounding of its own.
        return torch.cat([f.to(torch.promote_types(f.dtype, torch.float32)) for f in flat]), count

    def gradient(self, batch: Any, *, counted: bool = True) -> Tensor:
        """The gradient of the mean over a batch (or of a sum, if that is what the loss is)."""
        if counted:
            set_random_state(self.state)
        gradient, count = self.sum_of(batch)
        return gradient if count is None else gradient / float(count)

    def accumulated(self, parts: list[Any], reduction: str) -> Tensor:
        """What the loop that ``reduction`` names leaves, or that of a loss with its count."""
        set_random_state(self.state)
        pairs = [self.sum_of(part) for part in parts]
        total = torch.stack([g for g, _ in pairs]).sum(0)
        if self.counted:
            return total / sum(float(c) for _, c in pairs)
        return total / len(parts) if reduction == "mean" else total

    def run(self, accumulate: Accumulate, parts: list[Any], *, clear: bool = True) -> Tensor:
        """What a loop leaves in the gradients; with ``clear=False`` after its own last call."""
        set_random_state(self.state)
        if clear:
            self.model.zero_grad()
        accumulate(self.model, parts)
        grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in self.params.values()]
        return torch.cat([g.detach().reshape(-1) for g in grads]).clone()

    def weights(self, parts: list[Any], whole: Tensor, tol: float) -> tuple[float, ...]:
        """Coefficients with which the parts' gradients make the whole's; empty if none do."""
        set_random_state(self.state)
        columns = torch.stack([self.sum_of(part)[0] for part in parts], 1).double()
        if not columns.isfinite().all():
            return ()
        found = torch.linalg.lstsq(columns.cpu(), whole.double().cpu()[:, None], driver="gelsd")
        fitted = columns.cpu() @ found.solution
        if relative_error(fitted[:, 0], whole.double().cpu()) > tol:
            return ()
        return tuple(found.solution[:, 0].tolist())

    def bias(self, parts: list[Any], weights: tuple[float, ...], reduction: str) -> float:
        """Accumulated less true loss, by the weights."""
        set_random_state(self.state)
        each = 1.0 if reduction == "sum" else 1 / len(parts)
        losses = [float(self.loss(part)[0].detach()) for part in parts]
        return sum((each - w) * m for w, m in zip(weights, losses, strict=True))

    def cause(self, batch: Any, parts: list[Any], tol: float) -> Cause:
        """Why no weights of the parts' gradients make the whole's: what heals in eval mode?"""
        norms = [
            m
            for m in self.model.modules()
            if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.training
        ]
        for m in norms:
            m.eval()
        if norms and self.weights(parts, self.gradient(batch), tol):
            return "batch-norm"
        random = self._draws(batch)
        self.model.eval()
        if self.weights(parts, self.gradient(batch), tol):
            return "dropout/RNG" if random or not norms else "batch-norm"
        return "non-decomposable"

    def _draws(self, batch: Any) -> bool:
        set_random_state(self.state)
        before = [s for _, s in self.state]
        self.loss(batch)
        after = random_state(list(self.params.values()))
        return any(not torch.equal(a, b) for a, (_, b) in zip(before, after, strict=True))


def relative_error(mine: Tensor, whole: Tensor) -> float:
    """‖mine − whole‖/‖whole‖; inf if it is not finite."""
    error = float((mine - whole).norm()) / max(float(whole.norm()), 1e-300)
    return error if math.isfinite(error) else math.inf
