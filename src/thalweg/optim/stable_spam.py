"""StableSPAM: Adam that takes each gradient against the running size of that gradient.

Entries are clipped at a running maximum, the tensor is rescaled by running statistics of its norm,
and both moments start anew at intervals, so that a spike neither moves the weights far nor stays in
the moments. The norm of the gradient is discarded: near the end only a falling learning rate makes
steps small.

Source: T. Huang et al. 2025, arXiv 2502.17055 (code: TianjinYellow/StableSPAM). Departure: the
reset. The code of the paper drops the fresh moments, applies the old ones once more as if they were
one step old, and restarts the bias corrections of statistics that it does not reset, which switches
clipping off for hundreds of steps. Here both moments are zero before the step and count anew by
themselves; ``reset_compat="official"`` does as that code does.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer, ParamsT

from thalweg.optim.adaclip import wide

__all__ = ["StableSPAM"]

# Numbers worked on at a time on a CPU: a dozen passes over them stay in the cache.
PIECE = 2**17


class StableSPAM(Optimizer):
    """Adam on gradients that went through ``adaclip`` and ``adagn``, with moments reset.

        p ← (1 − lr λ)p;  g ← adagn(adaclip(g));  Adam's step with g

    With ``total_steps`` = S, γ₁ and β₁ are multiplied by a cosine that falls from 1 to ``eta_min``
    over S steps (the bias corrections then use the present factor, as in the original).

    Args:
        params: real and dense parameters of any shape, biases and norms included.
        lr: learning rate; let it decay.
        betas: β₁, β₂ of Adam.
        eps: of Adam and of ``adagn``.
        weight_decay: λ, decoupled.
        gamma1: γ₁ of ``adagn``; −1 for β₁.
        gamma2: γ₂ of ``adagn``.
        gamma3: γ₃ of ``adaclip``.
        total_steps: S, or None for no cosine.
        eta_min: where the cosine ends.
        reset_interval: steps between resets of both moments; 0 for none.
        reset_compat: ``intended``, or ``official`` as in the code of the paper.
        adaclip: whether to clip.
        adagn: whether to rescale.
        foreach: False for one tensor at a time; by default those alike are taken together.

    Raises:
        ValueError: for values out of range. A step raises it, before any change, if a gradient on
            the CPU is not finite; elsewhere that would wait for the device.
        TypeError: for complex parameters.
        RuntimeError: in a step, for sparse gradients.

    Source:
        Huang et al. 2025, arXiv 2502.17055; entry stable-spam.

    Example:
        The first step is lr in every entry, whatever the scale of the gradient.

        >>> p = torch.nn.Parameter(torch.zeros(2))
        >>> p.grad = torch.tensor([3.0, -4000.0])
        >>> StableSPAM([p], lr=0.5).step()
        >>> p.detach()
        tensor([-0.5000,  0.5000])
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        *,
        gamma1: float = 0.7,
        gamma2: float = 0.9,
        gamma3: float = 0.999,
        total_steps: int | None = None,
        eta_min: float = 0.5,
        reset_interval: int = 1000,
        reset_compat: Literal["intended", "official"] = "intended",
        adaclip: bool = True,
        adagn: bool = True,
        foreach: bool | None = None,
    ) -> None:
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "gamma1": gamma1,
            "gamma2": gamma2,
            "gamma3": gamma3,
            "total_steps": total_steps,
            "eta_min": eta_min,
            "reset_interval": reset_interval,
            "reset_compat": reset_compat,
            "adaclip": adaclip,
            "adagn": adagn,
            "foreach": foreach,
        }
        super().__init__(params, defaults)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group; it joins the schedule and the resets where the others stand."""
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        try:
            _check(group)
        except (ValueError, TypeError):
            self.param_groups.pop()
            raise
        group.setdefault("step", self.param_groups[0].get("step", 0))

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
        found = [[p for p in g["params"] if p.grad is not None] for g in self.param_groups]
        maxima = _maxima([p for params in found for p in params])
        for group, params in zip(self.param_groups, found, strict=True):
            group["step"] += 1
            buckets: dict[Any, list[Tensor]] = {}
            for i, p in enumerate(params):
                s = self.state[p]
                if not s:
                    zero = torch.zeros((), dtype=wide(p), device=p.device)
                    s |= {"step": 0, "adam_step": 0, "max": zero}
                    s |= {"norm": zero.clone(), "square": zero.clone()}
                    s |= {"exp_avg": torch.zeros_like(p), "exp_avg_sq": torch.zeros_like(p)}
                alone = i if group["foreach"] is False else -1
                key = p.dtype, p.device, s["step"], s["adam_step"], alone
                buckets.setdefault(key, []).append(p)
            for bucket in buckets.values():
                self._update(bucket, group, maxima)
        return loss

    def _update(self, params: list[Tensor], group: dict[str, Any], maxima: dict[Any, Any]) -> None:
        """One step of tensors with the same dtype, device and past."""
        states = [self.state[p] for p in params]
        scale = _cosine(group["step"], group["total_steps"], group["eta_min"])
        for s in states:
            s["step"] += 1
            s["adam_step"] += 1
        blocks = _blocks(params, states)
        limits = None
        if group["adaclip"]:
            limits = _limits([maxima[p] for p in params], states, group)
        if limits is not None:
            for block in blocks:
                block.grads = _clipped(block, *limits)
        if group["adagn"]:
            factors = _factors(_sizes(blocks, params), states, group, scale)
            for block in blocks:
                block.grads = list(
                    torch._foreach_mul(block.grads, [factors[i] for i in block.owners])
                )
        official = group["reset_compat"] == "official"
        reset = group["reset_interval"] > 0 and group["step"] % group["reset_interval"] == 0
        moments = [s[name] for s in states for name in ("exp_avg", "exp_avg_sq")]
        if reset:
            for s in states:
                s["adam_step"] = 1
                if official:
                    s["step"] = 1
        if reset and not official:
            torch._foreach_zero_(moments)
        for block in blocks:
            _adam(block, states[0]["adam_step"], group, scale)
        if reset and official:
            torch._foreach_zero_(moments)


@dataclass
class _Block:
    """Pieces of tensors that are worked on while they are in the cache.

    Attributes:
        owners: which tensor each piece is of.
        params: pieces of the parameters.
        grads: of the gradients; clipped and rescaled on the way.
        first: of the first moments.
        second: of the second moments.
    """

    owners: list[int]
    params: list[Tensor]
    grads: list[Tensor]
    first: list[Tensor]
    second: list[Tensor]


def _blocks(params: list[Tensor], states: list[dict[str, Any]]) -> list[_Block]:
    """On the CPU blocks of pieces of flat views, elsewhere all tensors in one block."""
    blocks: list[_Block] = []
    room = 0
    for i, (p, s) in enumerate(zip(params, states, strict=True)):
        assert p.grad is not None
        four = [p.detach(), p.grad, s["exp_avg"], s["exp_avg_sq"]]
        cpu = p.device.type == "cpu"
        cut = cpu and p.numel() > PIECE and all(t.is_contiguous() for t in four)
        pieces = zip(*(t.view(-1).split(PIECE) for t in four), strict=True) if cut else [four]
        for piece in pieces:
            size = piece[0].numel()
            if not blocks or (cpu and size > room):
                blocks.append(_Block([], [], [], [], []))
                room = PIECE + PIECE // 4  # a full piece and the small tensors beside it
            room -= size
            block = blocks[-1]
            block.owners.append(i)
            lists = (block.params, block.grads, block.first, block.second)
            for tensors, t in zip(lists, piece, strict=True):
                tensors.append(t)
    return blocks


def _limits(
    maxima: list[Tensor], states: list[dict[str, Any]], group: dict[str, Any]
) -> tuple[list[Tensor], list[Tensor]]:
    """T̂ and T̂/max|g| of every tensor, as in ``adaclip``."""
    largest, average = torch.stack(maxima), torch.stack([s["max"] for s in states])
    average = average.lerp(largest, 1 - group["gamma3"])
    torch._foreach_copy_([s["max"] for s in states], list(average.unbind()))
    tops = average / (1 - group["gamma3"] ** states[0]["step"])
    # Of a zero gradient no entry is over the top, and 0 · nan would not be 0.
    ratios = torch.where(largest > tops, tops / largest, 1.0)
    return list(tops.unbind()), list(ratios.unbind())


def _clipped(block: _Block, tops: list[Tensor], ratios: list[Tensor]) -> list[Tensor]:
    """``adaclip``, g times ratio where |g| > top; comparisons to bool are slow on a CPU."""
    over = torch._foreach_abs(block.grads)
    torch._foreach_sub_(over, [tops[i] for i in block.owners])
    torch._foreach_clamp_min_(over, 0.0)
    torch._foreach_sign_(over)  # 1 where the entry is over, else 0
    torch._foreach_mul_(over, [ratios[i] - 1 for i in block.owners])
    torch._foreach_add_(over, 1.0)
    torch._foreach_mul_(over, block.grads)
    return list(over)


def _sizes(blocks: list[_Block], params: list[Tensor]) -> Tensor:
    """Norm of every gradient, put together from those of its pieces."""
    norms = [n for b in blocks for n in torch._foreach_norm(b.grads, 2, wide(params[0]))]
    sizes = torch.stack(norms)
    if len(norms) == len(params):
        return sizes
    counts = Counter(i for block in blocks for i in block.owners)
    parts = sizes.split([counts[i] for i in range(len(params))])
    return torch.stack([part.norm() for part in parts])


def _factors(
    size: Tensor, states: list[dict[str, Any]], group: dict[str, Any], scale: float
) -> list[Tensor]:
    """What every gradient is multiplied with, as in ``adagn``."""
    gamma1 = scale * (group["betas"][0] if group["gamma1"] == -1 else group["gamma1"])
    gamma2, t = group["gamma2"], states[0]["step"]
    norm = torch.stack([s["norm"] for s in states]).lerp(size, 1 - gamma1)
    square = torch.stack([s["square"] for s in states]).lerp(size.square(), 1 - gamma2)
    torch._foreach_copy_([s["norm"] for s in states], list(norm.unbind()))
    torch._foreach_copy_([s["square"] for s in states], list(square.unbind()))
    wanted = norm / (1 - gamma1**t) / ((square / (1 - gamma2**t)).sqrt() + group["eps"])
    return list(torch.where(size > 0, wanted / size, 1.0).unbind())


def _adam(
    block: _Block,
    t: int,
    group: dict[str, Any],
    scale: float,
) -> None:
    """Adam: p ← (1 − lr λ)p − lr m̂/(√v̂ + ε), both corrections drawn out of the fraction."""
    beta1, beta2 = group["betas"][0] * scale, group["betas"][1]
    if group["weight_decay"]:
        torch._foreach_mul_(block.params, 1 - group["lr"] * group["weight_decay"])
    torch._foreach_lerp_(block.first, block.grads, 1 - beta1)
    torch._foreach_mul_(block.second, beta2)
    torch._foreach_addcmul_(block.second, block.grads, block.grads, 1 - beta2)
    root = math.sqrt(1 - beta2**t)
    denominators = torch._foreach_sqrt(block.second)
    torch._foreach_add_(denominators, group["eps"] * root)
    step_size = group["lr"] * root / (1 - beta1**t)
    torch._foreach_addcdiv_(block.params, block.first, denominators, -step_size)


def _maxima(params: list[Tensor]) -> dict[Tensor, Tensor]:
    """Max |g| of every tensor; refuses gradients that would poison its average."""
    for p in params:
        if p.grad is not None and p.grad.layout != torch.strided:
            raise RuntimeError(f"StableSPAM takes dense gradients, got {p.grad.layout}")
    grads = [p.grad for p in params if p.grad is not None]
    found = dict(zip(params, [_largest(g) for g in grads], strict=True))
    here = [m.double() for m in found.values() if m.device.type == "cpu"]
    if here and not bool(torch.stack(here).isfinite().all()):
        bad = [p for p, m in found.items() if m.device.type == "cpu" and not bool(m.isfinite())]
        raise ValueError(
            f"StableSPAM: the gradient of a parameter of shape {tuple(bad[0].shape)} is not "
            "finite; no parameter was changed. Skip the step, or unscale the gradients first"
        )
    return found


def _largest(g: Tensor) -> Tensor:
    if not g.numel():
        return torch.zeros((), dtype=wide(g), device=g.device)
    low, high = torch.aminmax(g)
    return torch.maximum(-low, high).to(wide(g))


def _cosine(step: int, total_steps: int | None, eta_min: float) -> float:
    """1 at first, ``eta_min`` one step after the last; stays there."""
    if total_steps is None:
        return 1.0
    angle = math.pi * min(step, total_steps + 1) / (total_steps + 1)
    return eta_min + (1 - eta_min) * (1 + math.cos(angle)) / 2


def _check(group: dict[str, Any]) -> None:
    for name in ("lr", "eps", "weight_decay"):
        if not group[name] >= 0:
            raise ValueError(f"{name} must be ≥ 0, got {group[name]}")
    beta1, beta2 = group["betas"]
    gammas = {name: group[name] for name in ("gamma1", "gamma2", "gamma3")}
    if gammas["gamma1"] == -1:
        del gammas["gamma1"]
    for name, value in {"betas[0]": beta1, "betas[1]": beta2, **gammas}.items():
        if not 0 <= value < 1:
            raise ValueError(f"{name} must be in [0, 1), got {value}")
    if group["total_steps"] is not None and group["total_steps"] < 1:
        raise ValueError(f"total_steps must be at least 1 or None, got {group['total_steps']}")
    if not 0 <= group["eta_min"] <= 1:
        raise ValueError(f"eta_min must be in [0, 1], got {group['eta_min']}")
    if group["reset_interval"] < 0:
        raise ValueError(f"reset_interval must be ≥ 0, got {group['reset_interval']}")
    if group["reset_compat"] not in ("intended", "official"):
        raise ValueError(
            f"reset_compat must be 'intended' or 'official', got {group['reset_compat']!r}"
        )
    for p in group["params"]:
        if p.is_complex():
            raise TypeError(f"StableSPAM: a parameter is {p.dtype}; it must be real")
