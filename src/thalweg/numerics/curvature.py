"""Hessian and Gauss–Newton products of a loss, exact, without forming the matrix.

The graph of the gradient is built once by ``torch.autograd.grad(..., create_graph=True)`` and
differentiated again for every product, so that a product costs about as much as one or two
gradients. Nothing is left behind: no ``.grad``, no change of weights, buffers, mode or random
state. Axes: `P` parameters in all, in the order given, each flattened.

Source: products of the Hessian: Pearlmutter 1994, Neural Computation 6(1); of the Gauss–Newton
matrix: Schraudolph 2002, Neural Computation 14(7); entry sgd-dynamical-stability.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn

from thalweg.numerics.operators import LinearOperator
from thalweg.numerics.untouched import random_state, set_random_state, untouched

__all__ = ["CurvatureOperator", "ggnvp", "hessian_operator", "hvp"]

Tensors = tuple[Tensor, ...]
Product = Callable[[Tensors], Tensors]
"""A product of the matrix with a vector that comes, and goes, as one tensor per parameter."""


class CurvatureOperator(LinearOperator):
    """A curvature matrix of a loss at the present weights.

    With ``retain`` the graph is kept between products, as is the memory it holds: close the
    operator, or use it in a ``with`` statement, when done. Without, each product evaluates the
    loss again, with the same random numbers.

    Attributes:
        loss: the value of the loss, 0-d.
        params: the parameters, tuple of tensors.
    """

    def __init__(
        self,
        builds: Sequence[Callable[[], tuple[Tensor, Product]]],
        weights: Sequence[float],
        params: Sequence[Tensor],
        *,
        retain: bool,
    ) -> None:
        self.params: Tensors = tuple(params)
        dtypes = {p.dtype for p in self.params}
        super().__init__(
            self._product,
            sum(p.numel() for p in self.params),
            dtype=torch.float64 if torch.float64 in dtypes else torch.float32,
            device=self.params[0].device,
        )
        self._builds, self._weights = list(builds), list(weights)
        self._rng = random_state(self.params)
        self._sizes = [p.numel() for p in self.params]
        self._products: list[Product] | None = [] if retain else None
        self._open = True
        self.loss = torch.zeros((), dtype=self.dtype, device=self.device)
        for i, weight in enumerate(weights):
            loss, product = self._build(i)
            self.loss += weight * loss
            if self._products is not None:
                self._products.append(product)

    def close(self) -> None:
        """Lets go of the graph and of the closures; the operator can't multiply afterwards."""
        self._products, self._builds, self._open = None, [], False

    def __enter__(self) -> CurvatureOperator:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _build(self, i: int) -> tuple[Tensor, Product]:
        with untouched(self.params):
            set_random_state(self._rng)
            return self._builds[i]()

    def _product(self, v: Tensor) -> Tensor:
        """Σ_i w_i A_i v over the micro-batches, (P,)."""
        if not self._open:
            raise RuntimeError("this curvature operator is closed; make a new one")
        pieces = zip(v.split(self._sizes), self.params, strict=True)
        parts = tuple(piece.reshape(p.shape).to(p) for piece, p in pieces)
        total: Tensor | None = None
        for i, weight in enumerate(self._weights):
            product = self._products[i] if self._products is not None else self._build(i)[1]
            flat = torch.cat([t.reshape(-1).to(self.dtype) for t in product(parts)])
            total = weight * flat if total is None else total.add_(flat, alpha=weight)
        return torch.zeros_like(v) if total is None else total


def hessian_operator(
    closure: Callable[[], Tensor], params: Sequence[Tensor], *, retain: bool = True
) -> CurvatureOperator:
    """Hessian of a loss in the parameters that it is computed from.

        H v = ∂/∂θ ⟨∂L/∂θ, v⟩

    Args:
        closure: evaluates the loss at the present weights; calls no backward.
        params: floating tensors that require grad; those the loss ignores give zero rows.
        retain: keep the graph between products (fast, holds its memory), or evaluate the loss
            anew for each.

    Returns:
        Symmetric operator with P rows; use it in a ``with`` statement to free the graph.

    Raises:
        ValueError: if the loss is not a differentiable scalar or a parameter can't be used.

    Cost: a gradient once, then about two gradients a product.

    Source: Pearlmutter 1994, Neural Computation 6(1); here by reverse mode twice.

    Example:
        >>> import torch
        >>> w = torch.ones(2, requires_grad=True)
        >>> with hessian_operator(lambda: (w**4).sum(), [w]) as H:
        ...     H.matvec(torch.tensor([1.0, 2.0]))
        tensor([12., 24.])
    """
    params = _checked(params, "hessian_operator")
    return CurvatureOperator(
        [lambda: _hessian_product(closure, params)], [1.0], params, retain=retain
    )


def hvp(
    model: Callable[..., Any],
    loss_fn: Callable[[Any, Any], Tensor],
    data: Any,
    *,
    params: Sequence[Tensor] | None = None,
    retain: bool | None = None,
) -> CurvatureOperator:
    """Hessian of ``loss_fn(model, batch)`` in the model's parameters.

    Args:
        model: a module, or any callable if ``params`` is given.
        loss_fn: ``(model, batch) -> scalar``, a mean over the batch.
        data: one batch, or a list of micro-batches whose losses are averaged by their sizes (the
            length of the first tensor found in each). A list of tensors is one batch.
        params: what to differentiate in, default all parameters that require grad.
        retain: keep the graphs, default for a single batch only.

    Returns:
        Symmetric operator with P rows.

    Raises:
        ValueError: as ``hessian_operator``; if data is empty.

    Example:
        Linear least squares, ½(wx)²: the Hessian is x².

        >>> import torch
        >>> model = torch.nn.Linear(1, 1, bias=False)
        >>> H = hvp(model, lambda m, x: 0.5 * m(x).square().mean(), torch.tensor([[3.0]]))
        >>> H.dense()
        tensor([[9.]])
    """
    params = _params(model, params, "hvp")
    batches, weights = _micro_batches(data, "hvp")

    def build(batch: Any) -> Callable[[], tuple[Tensor, Product]]:
        return lambda: _hessian_product(lambda: loss_fn(model, batch), params)

    retain = len(batches) == 1 if retain is None else retain
    return CurvatureOperator([build(b) for b in batches], weights, params, retain=retain)


def ggnvp(
    model: Callable[..., Any],
    loss_fn: Callable[[Any, Any], Tensor],
    data: Any,
    *,
    params: Sequence[Tensor] | None = None,
    retain: bool | None = None,
) -> CurvatureOperator:
    """Generalised Gauss–Newton matrix of ``loss_fn(model, batch)``.

        G v = Jᵀ (∂²L/∂z²) J v,   z = model(...), J = ∂z/∂θ

    Positive semidefinite for a loss that is convex in z, equal to the Hessian where the model is
    linear in its parameters or every residual is zero.

    Args:
        model: a module or callable; its output (all outputs, if called more than once) is z: a
            tensor, or an object with ``.logits``.
        loss_fn: ``(model, batch) -> scalar``; reaches the parameters through z only.
        data: as for ``hvp``.
        params: as for ``hvp``.
        retain: as for ``hvp``.

    Raises:
        ValueError: as ``hvp``; if loss_fn never calls the model.

    Cost: about three gradients a product.

    Source: Schraudolph 2002, Neural Computation 14(7); J v by two vector–Jacobian products.

    Example:
        >>> import torch
        >>> model = torch.nn.Linear(1, 1, bias=False)
        >>> G = ggnvp(model, lambda m, x: 0.5 * m(x).square().mean(), torch.tensor([[3.0]]))
        >>> G.dense()
        tensor([[9.]])
    """
    params = _params(model, params, "ggnvp")
    batches, weights = _micro_batches(data, "ggnvp")

    def build(batch: Any) -> Callable[[], tuple[Tensor, Product]]:
        return lambda: _ggn_product(model, loss_fn, batch, params)

    retain = len(batches) == 1 if retain is None else retain
    return CurvatureOperator([build(b) for b in batches], weights, params, retain=retain)


def _hessian_product(
    closure: Callable[[], Tensor], params: Sequence[Tensor]
) -> tuple[Tensor, Product]:
    loss = _scalar(closure())
    grads = torch.autograd.grad(loss, params, create_graph=True, allow_unused=True)
    _check_twice(grads)
    return loss.detach(), lambda v: _vjp(grads, params, v)


def _ggn_product(
    model: Callable[..., Any],
    loss_fn: Callable[[Any, Any], Tensor],
    batch: Any,
    params: Sequence[Tensor],
) -> tuple[Tensor, Product]:
    outputs: list[Tensor] = []

    def record(*args: Any, **kwargs: Any) -> Any:
        out = args[2] if isinstance(model, nn.Module) else model(*args, **kwargs)
        z = getattr(out, "logits", out)
        if not isinstance(z, Tensor):
            raise ValueError(f"ggnvp: the model's output must be a tensor, got {type(z).__name__}")
        outputs.append(z)
        return None if isinstance(model, nn.Module) else out

    if isinstance(model, nn.Module):
        hook = model.register_forward_hook(record)
        try:
            loss = _scalar(loss_fn(model, batch))
        finally:
            hook.remove()
    else:
        loss = _scalar(loss_fn(record, batch))
    if not outputs:
        raise ValueError("ggnvp: loss_fn never called the model it was given")
    z = tuple(outputs)
    slope = torch.autograd.grad(loss, z, create_graph=True, allow_unused=True)
    _check_twice(slope)
    dummy = tuple(torch.zeros_like(t, requires_grad=True) for t in z)
    pulled = torch.autograd.grad(z, params, dummy, create_graph=True, allow_unused=True)

    def product(v: Tensors) -> Tensors:
        return _vjp(z, params, _vjp(slope, z, _vjp(pulled, dummy, v)))

    return loss.detach(), product


def _vjp(outputs: Sequence[Tensor | None], inputs: Sequence[Tensor], v: Tensors) -> Tensors:
    """Σ_i v_i ∂outputs_i/∂inputs, with zeros where nothing depends on anything."""
    live = [(t, u) for t, u in zip(outputs, v, strict=True) if t is not None and t.requires_grad]
    if not live:
        return tuple(torch.zeros_like(t) for t in inputs)
    return torch.autograd.grad(
        [t for t, _ in live],
        inputs,
        [u for _, u in live],
        retain_graph=True,
        allow_unused=True,
        materialize_grads=True,
    )


def _check_twice(grads: Sequence[Tensor | None]) -> None:
    """Refuses a graph with a backward marked once_differentiable, which autograd would skip."""
    stack: list[Any] = [g.grad_fn for g in grads if g is not None and g.grad_fn is not None]
    seen = set(stack)
    while stack:
        node = stack.pop()
        if node.name() == "torch::autograd::Error":
            raise RuntimeError("second derivative not implemented: a once_differentiable backward")
        fresh = {n for n, _ in node.next_functions if n is not None} - seen
        seen |= fresh
        stack.extend(fresh)


def _scalar(loss: Tensor) -> Tensor:
    if not isinstance(loss, Tensor) or loss.numel() != 1 or not loss.requires_grad:
        got = tuple(loss.shape) if isinstance(loss, Tensor) else type(loss).__name__
        raise ValueError(
            f"curvature: the closure must return a differentiable scalar loss, got {got}; compute "
            "it with gradients on and call no backward"
        )
    # A factor that requires grad makes every gradient require it: a backward that can't be
    # differentiated then shows in its graph and does not pass for that of a linear loss.
    one = torch.ones((), dtype=loss.dtype, device=loss.device, requires_grad=True)
    return loss.reshape(()) * one


def _checked(params: Sequence[Tensor], who: str) -> Tensors:
    params = tuple(params)
    if not params:
        raise ValueError(f"{who}: no parameters to differentiate in")
    for i, p in enumerate(params):
        if not p.requires_grad or not p.is_floating_point() or hasattr(p, "device_mesh"):
            raise ValueError(
                f"{who}: parameter {i} of shape {tuple(p.shape)} must be a real, unsharded tensor "
                "that requires grad"
            )
        if p.device != params[0].device:
            raise ValueError(f"{who}: parameters on {params[0].device} and {p.device}; one needed")
    return params


def _params(model: Any, params: Sequence[Tensor] | None, who: str) -> Tensors:
    if params is None:
        if not isinstance(model, nn.Module):
            raise ValueError(f"{who}: a model that is not a Module needs params=")
        params = [p for p in model.parameters() if p.requires_grad]
    return _checked(params, who)


def _micro_batches(data: Any, who: str) -> tuple[list[Any], list[float]]:
    """The micro-batches and the share of the samples that each holds."""
    many = isinstance(data, list) and not all(isinstance(d, Tensor) for d in data)
    batches = list(data) if many else [data]
    if not batches or (isinstance(data, list) and not data):
        raise ValueError(f"{who}: data holds no batch")
    if len(batches) == 1:
        return batches, [1.0]
    sizes = [_size(b, who) for b in batches]
    return batches, [s / sum(sizes) for s in sizes]


def _size(batch: Any, who: str) -> int:
    """Samples in a batch: the length of the first tensor in it."""
    if isinstance(batch, Tensor) and batch.ndim > 0 and len(batch) > 0:
        return len(batch)
    values: Any = batch.values() if isinstance(batch, Mapping) else batch
    if isinstance(values, (list, tuple)) or isinstance(batch, Mapping):
        for item in values:
            if isinstance(item, (Tensor, list, tuple, Mapping)):
                return _size(item, who)
    raise ValueError(f"{who}: found no tensor with samples in a batch, its size is unknown")
