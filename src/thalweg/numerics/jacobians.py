"""Jacobians of a network, sample by sample, and the Gram matrix of those in its parameters.

Each sample goes through the network as a batch of one, so that nothing mixes samples. Axes: `n`
samples, `C` outputs of one sample, `d` entries of one input, `P` parameters that require grad.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, jacrev, vmap

from thalweg.numerics.untouched import untouched

__all__ = ["entk_gram", "jacobian"]

Pair = tuple[Tensor, Tensor]
"""What goes into a layer and what comes out, a (n, units) and z (n, units)."""

MAX_BYTES = 1 << 29
"""Of a block of parameter Jacobian held at once by default."""


def jacobian(model: Callable[..., Any], x: Tensor, *, wrt: str = "inputs") -> Tensor:
    """Jacobian of the outputs of each sample.

        J_x = ∂f(x)/∂x   or   ∂f(x)/∂θ

    Args:
        model: a module, or for ``wrt="inputs"`` any callable, (n, ...) -> (n, ...). Dropout must
            be off; BatchNorm is taken in eval mode or not at all.
        x: (n, ...), floating for ``wrt="inputs"``.
        wrt: ``inputs`` or ``params``.

    Returns:
        (n, C, d) or (n, C, P), detached.

    Raises:
        ValueError: if x has no samples or wrt is neither.

    Cost: C backward passes.

    Example:
        >>> import torch
        >>> jacobian(lambda x: x @ torch.tensor([[2.0], [3.0]]), torch.ones(1, 2))
        tensor([[[2., 3.]]])
    """
    _check(x, "jacobian")
    if wrt == "inputs":
        if not x.is_floating_point():
            raise ValueError(
                f"jacobian: inputs of dtype {x.dtype} have no derivative; start at the embedding"
            )
        with untouched([x]):
            one = jacrev(lambda sample: model(sample.unsqueeze(0)).reshape(-1))
            return vmap(one)(x.detach()).reshape(len(x), -1, x[0].numel()).detach()
    if wrt == "params":
        if not isinstance(model, nn.Module):
            raise ValueError("jacobian: wrt='params' needs a Module")
        weights = dict(_trainable(model))
        return _parameter_jacobian(model, x, weights)
    raise ValueError(f"jacobian: wrt must be 'inputs' or 'params', got {wrt!r}")


def entk_gram(
    model: nn.Module, x: Tensor, *, outputs: str = "all", max_bytes: int = MAX_BYTES
) -> Tensor:
    """Empirical neural tangent kernel, the Gram matrix of the parameter Jacobian.

        K = J Jᵀ,   J = ∂f(x_i)_c / ∂θ,   row i·C + c

    For the Linear layers that see one vector a_i per sample J is never formed: with
    b_ic = ∂f_c/∂(output of the layer), such a layer adds (a_i·a_j + 1) (b_ic · b_je), the 1 for a
    bias. The others' columns of J are, a block at a time.

    Args:
        model: module, (n, ...) -> (n, ...); its parameters that require grad count.
        x: (n, ...).
        outputs: ``all``, or ``sum`` for the sum of the outputs of a sample.
        max_bytes: of the block of J held at once; parameters are split into groups to fit.

    Returns:
        (n·C, n·C), or (n, n) for ``sum``; positive semidefinite; detached.

    Raises:
        ValueError: if x has no samples, nothing requires grad, or outputs is neither.

    Cost: C backward passes and an (nC)² P or, for Linear layers, (nC)² (units) product. Networks
        with other layers go backward twice, once for each kind.

    Source: Jacot, Gabriel, Hongler 2018, arXiv 1806.07572; the Linear form from Novak,
        Sohl-Dickstein, Schoenholz 2022, arXiv 2206.08720.

    Example:
        >>> import torch
        >>> entk_gram(torch.nn.Linear(2, 1, bias=False), torch.tensor([[3.0, 4.0]]))
        tensor([[25.]])
    """
    _check(x, "entk_gram")
    if outputs not in ("all", "sum"):
        raise ValueError(f"entk_gram: outputs must be 'all' or 'sum', got {outputs!r}")
    K, covered = _linear_gram(model, x, outputs == "sum")
    weights = [(name, p) for name, p in _trainable(model) if id(p) not in covered]
    if not weights:
        assert K is not None
        return K
    wide = 1 if outputs == "sum" else max(1, _width(model, x))
    room = max(1, max_bytes // (wide * len(x) * x.new_empty((), dtype=torch.float32).itemsize))
    group: dict[str, Tensor] = {}
    for i, (name, p) in enumerate(weights):
        group[name] = p
        last = i + 1 == len(weights)
        if last or sum(w.numel() for w in group.values()) + weights[i + 1][1].numel() > room:
            J = _parameter_jacobian(model, x, group, outputs == "sum").flatten(0, 1)
            K = J @ J.T if K is None else K.addmm_(J, J.T)
            group = {}
    assert K is not None
    return K


def _parameter_jacobian(
    model: nn.Module, x: Tensor, weights: dict[str, Tensor], total: bool = False
) -> Tensor:
    """∂f/∂(these weights), (n, C, P'); C = 1 for the total of the outputs."""
    detached = {name: w.detach() for name, w in weights.items()}

    def one(w: dict[str, Tensor], sample: Tensor) -> Tensor:
        out = functional_call(model, w, (sample.unsqueeze(0),)).reshape(-1)
        return out.sum().reshape(1) if total else out

    with untouched(list(weights.values())):
        J = vmap(jacrev(one), in_dims=(None, 0))(detached, x.detach())
    return torch.cat([J[name].flatten(2) for name in weights], dim=2).detach()


def _linear_gram(model: nn.Module, x: Tensor, total: bool) -> tuple[Tensor | None, frozenset[int]]:
    """Linear layers' share of the kernel, from activations and backprops, and whose it is.

    The ids are those of the parameters covered; none, and no kernel, where samples mix.
    """
    uses = Counter(
        id(p) for m in model.modules() for p in m.parameters(recurse=False) if p.requires_grad
    )
    layers = [
        m
        for m in model.modules()
        if type(m) is nn.Linear and _trains(m) and all(uses[id(p)] <= 1 for p in m.parameters())
    ]
    seen: dict[nn.Linear, list[Pair]] = {layer: [] for layer in layers}

    def record(layer: nn.Module, args: tuple[Tensor, ...], out: Tensor) -> None:
        seen[layer].append((args[0].detach(), out))  # pyright: ignore[reportArgumentType]

    with untouched([p for _, p in _trainable(model)]):
        hooks = [layer.register_forward_hook(record) for layer in layers]
        try:
            out = model(x.detach())
        finally:
            for hook in hooks:
                hook.remove()
        n = len(x)
        once = {m: calls[0] for m, calls in seen.items() if len(calls) == 1}
        plain = {m: az for m, az in once.items() if all(t.ndim == 2 and len(t) == n for t in az)}
        if not plain or not isinstance(out, Tensor) or len(out) != n:
            return None, frozenset()
        if not _independent(model, x, out):
            return None, frozenset()
        plain = _hooked(plain, out)
        if not plain:
            return None, frozenset()
        flat = out.flatten(1)
        columns = [flat.sum()] if total else list(flat.sum(0))
        z = [t for _, t in plain.values()]
        slopes = [
            torch.autograd.grad(c, z, retain_graph=True, allow_unused=True, materialize_grads=True)
            for c in columns
        ]
    rows = n * len(columns)
    K = x.new_zeros((rows, rows), dtype=out.dtype)
    for i, (layer, (a, _)) in enumerate(plain.items()):
        B = torch.stack([s[i] for s in slopes], dim=1).flatten(0, 1)
        shared = a @ a.T if layer.weight.requires_grad else a.new_zeros((n, n))
        if layer.bias is not None and layer.bias.requires_grad:
            shared = shared + 1
        # (n, 1, n, 1) against (n, C, n, C): no copy of the small Gram per pair of outputs
        outer = (B @ B.T).view(n, len(columns), n, len(columns))
        K.view_as(outer).addcmul_(outer, shared[:, None, :, None])
    return K.detach(), frozenset(id(p) for layer in plain for p in layer.parameters())


def _hooked(plain: dict[nn.Linear, Pair], out: Tensor) -> dict[nn.Linear, Pair]:
    """The layers whose gradients are what their calls say: their weights are used nowhere else."""
    generator = torch.Generator().manual_seed(0)
    signs = torch.randint(2, out.shape, generator=generator).to(out) * 2 - 1
    probe = (out * signs).sum()
    wanted = [p for layer in plain for p in layer.parameters() if p.requires_grad]
    targets = [*wanted, *(z for _, z in plain.values())]
    found = torch.autograd.grad(
        probe, targets, retain_graph=True, allow_unused=True, materialize_grads=True
    )
    by_id = {id(t): g for t, g in zip(targets, found, strict=True)}
    kept: dict[nn.Linear, Pair] = {}
    for layer, (a, z) in plain.items():
        slope = by_id[id(z)]
        claims = [(layer.weight, slope.T @ a), (layer.bias, slope.sum(0))]
        pairs = [(by_id[id(p)], claim) for p, claim in claims if id(p) in by_id]
        if all(_close(true, claim) for true, claim in pairs):
            kept[layer] = (a, z)
    return kept


def _close(a: Tensor, b: Tensor) -> bool:
    """Equal up to the round-off of sums."""
    slack = min(0.1, 1e3 * torch.finfo(a.dtype).eps)
    return bool((a - b).abs().max() <= slack * a.abs().max())


def _independent(model: nn.Module, x: Tensor, out: Tensor) -> bool:
    """Whether samples alone give what they gave together (batch statistics or dropout don't)."""
    ends = [0, len(x) - 1]
    with torch.no_grad():
        alone = torch.cat([model(x[i : i + 1].detach()) for i in ends])
    together = out.detach()[ends]
    return _close(together, alone)


def _width(model: nn.Module, x: Tensor) -> int:
    with untouched([p for _, p in _trainable(model)]), torch.no_grad():
        return model(x[:1].detach()).numel()


def _trains(module: nn.Module) -> bool:
    return any(p.requires_grad for p in module.parameters())


def _trainable(model: nn.Module) -> list[tuple[str, Tensor]]:
    weights: list[tuple[str, Tensor]] = []
    weights += [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    if not weights:
        raise ValueError("jacobian: no parameter of the model requires grad")
    return weights


def _check(x: Tensor, who: str) -> None:
    if not isinstance(x, Tensor) or x.ndim == 0 or len(x) == 0:
        raise ValueError(f"{who}: x must hold at least one sample, (n, ...)")
