"""The adjoint of a lower problem, (H + damping·I) z = b, and its product with the cross term.

Source: Neumann series: J. Lorraine, P. Vicol, D. Duvenaud 2020, arXiv 1911.02590; conjugate
gradients: F. Pedregosa 2016, arXiv 1602.02355; steps on the linear system: M. Dagréou et al. 2022,
arXiv 2201.13409.

Axes: `D` numbers in the lower variable, over all its tensors.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from thalweg.numerics.conjugate_gradient import conjugate_gradient
from thalweg.numerics.curvature import CurvatureOperator, hessian_operator
from thalweg.numerics.eigsh import eigsh
from thalweg.numerics.untouched import untouched
from thalweg.optim.leaves import Leaves, filled, flat, scalar

__all__ = [
    "LowerHessian",
    "LowerProducts",
    "Method",
    "check_settings",
    "cross_term",
    "lower_products",
    "warn_if_none",
]

LossFn = Callable[[Any, Any, Any], Tensor]
Method = Literal["neumann", "cg", "unroll", "exact", "lsgd"]
#: Rows of the dense Hessian that ``exact`` forms at most; 128 MiB in float64.
EXACT_ROWS = 4096
#: Round-off allowed before a series counts as growing.
GROWTH = 1.001


class LowerHessian:
    """H + damping·I of the lower loss in y; use it in a ``with`` statement, which frees its graph.

    Args:
        lower_loss: g.
        x: upper variable.
        y: lower variable.
        draw: gives a batch.
        damping: added to the diagonal.
        fresh: take a new batch at each product of a series, rather than one for all.
    """

    def __init__(
        self,
        lower_loss: LossFn,
        x: Leaves,
        y: Leaves,
        draw: Callable[[], Any],
        *,
        damping: float = 0.0,
        fresh: bool = False,
    ) -> None:
        self._ys = y.tracked()
        self._loss = lambda batch: lower_loss(x.build(x.tensors), y.build(self._ys), batch)
        self._draw, self._damping, self._fresh = draw, damping, fresh
        self._kept = self._operator()

    def _operator(self) -> CurvatureOperator:
        batch = self._draw()
        return hessian_operator(lambda: scalar(self._loss(batch), "lower_loss"), self._ys)

    def __enter__(self) -> LowerHessian:
        return self

    def __exit__(self, *error: Any) -> None:
        self._kept.close()

    def product(self, v: Tensor) -> Tensor:
        """(H + damping·I) v, (D,)."""
        out = self._kept.matvec(v)
        return out.add_(v, alpha=self._damping) if self._damping else out

    def next_product(self, v: Tensor) -> Tensor:
        """``product``, and then a new batch if ``fresh``."""
        out = self.product(v)
        if self._fresh:
            self._kept.close()
            self._kept = self._operator()
        return out

    def largest(self) -> float:
        """λ_max of H, by Lanczos.

        Raises:
            ValueError: if it is not positive.
        """
        top = float(eigsh(self._kept, 1).values[0]) + self._damping
        if not top > 0:
            raise ValueError(
                f"the lower loss must be convex in y, but its largest curvature is {top:.3g}; give "
                "lr=, and damping= if H is not positive"
            )
        return top

    def solve(
        self,
        slopes: Sequence[Tensor],
        method: Method,
        num_terms: int,
        lr: float | None,
        start: Tensor | None = None,
    ) -> Tensor:
        """Z for a right-hand side given as one tensor per tensor of y, (D,)."""
        b = flat(slopes, self._kept.dtype)
        size = b.numel()
        if method == "exact":
            if size > EXACT_ROWS:
                raise ValueError(
                    f"method 'exact' forms a dense {size} × {size} Hessian; take 'cg' above "
                    f"{EXACT_ROWS} numbers in y"
                )
            eye = torch.eye(size, dtype=b.dtype, device=b.device)
            return torch.linalg.solve(self._kept.dense() + self._damping * eye, b)
        if method == "cg":
            return conjugate_gradient(self.product, b, num_steps=num_terms)
        lr = 1 / self.largest() if lr is None else lr
        if method == "neumann":
            return neumann(self.next_product, b, num_terms, lr)
        z = torch.zeros_like(b) if start is None else start
        first = last = b
        for q in range(num_terms):
            last = b - self.next_product(z)
            first = last if q == 0 else first
            z = z + lr * last
        if not self._fresh:  # the residual of a new batch need not fall
            refuse_growth(first, last, lr)
        return z


def neumann(product: Callable[[Tensor], Tensor], b: Tensor, num_terms: int, lr: float) -> Tensor:
    """Lr Σ_{q<Q} (I − lr H)^q b, (D,); relative error at most (1 − lr λ_min)^Q if lr ≤ 1/λ_max."""
    term, total = b, b.clone()
    for _ in range(num_terms - 1):
        term = term - lr * product(term)
        total += term
    refuse_growth(b, term, lr)
    return total.mul_(lr)


def refuse_growth(before: Tensor, after: Tensor, lr: float) -> None:
    """Raises if a series that must shrink has grown; nan from the losses passes through."""
    norms = torch.stack([before.norm(), after.norm()])
    if bool(~(norms[1] <= GROWTH * norms[0]) & norms[0].isfinite()):
        raise ValueError(
            f"the series for the lower Hessian grows, from {float(norms[0]):.3g} to "
            f"{float(norms[1]):.3g}: its lr (lower_lr) {lr:.3g} must be below 2/λ_max of the lower "
            "loss and is best at 1/λ_max; if the lower loss is not convex in y, add damping="
        )


def cross_term(lower_loss: LossFn, x: Leaves, y: Leaves, batch: Any, z: Tensor) -> list[Tensor]:
    """∂_x ⟨∇_y g, z⟩ with z constant, a list like the tensors of x."""
    xs, ys = x.tracked(), y.tracked()
    slopes = _lower_slopes(lambda: lower_loss(x.build(xs), y.build(ys), batch), ys)
    found = _pulled(slopes, xs, z)
    warn_if_none(found)
    return filled(found, xs)


@dataclass(frozen=True)
class LowerProducts:
    """∇_y g like y, ∂_x ⟨∇_y g, z⟩ like x, Hz (D,)."""

    slopes: list[Tensor]
    cross: list[Tensor]
    curved: Tensor


def lower_products(
    lower_loss: LossFn, x: Leaves, y: Leaves, batch: Any, z: Tensor
) -> LowerProducts:
    """What one backward pass through the gradient of g gives, all of one batch."""
    xs, ys = x.tracked(), y.tracked()
    slopes = _lower_slopes(lambda: lower_loss(x.build(xs), y.build(ys), batch), ys)
    found = _pulled(slopes, [*xs, *ys], z)
    warn_if_none(found[: len(xs)])
    both = filled(found, [*xs, *ys])
    return LowerProducts(
        [s.detach() for s in slopes], both[: len(xs)], flat(both[len(xs) :], z.dtype)
    )


def _lower_slopes(closure: Callable[[], Any], ys: Sequence[Tensor]) -> Sequence[Tensor]:
    """∇_y g with a graph; the loss is evaluated as for the Hessian."""
    with untouched(ys):
        return torch.autograd.grad(
            *(scalar(closure(), "lower_loss"), ys),
            create_graph=True,
            allow_unused=True,
            materialize_grads=True,
        )


def _pulled(slopes: Sequence[Tensor], into: Sequence[Tensor], z: Tensor) -> Sequence[Tensor | None]:
    """∂⟨slopes, z⟩ by each tensor of ``into``, None where nothing depends on it."""
    pieces = z.split([s.numel() for s in slopes])
    live = [
        (s, p.reshape(s.shape).to(s.dtype))
        for s, p in zip(slopes, pieces, strict=True)
        if s.requires_grad
    ]
    if not live:
        return [None] * len(into)
    return torch.autograd.grad([s for s, _ in live], into, [p for _, p in live], allow_unused=True)


def warn_if_none(grads: Sequence[Tensor | None]) -> None:
    """Warns where x has no influence on the lower solution."""
    if all(g is None for g in grads):
        warnings.warn(
            "no upper parameter influences the lower loss: nothing flows through its solution, "
            "zeros are used",
            stacklevel=2,
        )


def check_settings(method: str, num_terms: int, lr: float | None, damping: float) -> None:
    """Raises for a setting out of range."""
    if method not in get_args(Method):
        raise ValueError(f"method must be one of {', '.join(get_args(Method))}, got {method!r}")
    if num_terms < 1:
        raise ValueError(f"num_terms must be at least 1, got {num_terms}")
    if lr is not None and not lr > 0:
        raise ValueError(f"lr must be positive, got {lr}")
    if not damping >= 0:
        raise ValueError(f"damping must not be negative, got {damping}")
    if damping and method == "unroll":
        raise ValueError("damping belongs to the solvers with a Hessian, not to method 'unroll'")
