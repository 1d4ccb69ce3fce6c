"""Conjugate gradients: Ax = b for a positive definite A that is known by its products.

Source: M. R. Hestenes, E. Stiefel 1952, doi.org/10.6028/jres.049.044.
Axes: `p` rows of A.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from thalweg.numerics.operators import LinearOperator, as_operator

__all__ = ["conjugate_gradient"]


def conjugate_gradient(
    A: LinearOperator | Callable[[Tensor], Tensor] | Tensor,
    b: Tensor,
    *,
    dim: int | None = None,
    num_steps: int | None = None,
    eps: float | None = None,
) -> Tensor:
    """Solution of Ax = b by conjugate gradients from zero.

    After k steps x is the best approximation, in the norm xᵀAx, among the combinations of
    b, Ab, …, Aᵏ⁻¹b; in exact arithmetic that is the solution after at most as many steps as A has
    different eigenvalues.

    Args:
        A: symmetric positive definite operator, callable with ``dim``, or dense (p, p) tensor.
        b: (p,) right-hand side.
        dim: p, for a callable.
        num_steps: products at most, default p.
        eps: stop at ‖b − Ax‖ ≤ eps·‖b‖, default ten units of round-off.

    Returns:
        (p,) x; nan if b has any; with too few steps an approximation.

    Raises:
        ValueError: if b has another length than A, num_steps < 1, or a direction of curvature
            pᵀAp ≤ 0 shows that A is not positive definite.
        FloatingPointError: if a product is not finite.

    Cost: a product and one read of the device a step.

    Source: Hestenes, Stiefel 1952.

    Example:
        >>> conjugate_gradient(torch.diag(torch.tensor([2.0, 4.0])), torch.tensor([2.0, 8.0]))
        tensor([1., 2.])
    """
    operator = as_operator(A, dim if dim is not None else b.numel(), dtype=b.dtype, device=b.device)
    num_steps = operator.dim if num_steps is None else num_steps
    if b.shape != (operator.dim,):
        raise ValueError(
            f"conjugate_gradient: b must have shape ({operator.dim},), got {tuple(b.shape)}"
        )
    if num_steps < 1:
        raise ValueError(f"conjugate_gradient: num_steps must be at least 1, got {num_steps}")
    x, residual, direction = torch.zeros_like(b), b, b
    size = float(b.square().sum())
    if size != size:
        return torch.full_like(b, torch.nan)
    eps = 10 * torch.finfo(b.dtype).eps if eps is None else eps
    goal = eps**2 * size
    for step in range(num_steps):
        if size <= goal:
            break
        product = operator.matvec(direction)
        curvature = float(direction @ product)
        if curvature != curvature:
            raise FloatingPointError(f"conjugate_gradient: the product of step {step} is nan")
        if curvature <= 0:
            raise ValueError(
                f"conjugate_gradient: the matrix must be positive definite, but pᵀAp = "
                f"{curvature:.3g} at step {step}; add damping, a multiple of the identity"
            )
        alpha = size / curvature
        x, residual = x + alpha * direction, residual - alpha * product
        before, size = size, float(residual.square().sum())
        direction = residual + (size / before) * direction
    return x
