"""Gradients through the solution of an optimisation, whatever found it.

    y*(x) = argmin_y g(x, y):   (∂y*/∂x)ᵀ v = −∂_x ⟨∇_y g, z⟩,   ∇²_yy g · z = v

The solver runs without a graph, and the backward pass solves one linear system.

Source: M. Blondel et al. 2022, arXiv 2105.15183; S. Bai, J. Z. Kolter, V. Koltun 2019, arXiv
1909.01377. Only first derivatives: the backward pass can't be differentiated again.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils._pytree import tree_leaves

from thalweg.optim.adjoint import LowerHessian, Method, check_settings, cross_term
from thalweg.optim.leaves import Leaves

__all__ = ["implicit_diff"]


def implicit_diff(
    fn_opt: Callable[..., Any] | None = None,
    *,
    lower_loss: Callable[[Any, Any, Any], Tensor],
    method: Method = "cg",
    num_terms: int = 20,
    lr: float | None = None,
    damping: float = 0.0,
) -> Callable[..., Any]:
    """Makes a solver differentiable in its first argument.

    Args:
        fn_opt: ``(x, batch=None) -> y`` minimises ``lower_loss(x, y, batch)`` in y by any means;
            x and y are nests of tensors. Left out, a decorator is returned.
        lower_loss: g, twice differentiable, strongly convex in y near the solution.
        method: ``cg``, ``exact``, ``neumann`` or ``lsgd``, as in ``hypergradient``.
        num_terms: steps or terms of the method.
        lr: of ``neumann`` and ``lsgd``, default 1/λ_max.
        damping: added to the Hessian.

    Returns:
        A function with the same arguments, whose result carries gradients for x and for nothing
        else: what the solver reads besides, it must get through x.

    Raises:
        ValueError: for settings out of range; in the backward pass as ``hypergradient``.

    Cost: in the backward pass three gradients, and two a product with the Hessian.

    Source: Blondel et al. 2022, arXiv 2105.15183; entry bilevel-bo-rep.

    Example:
        y*(x) minimises ½ y² − y sin x, hence is sin x with slope cos x.

        >>> @implicit_diff(lower_loss=lambda x, y, batch: 0.5 * y**2 - y * torch.sin(x))
        ... def solve(x, batch=None):
        ...     return torch.sin(x)
        >>> x = torch.tensor(1.0, requires_grad=True)
        >>> solve(x).backward()
        >>> torch.allclose(x.grad, torch.cos(x))
        True
    """
    check_settings(method, num_terms, lr, damping)
    if method == "unroll":
        raise ValueError("implicit_diff knows no steps to unroll; take cg, exact, neumann or lsgd")
    if fn_opt is None:
        return lambda fn: implicit_diff(
            fn, lower_loss=lower_loss, method=method, num_terms=num_terms, lr=lr, damping=damping
        )

    class Solution(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, batch: Any, xs: Leaves, found: list[Any], *tensors: Tensor) -> Any:
            solved = Leaves(fn_opt(xs.build([t.detach() for t in tensors]), batch), "y")
            found.append(solved)
            ctx.batch, ctx.xs, ctx.ys = batch, xs, solved
            ctx.save_for_backward(*tensors)
            return tuple(t.clone() for t in solved.tensors)

        @staticmethod
        @once_differentiable
        def backward(ctx: Any, *into_y: Tensor) -> Any:
            # saved_tensors, so that a change in place since then is an error
            ctx.xs.tensors = [t.detach() for t in ctx.saved_tensors]
            xs, ys = ctx.xs, ctx.ys
            with torch.enable_grad():
                with LowerHessian(lower_loss, xs, ys, lambda: ctx.batch, damping=damping) as H:
                    z = H.solve(into_y, method, num_terms, lr)
                cross = cross_term(lower_loss, xs, ys, ctx.batch, z)
            return (None, None, None, *(-c for c in cross))

    @wraps(fn_opt)
    def differentiable(x: Any, batch: Any = None) -> Any:
        found: list[Leaves] = []
        tensors: Any = Solution.apply(batch, Leaves(x, "x"), found, *tree_leaves(x))
        return found[0].build(tensors)

    return differentiable
