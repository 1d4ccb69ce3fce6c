"""Vector fields of a module: the gradients that its loss can have on data from a sampler.

For squared error the family is split as the loss is, ∇½‖f(x)‖² and ∇⟨y, f(x)⟩, since data enter
through these two alone. A group on the inputs averages both over its elements: what is left are the
gradients on fully augmented data.

Source: Galley, Shahverdi, Flinth 2026, arXiv 2606.10913.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, Literal

import torch
from scipy.linalg import qr
from torch import Tensor, nn
from torch.func import functional_call, grad, jacrev, vmap
from torch.overrides import TorchFunctionMode

from thalweg.laws.fields import Fields, generic_point
from thalweg.laws.rank import unit_rows
from thalweg.numerics.group import Group

__all__ = ["fields_from_model"]

Loss = Literal["mse", "logistic", "cross-entropy", "any"]
Batch = tuple[Tensor, Tensor]
MAX_SAMPLES = 192
_KINKS = {
    *("relu", "relu_", "leaky_relu", "prelu", "rrelu", "relu6", "hardtanh", "hardswish"),
    *("hardsigmoid", "threshold", "max_pool1d", "max_pool2d", "max_pool3d", "abs", "max", "amax"),
    *("maximum", "minimum", "clamp", "clamp_min", "clamp_max", "sign", "round", "floor"),
}


def fields_from_model(
    model: nn.Module,
    loss: Loss | Callable[[Tensor, Tensor], Tensor],
    sample: Batch | Callable[[torch.Generator], Batch],
    group: Group | None = None,
    out_rep: Tensor | Literal["trivial"] | None = None,
    *,
    num_samples: int | None = None,
    generator: torch.Generator | None = None,
) -> Fields:
    """The gradients of a module's loss, one or two fields per sample, in float64.

    Args:
        model: called as ``model(x)`` with x (B, …); its trainable parameters are θ. It is copied.
        loss: ``mse``, ``logistic`` (targets ±1), ``cross-entropy`` (class targets), ``any`` (every
            output coordinate by itself: any loss), or a callable
            ``(prediction, target) -> scalar`` over a batch of one.
        sample: a fixed ``(x, y)``, or a callable that draws one.
        group: acts on the last axis of x (or on all of a flattened sample); gradients are averaged
            over its elements.
        out_rep: (g, m, m) how the group acts on targets; ``trivial`` for invariant ones. A single
            output is invariant by itself.
        num_samples: how many samples to draw; default 4 D + 8, at most 192.
        generator: of the draws.

    Returns:
        The family.

    Raises:
        ValueError: if the forward is not deterministic or changes buffers, if shapes do not fit
            the group, or if vector targets have no ``out_rep``.
    """
    generator = generator or torch.Generator().manual_seed(0)
    module = copy.deepcopy(model).double()
    params = {n: p for n, p in module.named_parameters() if p.requires_grad}
    if not params:
        raise ValueError("the model has no trainable parameters, so there is nothing to conserve")
    dim = sum(p.numel() for p in params.values())
    x, y = _draw(sample, num_samples or min(4 * dim + 8, MAX_SAMPLES), generator)
    _check_forward(module, x)
    kink = _kink(module, x)
    images = x[None] if group is None else _act(group, x)
    target = _targets(module, x, y, loss, group, out_rep)
    orbit, count = images.shape[:2]

    def losses(theta: Tensor) -> Tensor:
        """(d,) every component of the family's potential."""
        weights = _unflatten(theta, params)
        flat = images.reshape(-1, *images.shape[2:])
        out: Any = functional_call(module, weights, (flat,))
        out = out.reshape(orbit, count, -1)
        return _components(out, target, loss)

    number = len(losses(generic_point(dim, generator=generator)))
    chosen = _spanning(jacrev(losses), dim, number, generator)
    whole = len(chosen) < number
    # Only the samples that the chosen fields come from are evaluated from here on.
    samples = torch.tensor(sorted({i % len(x) for i in chosen.tolist()}))
    places = {int(s): i for i, s in enumerate(samples)}
    kept = [int(i) // len(x) * len(samples) + places[int(i) % len(x)] for i in chosen]
    if loss != "any":
        images, target, count = images[:, samples], target[:, samples], len(samples)
        picked = torch.tensor(kept)
    else:
        picked = chosen

    def potentials(theta: Tensor) -> Tensor:
        return losses(theta)[picked]

    def combine(theta: Tensor, coefficients: Tensor) -> Tensor:
        return grad(lambda t: (coefficients * potentials(t)).sum())(theta)

    names = _names(params)
    return Fields(combine, dim, len(picked), names, whole, kink, every=jacrev(potentials))


def _spanning(
    every: Callable[[Tensor], Tensor], dim: int, number: int, generator: torch.Generator
) -> Tensor:
    """Indices of fields whose span, as functions of θ, is that of all.

    Brackets need the whole span, and each field costs: of 200 samples' gradients perhaps ten are
    independent. Evaluated at enough points, functions are vectors.
    """
    points = number // dim + 3
    values = unit_rows(
        torch.cat([every(generic_point(dim, generator=generator)) for _ in range(points)], 1)
    )
    found: Any = qr(values.numpy().T, mode="economic", pivoting=True)
    _, r, order = found
    diagonal = abs(r.diagonal())
    rank = int((diagonal > 1e-9 * diagonal[0]).sum())
    return torch.from_numpy(order[:rank].copy()).sort().values


def _components(out: Tensor, target: Tensor, loss: Any) -> Tensor:
    """Potentials of the fields from outputs (g, N, m) and targets (g, N, …)."""
    if loss == "mse":
        squares = out.square().sum(-1).mean(0) / 2
        return torch.cat([squares, (out * target).sum(-1).mean(0)])
    if loss == "any":
        return out.mean(0).reshape(-1)
    if loss == "logistic":
        margins = target * out[..., 0]
        return nn.functional.softplus(-margins).mean(0)
    if loss == "cross-entropy":
        return -(target * out.log_softmax(-1)).sum(-1).mean(0)
    # A batch of one for every image of every sample.
    each = vmap(vmap(loss))(out.unsqueeze(2), target.unsqueeze(2))
    return each.mean(0)


def _targets(
    module: nn.Module,
    x: Tensor,
    y: Tensor,
    loss: Any,
    group: Group | None,
    out_rep: Tensor | str | None,
) -> Tensor:
    """(g, N, m) or (g, N) the target of every image of every sample."""
    with torch.no_grad():
        width = module(x[:1]).reshape(1, -1).shape[1]
    orbit = 1 if group is None else group.order
    if loss == "any":
        if group is not None:
            raise ValueError("loss='any' means any data, which a group has nothing to say about")
        return y.reshape(1, len(x), -1)
    if loss == "cross-entropy":
        if y.ndim == 1:
            y = nn.functional.one_hot(y.long(), width)
        y = y.double()
    elif loss == "logistic":
        if width != 1 or not bool((y.abs() == 1).all()):
            raise ValueError("loss='logistic' needs one output and targets +1 or -1")
        return y.double().reshape(1, -1).expand(orbit, -1)
    elif loss == "mse":
        y = y.double().reshape(len(x), -1)
        if y.shape[1] != width:
            raise ValueError(f"targets have {y.shape[1]} components, the model {width}")
    elif callable(loss):
        y = y.double() if y.is_floating_point() else y
    else:
        raise ValueError(
            f"loss must be mse, logistic, cross-entropy, any or callable, got {loss!r}"
        )
    if group is None:
        return y[None]
    if out_rep is None and width > 1:
        raise ValueError(
            f"the model has {width} outputs: say how the group acts on targets, out_rep=(g, "
            f"{width}, {width}) matrices, or out_rep='trivial' if they are invariant"
        )
    if out_rep is None or isinstance(out_rep, str):
        return y[None].expand(orbit, *y.shape)
    rep = torch.as_tensor(out_rep).double()
    if rep.shape != (orbit, y.shape[-1], y.shape[-1]):
        raise ValueError(
            f"out_rep must have shape ({orbit}, {y.shape[-1]}, {y.shape[-1]}), got "
            f"{tuple(rep.shape)}"
        )
    return torch.einsum("gij,nj->gni", rep, y.double())


def _act(group: Group, x: Tensor) -> Tensor:
    """(g, N, …) the images of every sample."""
    if x.shape[-1] == group.dim:
        return torch.einsum("gij,n...j->gn...i", group.elements, x)
    if x[0].numel() == group.dim:
        moved = torch.einsum("gij,nj->gni", group.elements, x.flatten(1))
        return moved.reshape(group.order, *x.shape)
    raise ValueError(
        f"the group acts on {group.dim} coordinates, samples have shape {tuple(x.shape[1:])}"
    )


def _draw(
    sample: Batch | Callable[[torch.Generator], Batch], number: int, generator: torch.Generator
) -> Batch:
    if not callable(sample):
        x, y = sample
        return _real(x), y
    xs, ys, seen = [], [], 0
    while seen < number:
        x, y = sample(generator)
        xs.append(_real(x))
        ys.append(y)
        seen += len(x)
    return torch.cat(xs)[:number], torch.cat(ys)[:number]


def _real(x: Tensor) -> Tensor:
    return x.double() if x.is_floating_point() else x


def _check_forward(module: nn.Module, x: Tensor) -> None:
    """Refuses forwards that are random or leave traces."""
    before = {n: b.clone() for n, b in module.named_buffers()}
    with torch.no_grad():
        first, second = module(x), module(x)
    for name, buffer in module.named_buffers():
        if not torch.equal(before[name], buffer):
            raise ValueError(
                f"the forward changes the buffer {name!r}: call model.eval() first, or replace "
                "the layer"
            )
    if not isinstance(first, Tensor):
        raise ValueError(f"the model must return a tensor, got {type(first).__name__}")
    if not torch.equal(first, second):
        drops = [n or "model" for n, m in module.named_modules() if "Dropout" in type(m).__name__]
        named = f" (dropout in {', '.join(drops)})" if drops else ""
        raise ValueError(
            f"the forward is not deterministic{named}: call model.eval(), or fix what it draws"
        )


def _kink(module: nn.Module, x: Tensor) -> str:
    """The first operation with a kink, and the module that calls it."""
    inside: list[str] = []
    found: list[str] = []

    class Watch(TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            name = getattr(func, "__name__", "")
            if name in _KINKS and not found:
                found.append(f"{name} in {inside[-1]!r}" if inside and inside[-1] else name)
            return func(*args, **(kwargs or {}))

    def enter(name: str) -> Callable[..., None]:
        return lambda *_: inside.append(name)

    hooks = []
    for name, sub in module.named_modules():
        hooks.append(sub.register_forward_pre_hook(enter(name)))
        hooks.append(sub.register_forward_hook(lambda *_: inside.pop() and None))
    try:
        with torch.no_grad(), Watch():
            module(x[:1])
    finally:
        for hook in hooks:
            hook.remove()
    return found[0] if found else ""


def _unflatten(theta: Tensor, params: dict[str, nn.Parameter]) -> dict[str, Tensor]:
    parts = theta.split([p.numel() for p in params.values()])
    return {n: t.reshape(p.shape) for (n, p), t in zip(params.items(), parts, strict=True)}


def _names(params: dict[str, nn.Parameter]) -> tuple[str, ...]:
    names = []
    for name, p in params.items():
        if p.ndim == 0:
            names.append(name)
        for index in torch.cartesian_prod(*map(torch.arange, p.shape)) if p.ndim else ():
            listed = index.reshape(-1).tolist()
            names.append(f"{name}[{','.join(map(str, listed))}]")
    return tuple(names)
