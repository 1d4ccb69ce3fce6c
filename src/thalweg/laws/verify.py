"""Does a law hold? The loss must not change along its generator, whatever the loss.

    |⟨∇L, A(θ)c⟩| / Σ_p ‖∇_p L‖ ‖A_p‖   for random losses L and random combinations c

The check is made at a generic point near the present weights: at an initialisation with zero biases
a law with the wrong bias term would pass. Norms are given ε = 0, since their scale invariance is
exact only there; what the real ε leaves is said in the law's note.

Source: the Noether identity as in D. Kunin et al. 2020, arXiv 2012.04728.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from thalweg.laws.law import Law
from thalweg.laws.shifts import CROSS_ENTROPY
from thalweg.laws.trace import call, double_precision, outputs_of

__all__ = ["TOLERANCE", "check_forward", "verify_laws"]

#: Largest relative change along a generator that round-off of a float64 forward may leave.
TOLERANCE = 1e-9
_FLOOR = 1e-4  # a parameter whose gradient vanishes is measured against the whole gradient
_NEGLIGIBLE = 1e-30  # for ε: torch refuses zero
_EPS_NAMES = ("eps", "epsilon", "variance_epsilon", "layer_norm_eps")


def verify_laws(
    module: nn.Module,
    inputs: Any,
    laws: Sequence[Law],
    *,
    num_draws: int = 3,
    generator: torch.Generator | None = None,
) -> list[Law]:
    """The laws with ``verified`` and ``defect`` filled in, those that fail included.

    Args:
        module: from ``prepared``: float64, no dropout.
        inputs: a tensor, tuple or dict.
        laws: to be checked.
        num_draws: random losses, each with a combination of every law's scalars.
        generator: of the draws.
    """
    generator = generator or torch.Generator().manual_seed(0)
    generic = _generic(module, generator)
    exact = copy.deepcopy(generic)
    _without_eps(exact)
    worst = [0.0] * len(laws)
    with_eps = [0.0] * len(laws)
    for _ in range(num_draws):
        seed = int(torch.randint(2**31, (1,), generator=generator))
        grads = {ce: _gradient(exact, inputs, ce, seed, eps=False) for ce in (False, True)}
        params = dict(exact.named_parameters())
        real = _gradient(generic, inputs, False, seed, eps=True)
        whole = {id(g): _norm(g) for g in (*grads.values(), real)}
        for i, law in enumerate(laws):
            c = torch.randn(law.count(params), generator=generator, dtype=torch.float64)
            under_ce = CROSS_ENTROPY in law.note
            worst[i] = max(worst[i], _defect(law, params, grads[under_ce], c, whole))
            if "eps" in law.note:
                with_eps[i] = max(with_eps[i], _defect(law, params, real, c, whole))
    checked = []
    for law, defect, left in zip(laws, worst, with_eps, strict=True):
        note = law.note
        if "eps" in note:
            note += f"; at these weights it leaves a relative rate of {left:.0e}"
        ok = defect <= TOLERANCE
        checked.append(replace(law, verified=ok, defect=defect, note=note))
    return checked


def _norm(tensors: dict[str, Tensor]) -> float:
    return sum(float(t.square().sum()) for t in tensors.values()) ** 0.5


def _defect(
    law: Law, params: dict[str, Any], grads: dict[str, Tensor], c: Tensor, whole: dict[int, float]
) -> float:
    moved = law.generator(params, c)
    along = sum(float((grads[n] * t).sum()) for n, t in moved.items())
    size = sum(float(grads[n].norm() * t.norm()) for n, t in moved.items())
    scale = max(size, _FLOOR * whole[id(grads)] * _norm(moved))
    return abs(along) / scale if scale > 0 else 0.0


def _gradient(
    module: nn.Module, inputs: Any, cross_entropy: bool, seed: int, *, eps: bool
) -> dict[str, Tensor]:
    """The gradient of a random loss: a curved functional of the outputs, or a cross-entropy."""
    gen = torch.Generator().manual_seed(seed)
    zero = contextlib.nullcontext() if eps else _NoEps()
    with double_precision(), zero, torch.enable_grad():
        loss: Any = 0.0
        for out in outputs_of(call(module, inputs)):
            weight = torch.randn(out.shape, generator=gen, dtype=torch.float64)
            if cross_entropy:
                axis = 1 if out.ndim > 3 else -1
                target = weight.softmax(axis)
                loss = loss - (target * out.log_softmax(axis)).sum()
            else:
                loss = loss + (weight * (out + 0.1 * out * out)).sum()
    params = {n: p for n, p in module.named_parameters() if p.requires_grad}
    found = torch.autograd.grad(loss, list(params.values()), allow_unused=True)
    return {
        n: torch.zeros_like(p) if g is None else g
        for (n, p), g in zip(params.items(), found, strict=True)
    }


def _generic(module: nn.Module, generator: torch.Generator) -> nn.Module:
    """A copy whose parameters are moved to a generic point of the same size."""
    moved = copy.deepcopy(module)
    with torch.no_grad():
        for p in moved.parameters():
            size = p.square().mean().sqrt()
            size = torch.where(size > 0, size, torch.full_like(size, 0.1))
            noise = torch.randn(p.shape, generator=generator, dtype=torch.float64)
            p.add_(0.3 * size * noise.to(p))
        for table, kept in zip(moved.modules(), module.modules(), strict=True):
            if isinstance(table, nn.Embedding) and table.padding_idx is not None:
                # Its row has no gradient: it stays what it is, zero by default.
                row, same = table.padding_idx, cast(nn.Embedding, kept)
                table.weight[row] = same.weight[row]
    return moved


def _without_eps(module: nn.Module) -> None:
    for sub in module.modules():
        for name in _EPS_NAMES:
            if isinstance(getattr(sub, name, None), float):
                setattr(sub, name, _NEGLIGIBLE)


class _NoEps(TorchFunctionMode):
    """Norms that are called as functions, without ε."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        place = {"layer_norm": 4, "group_norm": 4, "batch_norm": 7, "instance_norm": 7}.get(name)
        if place is not None:
            args = (
                *args[:place],
                *([_NEGLIGIBLE] if len(args) > place else []),
                *args[place + 1 :],
            )
            if len(args) <= place:
                kwargs = {**kwargs, "eps": _NEGLIGIBLE}
        return func(*args, **kwargs)


def check_forward(module: nn.Module, inputs: Any) -> None:
    """Refuses forwards that are random or leave traces, and names the module that does.

    Args:
        module: from ``prepared``.
        inputs: a tensor, tuple or dict.

    Raises:
        ValueError: if two calls differ, or a call changes a buffer or parameter.
    """
    state = {n: t.detach().clone() for n, t in _state(module)}
    first, second = _outputs(module, inputs), _outputs(module, inputs)
    for name, tensor in _state(module):
        if name in state and not torch.equal(state[name], tensor.detach()):
            owner = name.rpartition(".")[0] or type(module).__name__
            raise ValueError(
                f"known_laws: a forward must leave the module as it was, but {owner!r} changed "
                f"{name!r}. Replace the layer, or take that update out of forward()"
            )
    for name in dict.fromkeys([*first, *second]):
        same = len(first.get(name, [])) == len(second.get(name, [])) and all(
            torch.equal(a, b) for a, b in zip(first[name], second.get(name, []), strict=True)
        )
        if not same:
            raise ValueError(
                f"known_laws: two forwards on one input must agree, but the output of "
                f"{name or type(module).__name__!r} differed between them in eval mode. Fix what "
                "it draws, or leave it out"
            )


def _state(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from module.named_parameters()
    yield from module.named_buffers()


def _outputs(module: nn.Module, inputs: Any) -> dict[str, list[Tensor]]:
    """Outputs by module, innermost first as they return."""
    found: dict[str, list[Tensor]] = {}

    def keep(name: str) -> Any:
        def hook(sub: nn.Module, args: Any, out: Any) -> None:
            tensors = out if isinstance(out, tuple | list) else outputs_of(out)
            kept = [t.detach().clone() for t in tensors if isinstance(t, Tensor)]
            found.setdefault(name, []).extend(kept)

        return hook

    handles = [sub.register_forward_hook(keep(name)) for name, sub in module.named_modules()]
    try:
        with double_precision():
            call(module, inputs)
    finally:
        for handle in handles:
            handle.remove()
    return found
