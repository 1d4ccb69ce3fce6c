"""Steering vectors: the direction in activations that tells two kinds of inputs apart, and back.

Contrastive activation addition takes v = mean h(x⁺) − mean h(x⁻) at a layer and adds a multiple of
it there. A gradient step on the loss moves the same activations, by s = mean_x[h(x; θ − η∇L) −
h(x; θ)]; whether it moves them along v is a question to the network. Two random directions of a
layer of width d have |cos| ≈ √(2/(πd)).

Source: the vector is Rimsky et al. 2023, arXiv 2312.06681; the comparison I. Piontkovskaia, S.
Nikolenko 2026, arXiv 2606.10929. Layers whose output is (B, d) or (B, T, d), or a tuple with such a
tensor first, are covered; images (B, C, H, W) are not. Axes: `B` inputs, `T` tokens, `d` width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from thalweg.errors import unknown_name
from thalweg.numerics.displaced import displaced
from thalweg.numerics.untouched import untouched

__all__ = ["caa_vector", "gradient_step_shift", "steer"]


def caa_vector(
    model: nn.Module, layer: str | nn.Module, pos: Any, neg: Any, token: int = -1
) -> Tensor:
    """Mean activation on positive inputs less that on negative ones.

        v = mean h(x⁺) − mean h(x⁻)

    Weights, buffers, modes and random state are as before afterwards; dropout is off.

    Args:
        model: any module.
        layer: name of a submodule, or the submodule; its output is looked at.
        pos: inputs x⁺: a tensor, a tuple of arguments, or a mapping of keywords.
        neg: inputs x⁻.
        token: position that is read of (B, T, d); the same in both, so pad on the other side.

    Returns:
        (d,), of the dtype and device of the layer's output.

    Raises:
        ValueError: for an unknown layer, one that does not run, or an output of another shape.

    Cost: two forward passes.

    Source: arXiv 2312.06681; entry local-linear-structure.

    Example:
        >>> model = nn.Sequential(nn.Identity(), nn.Linear(2, 1))
        >>> caa_vector(model, "0", torch.tensor([[3.0, 1.0], [1.0, 1.0]]), torch.zeros(1, 2))
        tensor([2., 1.])
    """
    module = _layer(model, layer, "caa_vector")

    def mean(inputs: Any) -> Tensor:
        with torch.no_grad():
            return _mean_output(model, module, lambda: _call(model, inputs), token, "caa_vector")

    with _evaluated(model):
        return mean(pos) - mean(neg)


def gradient_step_shift(
    model: nn.Module,
    loss_fn: Callable[[nn.Module, Any], Tensor],
    layer: str | nn.Module,
    data: Any,
    lr: float,
    token: int = -1,
) -> Tensor:
    """How one gradient step moves the mean activation of a layer on the inputs of the loss.

        s = mean_x [h(x; θ − η∇L) − h(x; θ)]

    The model is left as it is, as by ``caa_vector``.

    Args:
        model: any module; only parameters that require a gradient move.
        loss_fn: (model, data) → scalar; it runs the model on the inputs that are looked at.
        layer: as in ``caa_vector``.
        data: what the loss takes.
        lr: η > 0; the direction settles as it goes to 0, but round-off grows.
        token: as in ``caa_vector``.

    Returns:
        (d,), of the dtype and device of the layer's output.

    Raises:
        ValueError: as ``caa_vector``; if η is not positive, nothing is trainable, or the loss is
            not finite.

    Cost: two forward passes, a backward pass, a copy of the weights.

    Source: arXiv 2606.10929; entry local-linear-structure.

    Example:
        >>> model = nn.Linear(2, 1, bias=False)
        >>> loss = lambda model, x: -model(x).mean()
        >>> x = torch.tensor([[1.0, 2.0], [3.0, 0.0]])  # of mean (2, 1)
        >>> gradient_step_shift(model, loss, model, x, lr=0.1).round(decimals=6)
        tensor([0.5000])
    """
    module = _layer(model, layer, "gradient_step_shift")
    params = [p for p in model.parameters() if p.requires_grad]
    if not lr > 0 or not params:
        raise ValueError(
            "gradient_step_shift: need lr > 0 and a trainable parameter, got "
            f"lr={lr}, {len(params)} parameters"
        )
    grads: tuple[Tensor | None, ...] = ()

    def with_gradient() -> None:
        nonlocal grads
        loss = loss_fn(model, data)
        if not bool(torch.isfinite(loss)):
            raise ValueError(f"gradient_step_shift: the loss is {float(loss.detach())}")
        grads = torch.autograd.grad(loss, params, allow_unused=True)

    def mean(call: Callable[[], Any]) -> Tensor:
        return _mean_output(model, module, call, token, "gradient_step_shift").detach()

    with _evaluated(model):
        before = mean(with_gradient)
        step = [None if g is None else -lr * g for g in grads]
        with displaced(params, step), torch.no_grad():
            return mean(lambda: loss_fn(model, data)) - before


@contextmanager
def steer(
    model: nn.Module,
    layer: str | nn.Module,
    vector: Tensor,
    alpha: float = 1.0,
    token: int | None = None,
) -> Iterator[None]:
    """Inside, α·vector is added to the output of a layer; the hook goes whatever happens.

    Two vectors compare at equal length only: give ``vector / vector.norm()``.

    Args:
        model: any module.
        layer: as in ``caa_vector``.
        vector: (d,).
        alpha: α, as it stands: the vector is not normalised.
        token: the only position to be moved; default: all.

    Raises:
        ValueError: for an unknown layer or an output that the vector does not fit.

    Source: arXiv 2312.06681; entry local-linear-structure.

    Example:
        >>> model = nn.Sequential(nn.Identity(), nn.Linear(1, 1, bias=False))
        >>> with torch.no_grad(), steer(model, "0", torch.ones(1), 2.0):
        ...     bool(model(torch.ones(1, 1)) == 3 * model[1].weight)
        True
    """
    module = _layer(model, layer, "steer")
    shift = alpha * vector.detach()

    def add(_: nn.Module, __: Any, output: Any) -> Any:
        h = _tensor(output, "steer")
        if vector.ndim != 1 or h.shape[-1] != len(vector):
            raise ValueError(
                f"steer: the layer gives {tuple(h.shape)}, which a vector of "
                f"{tuple(vector.shape)} does not fit"
            )
        if token is None or h.ndim == 2:
            h = h + shift.to(h)
        else:
            h = h.clone()
            h[:, token] += shift.to(h)
        return h if isinstance(output, Tensor) else type(output)((h, *output[1:]))

    hook = module.register_forward_hook(add)
    try:
        yield
    finally:
        hook.remove()


def _layer(model: nn.Module, layer: str | nn.Module, said_by: str) -> nn.Module:
    if isinstance(layer, str):
        try:
            return model.get_submodule(layer)
        except AttributeError:
            known = [name for name, _ in model.named_modules()]
            raise ValueError(f"{said_by}: {unknown_name('layer', layer, known)}") from None
    if not any(layer is module for module in model.modules()):
        raise ValueError(f"{said_by}: the layer is not a part of the model")
    return layer


@contextmanager
def _evaluated(model: nn.Module) -> Iterator[None]:
    training = [(module, module.training) for module in model.modules()]
    try:
        model.eval()
        with untouched(list(model.parameters())):
            yield
    finally:
        for module, mode in training:
            module.training = mode


def _call(model: nn.Module, inputs: Any) -> Any:
    if isinstance(inputs, Mapping):
        return model(**inputs)
    return model(*inputs) if isinstance(inputs, tuple) else model(inputs)


def _mean_output(
    model: nn.Module, module: nn.Module, call: Callable[[], Any], token: int, said_by: str
) -> Tensor:
    """Mean over all inputs on which the layer runs meanwhile."""
    seen = list[Tensor]()

    def keep(_: nn.Module, __: Any, output: Any) -> None:
        h = _tensor(output, said_by)
        seen.append(h.detach() if h.ndim == 2 else h.detach()[:, token])

    hook = module.register_forward_hook(keep)
    try:
        call()
    finally:
        hook.remove()
    if not seen or not sum(map(len, seen)):
        raise ValueError(f"{said_by}: the layer did not run on any input")
    return torch.cat(seen).mean(0)


def _tensor(output: Any, said_by: str) -> Tensor:
    h = output[0] if isinstance(output, tuple | list) and output else output
    if not isinstance(h, Tensor) or h.ndim not in (2, 3):
        got = tuple(h.shape) if isinstance(h, Tensor) else type(h).__name__
        raise ValueError(f"{said_by}: expected a layer with output (B, d) or (B, T, d), got {got}")
    return h
