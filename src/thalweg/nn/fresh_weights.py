"""Weights as they would be if a module were made anew, without making it anew.

Source: the redrawing of weights in shrink and perturb (J. Ash, R. Adams 2020, arXiv 1910.08475) and
in ReDo (G. Sokar et al. 2023, arXiv 2302.12902); how it is done here is ours.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["fresh_weights"]


def fresh_weights(
    module: nn.Module, *, generator: torch.Generator | None = None
) -> dict[str, Tensor]:
    """Draws every parameter as the ``reset_parameters`` of its module does.

    Args:
        module: left as it is; its layers' own ``reset_parameters`` are called on blank copies.
        generator: of the draw; without it the global one is used and moves on.

    Returns:
        Name, as in ``named_parameters()``, to a new tensor.

    Raises:
        ValueError: if a parameter is drawn by no ``reset_parameters``.

    Example:
        >>> sorted(fresh_weights(nn.Sequential(nn.Linear(2, 2))))
        ['0.bias', '0.weight']
    """
    blank = _blank(module, {})
    if generator is None:
        _reset(blank)
    else:
        cuda = sorted({p.device.index for p in module.parameters() if p.device.type == "cuda"})
        with torch.random.fork_rng(devices=cuda):
            drawn = torch.randint(2**62, (), generator=generator, device=generator.device)
            torch.manual_seed(int(drawn))
            _reset(blank)
    found = {name: p.detach() for name, p in blank.named_parameters()}
    missed = [name for name, p in found.items() if p.numel() and bool(p.isnan().any())]
    if missed:
        raise ValueError(
            f"nothing says how {missed} are drawn: give their modules a method reset_parameters"
        )
    return found


def _blank(module: nn.Module, seen: dict[int, Any]) -> nn.Module:
    """A copy of the structure alone: parameters are nan, hooks are not taken along."""
    if id(module) in seen:
        return seen[id(module)]
    clone = seen[id(module)] = copy.copy(module)
    inside = clone.__dict__
    inside["_parameters"] = {}
    for name, p in module._parameters.items():
        if p is not None and id(p) not in seen:
            new = torch.empty_like(p, memory_format=torch.contiguous_format)
            seen[id(p)] = nn.Parameter(
                new.fill_(float("nan")) if p.is_floating_point() else new.zero_(),
                requires_grad=False,
            )
        inside["_parameters"][name] = None if p is None else seen[id(p)]
    inside["_buffers"] = {
        name: None if b is None else b.clone() for name, b in module._buffers.items()
    }
    inside["_modules"] = {
        name: None if m is None else _blank(m, seen) for name, m in module._modules.items()
    }
    return clone


def _reset(blank: nn.Module) -> None:
    # The inner ones first: an outer module may have its own ideas of their weights.
    with torch.no_grad():
        for sub in reversed(list(blank.modules())):
            reset = getattr(sub, "reset_parameters", getattr(sub, "_reset_parameters", None))
            if callable(reset):
                reset()
