"""Muon: momentum, replaced by its polar factor before the step.

Drop-in for ``torch.optim.Muon``: same arguments, same defaults, same state. Beyond it: a choice of
how the polar factor is found, float32 and float64 arithmetic, convolution kernels (flattened to
(out, rest) inside the step), and matrices of one shape orthogonalised together.

Source: K. Jordan et al. 2024 (github.com/KellerJordan/Muon); J. Liu et al. 2025, arXiv 2502.16982,
for ``match_rms_adamw``. As in the code of both (and unlike torch's pseudo-code) the momentum is an
exponential average, and decay uses the learning rate before its adjustment.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer, ParamsT

from thalweg.errors import unknown_name
from thalweg.optim.orthogonalize import JORDAN, orthogonalize, polynomial

__all__ = ["Muon", "adjustment", "require_finite", "require_matrices", "stacks"]

Backend = Literal["ns", "polar_express", "svd"]
BACKENDS = ("ns", "polar_express", "svd")
# Matrices of one shape are stacked up to so many numbers (16 MB in float32): small ones gain most
# from fewer calls, large ones keep a core busy by themselves and would only cost a copy.
STACK_NUMBERS = 2**22


class Muon(Optimizer):
    """Steps of equal size along all singular directions of the momentum.

        B ← B + (1 − μ)(G − B),  u = (1 − μ)G + μB (Nesterov) or B
        W ← (1 − ηλ)W − η · scale · polar(u)

    For hidden matrices and convolution kernels only; embeddings, heads, gains and biases belong to
    AdamW, and a fused QKV should be three parameters: see ``muon_param_groups``.

    Args:
        params: parameters of at least two dimensions, flattened to (out, rest) from three on.
        lr: η.
        weight_decay: λ, decoupled; 0 is the default of the original, 0.1 of torch.
        momentum: μ.
        nesterov: whether to look ahead.
        ns_coefficients: (a, b, c) of ``ns``.
        eps: added to the norm of a matrix before ``ns`` and ``polar_express``.
        ns_steps: their polynomial steps, below 100.
        adjust_lr_fn: ``original`` (default): scale = √max(1, rows/columns);
            ``match_rms_adamw``: 0.2 √max(rows, columns).
        backend: how the polar factor is found, as in ``orthogonalize``.
        dtype: in which; by default that of the gradient, at least float32.
        foreach: False for one matrix at a time; by default those of one shape are stacked.

    Raises:
        ValueError: for values out of range, or a parameter with fewer than two dimensions. A step
            raises it if a gradient on the CPU is not finite; elsewhere that would wait for the
            device, and the matrix becomes nan throughout.
        TypeError: for complex parameters or sparse gradients.

    Example:
        The first step along diag(3, 4) by the exact factor: both singular directions alike.

        >>> W = torch.nn.Parameter(torch.zeros(2, 2))
        >>> W.grad = torch.diag(torch.tensor([3.0, 4.0]))
        >>> Muon([W], lr=0.1, backend="svd").step()
        >>> W.detach()
        tensor([[-0.1000,  0.0000],
                [ 0.0000, -0.1000]])
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-3,
        weight_decay: float = 0.1,
        momentum: float = 0.95,
        nesterov: bool = True,
        ns_coefficients: tuple[float, float, float] = JORDAN,
        eps: float = 1e-7,
        ns_steps: int = 5,
        adjust_lr_fn: str | None = None,
        *,
        backend: Backend = "ns",
        dtype: torch.dtype | None = None,
        foreach: bool | None = None,
    ) -> None:
        if isinstance(lr, Tensor) and lr.numel() != 1:
            raise ValueError(f"lr must be one number, got a tensor of shape {tuple(lr.shape)}")
        for name, value in (("lr", lr), ("weight_decay", weight_decay), ("eps", eps)):
            if not isinstance(value, Tensor) and not value >= 0:
                raise ValueError(f"{name} must be ≥ 0, got {value}")
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum must be in [0, 1), got {momentum}")
        if not 1 <= ns_steps < 100:
            raise ValueError(f"ns_steps must be from 1 to 99, got {ns_steps}")
        if len(ns_coefficients) != 3:
            raise ValueError(f"ns_coefficients must be three numbers, got {ns_coefficients}")
        if adjust_lr_fn not in (None, "original", "match_rms_adamw"):
            raise ValueError(
                f"adjust_lr_fn must be 'original' or 'match_rms_adamw', got {adjust_lr_fn!r}"
            )
        if backend not in BACKENDS:
            raise ValueError(str(unknown_name("backend", backend, BACKENDS)))
        defaults = {
            "lr": lr,
            "weight_decay": weight_decay,
            "momentum": momentum,
            "nesterov": nesterov,
            "ns_coefficients": ns_coefficients,
            "eps": eps,
            "ns_steps": ns_steps,
            "adjust_lr_fn": adjust_lr_fn,
            "backend": backend,
            "dtype": dtype,
            "foreach": foreach,
        }
        super().__init__(params, defaults)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group; its parameters must have at least two dimensions."""
        super().add_param_group(param_group)
        require_matrices("Muon", self.param_groups[-1]["params"])

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        for group in self.param_groups:  # a state of torch's Muon lacks what is ours
            for name, value in self.defaults.items():
                group.setdefault(name, value)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Take one step.

        Args:
            closure: evaluates the loss with its gradients, and returns it.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            grads = [p.grad for p in params]
            require_finite("Muon", grads)
            for p in params:
                if "momentum_buffer" not in self.state[p]:
                    self.state[p]["momentum_buffer"] = torch.zeros_like(p.grad)
            buffers = [self.state[p]["momentum_buffer"] for p in params]
            for some in stacks(params, foreach=group["foreach"]):
                _muon(
                    [params[i] for i in some],
                    [grads[i] for i in some],
                    [buffers[i] for i in some],
                    group,
                )
        return loss


def _muon(
    params: list[Tensor], grads: list[Tensor], buffers: list[Tensor], group: dict[str, Any]
) -> None:
    """One step of matrices of one shape."""
    momentum, lr = group["momentum"], group["lr"]
    torch._foreach_lerp_(buffers, grads, 1 - momentum)
    ahead = torch._foreach_lerp(grads, buffers, momentum) if group["nesterov"] else buffers
    matrices = [u.reshape(len(u), -1) for u in ahead]
    stack = torch.stack(matrices) if len(matrices) > 1 else matrices[0].unsqueeze(0)
    scale = adjustment(group["adjust_lr_fn"], *stack.shape[-2:])
    stack = _polar(stack, group) * (-lr * scale)
    if isinstance(lr, Tensor) or group["weight_decay"]:
        torch._foreach_mul_(params, 1 - lr * group["weight_decay"])
    torch._foreach_add_(params, [u.view_as(p) for u, p in zip(stack, params, strict=True)])


def _polar(stack: Tensor, group: dict[str, Any]) -> Tensor:
    steps, dtype = group["ns_steps"], group["dtype"]
    if group["backend"] == "svd":
        return orthogonalize(stack, "svd", dtype=dtype)
    if group["backend"] == "polar_express":
        return orthogonalize(stack, "polar_express", steps=steps, eps=group["eps"], dtype=dtype)
    work = stack.to(dtype or torch.promote_types(stack.dtype, torch.float32))
    coefficients = itertools.repeat(tuple(group["ns_coefficients"]), steps)
    return polynomial(work, coefficients, group["eps"]).to(stack.dtype)


def adjustment(adjust: str | None, rows: int, columns: int) -> float:
    """What the learning rate of a matrix is multiplied with.

    Args:
        adjust: ``original``, None for the same, or ``match_rms_adamw``.
        rows: of the matrix.
        columns: of the matrix.

    Example:
        >>> adjustment(None, 40, 10), adjustment("match_rms_adamw", 100, 25)
        (2.0, 2.0)
    """
    if adjust == "match_rms_adamw":
        return 0.2 * math.sqrt(max(rows, columns))
    return math.sqrt(max(1.0, rows / columns))


def require_matrices(name: str, params: list[Tensor]) -> None:
    """Refuse parameters that are no matrices.

    Raises:
        ValueError: for fewer than two dimensions.
        TypeError: for complex ones.
    """
    for p in params:
        if p.ndim < 2:
            raise ValueError(
                f"{name}: a parameter has shape {tuple(p.shape)}; it needs at least 2 dimensions. "
                "Give it to AdamW: hidden, rest = muon_param_groups(model)"
            )
        if p.is_complex():
            raise TypeError(f"{name}: a parameter is {p.dtype}; it must be real")


def require_finite(name: str, grads: list[Tensor]) -> None:
    """Refuse gradients that would poison every number of their matrix, where looking is free.

    Raises:
        ValueError: if one on the CPU is not finite.
        TypeError: if one is sparse.
    """
    for g in grads:
        if g.layout != torch.strided:
            raise TypeError(f"{name} takes dense gradients, got {g.layout}")
    here = [g for g in grads if g.device.type == "cpu"]
    norms = torch._foreach_norm(here) if here else ()
    bad = next((g for g, n in zip(here, norms, strict=True) if not bool(n.isfinite())), None)
    if bad is not None:
        raise ValueError(
            f"{name}: the gradient of a parameter of shape {tuple(bad.shape)} is not finite; no "
            "parameter was changed. Skip the step, or unscale the gradients first"
        )


def stacks(params: list[Tensor], *, foreach: bool | None = None) -> list[list[int]]:
    """Which parameters step together: those alike in shape, dtype and device, up to a size.

    Args:
        params: in any order.
        foreach: False for each by itself.

    Returns:
        Lists of positions in ``params``.
    """
    if foreach is False:
        return [[i] for i in range(len(params))]
    alike: dict[Any, list[int]] = {}
    for i, p in enumerate(params):
        grad = p.grad if p.grad is not None else p
        alike.setdefault((p.shape, p.dtype, grad.dtype, p.device), []).append(i)
    out = []
    for some in alike.values():
        most = max(1, STACK_NUMBERS // max(1, params[some[0]].numel()))
        out += [some[i : i + most] for i in range(0, len(some), most)]
    return out
