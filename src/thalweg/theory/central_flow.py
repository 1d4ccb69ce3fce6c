"""The central flow of gradient descent: where training goes on average at the edge of stability.

Beyond 2/η gradient descent oscillates along its sharpest directions, and the oscillation pushes it
towards flatter ground. The flow of the time average w̄, t counted in steps of size η,

    dw̄/dt = −η [∇L(w̄) + ½ ∇⟨H(w̄), Σ⟩]

carries the covariance Σ of that oscillation: supported on the k sharpest directions, none where
curvature is below 2/η, and just so large that it never exceeds 2/η. With Σ = U X Uᵀ, U the
eigenvectors, X solves at every step the complementarity problem

    X ⪰ 0,   S = B(X) − A − (Λ − 2/η)/Δt ⪰ 0,   ⟨X, S⟩ = 0
    A_ij = −η ⟨∇H_ij, ∇L⟩,   B(X)_ij = (η/2) ⟨∇H_ij, Σ_ab X_ab ∇H_ab⟩,   H_ij = u_iᵀ H u_j

in which S says that after a time Δt no curvature is above 2/η. It departs from the source in that
Λ − 2/η is part of the problem, so that rounding of the steps cannot let curvatures drift off.

Source: Cohen, Damian, Talwalkar, Kolter, Lee 2024, arXiv 2410.24206; entry sgd-dynamical-stability.
Axes: `P` parameters, `T` steps, `k` directions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from thalweg.numerics import eigsh, hessian_operator

__all__ = ["CentralFlow", "central_flow", "oscillation_covariance"]


@dataclass(frozen=True)
class CentralFlow:
    """A central flow at each step; row 0 is the start.

    Attributes:
        params: where it ends, shaped as they were given.
        loss: L(w̄), (T + 1,).
        predicted_loss: L(w̄) + ½⟨H, Σ⟩, the time average of gradient descent's loss, (T + 1,).
        eigenvalues: the k largest curvatures, descending, (T + 1, k).
        variance: of the oscillation, tr Σ, (T + 1,).
    """

    params: Tensor
    loss: Tensor
    predicted_loss: Tensor
    eigenvalues: Tensor
    variance: Tensor


def central_flow(
    loss_fn: Callable[[Tensor], Tensor],
    params: Tensor,
    lr: float,
    num_steps: int,
    k: int = 1,
    *,
    substeps: int = 4,
) -> CentralFlow:
    """Follows the time average of full-batch gradient descent, also at the edge of stability.

    Args:
        loss_fn: weights -> scalar loss of all data, three times differentiable.
        params: starting weights, one tensor of any shape, floating; better float64.
        lr: η > 0 of the gradient descent that it stands for.
        num_steps: T, steps of that gradient descent.
        k: sharpest directions that may oscillate; more than ever do costs time only.
        substeps: Euler steps for each of them. One would make the flow itself oscillate.

    Returns:
        CentralFlow.

    Raises:
        ValueError: if an argument is out of range.
        FloatingPointError: if the loss or its derivatives are no longer finite.

    Cost: per substep some 10 Hessian-vector products, k(k + 1)/2 third derivatives of two each.

    Example:
        L = ½ y x² − y: the push −1 raises the curvature y to 2/η; then x oscillates with variance
        2, which is what holds it there.

        >>> def loss(w):
        ...     return 0.5 * w[1] * w[0] ** 2 - w[1]
        >>> start = torch.tensor([0.0, 15.0], dtype=torch.float64)
        >>> flow = central_flow(loss, start, lr=0.1, num_steps=100)
        >>> round(flow.eigenvalues[-1].item(), 2), round(flow.variance[-1].item(), 2)
        (20.0, 2.0)
    """
    if not 0 < lr < float("inf"):
        raise ValueError(f"central_flow: lr must be positive and finite, got {lr}")
    if num_steps < 1 or substeps < 1 or not 1 <= k <= params.numel():
        raise ValueError(
            f"central_flow: need num_steps, substeps >= 1 and 1 <= k <= {params.numel()}; got "
            f"{num_steps}, {substeps}, {k}"
        )
    if not params.is_floating_point():
        raise ValueError(f"central_flow: params must be floating, got {params.dtype}")
    w = params.detach().clone()
    guess: Tensor | None = None
    dt = 1.0 / substeps
    loss, predicted, eigenvalues, variance = [], [], [], []
    for step in range(num_steps * substeps + 1):
        values, U = _sharpest(loss_fn, w, k, guess)
        guess = U
        value, push, pull, X = _forces(loss_fn, w, U, values, lr, dt)
        if step % substeps == 0:
            loss.append(value)
            predicted.append(value + 0.5 * (values * X.diagonal()).sum())
            eigenvalues.append(values)
            variance.append(X.trace())
        w = w - dt * lr * (push + 0.5 * pull)
    return CentralFlow(
        w + dt * lr * (push + 0.5 * pull),  # the last step is one too many
        torch.stack(loss),
        torch.stack(predicted),
        torch.stack(eigenvalues),
        torch.stack(variance),
    )


def oscillation_covariance(
    A: Tensor, B: Tensor, slack: Tensor, *, num_steps: int = 500, tol: float = 1e-10
) -> Tensor:
    """X ⪰ 0 that balances the rise of the curvatures, by accelerated projected gradient.

    Minimises ½⟨X, B X⟩ − ⟨A − slack, X⟩ over positive semidefinite X.

    Args:
        A: rise of H_ij without oscillation, (k, k), symmetric.
        B: map of covariances, (k, k, k, k), positive semidefinite.
        slack: what each curvature may still rise, (k, k).
        num_steps: at most.
        tol: relative change at which to stop.

    Returns:
        (k, k), symmetric, positive semidefinite.

    Example:
        >>> one = torch.ones(1, 1)
        >>> oscillation_covariance(3 * one, 2 * torch.ones(1, 1, 1, 1), 0 * one)
        tensor([[1.5000]])
    """
    k = len(A)
    C = A - slack
    matrix = B.reshape(k * k, k * k)
    length = float(torch.linalg.eigvalsh((matrix + matrix.T) / 2)[-1]) if k > 1 else float(matrix)
    if length <= 0:
        return torch.zeros_like(A)
    if k == 1:
        return (C / length).clamp(min=0)
    X = Y = torch.zeros_like(A)
    t = 1.0
    for _ in range(num_steps):
        gradient = (matrix @ Y.reshape(-1)).reshape(k, k) - C
        new = _positive(Y - gradient / length)
        t_new = (1 + (1 + 4 * t * t) ** 0.5) / 2
        Y = new + (t - 1) / t_new * (new - X)
        moved, X, t = (new - X).norm(), new, t_new
        if moved <= tol * X.norm():
            break
    return X


def _forces(
    loss_fn: Callable[[Tensor], Tensor],
    w: Tensor,
    U: Tensor,
    values: Tensor,
    lr: float,
    dt: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Loss, ∇L, ∇⟨H, Σ⟩ and X at w."""
    k = U.shape[1]
    w = w.detach().requires_grad_()
    with torch.enable_grad():
        value = loss_fn(w)
        (g,) = torch.autograd.grad(value, w, create_graph=True)
        products = [
            torch.autograd.grad(g, w, U[:, i].view_as(w), create_graph=True)[0] for i in range(k)
        ]
        pairs = [(i, j) for i in range(k) for j in range(i, k)]
        third = torch.zeros(k, k, w.numel(), dtype=w.dtype, device=w.device)
        for i, j in pairs:
            H_ij = (products[i].reshape(-1) * U[:, j]).sum()
            grad = torch.autograd.grad(H_ij, w, retain_graph=True, allow_unused=True)[0]
            third[i, j] = third[j, i] = 0 if grad is None else grad.reshape(-1)
    push = g.detach()
    seen = torch.cat([value.detach().reshape(1), push.reshape(-1), third.reshape(-1)])
    if not bool(torch.isfinite(seen).all()):
        raise FloatingPointError("central_flow: the loss or its derivatives are no longer finite")
    A = -lr * third @ push.reshape(-1)
    flat = third.reshape(k * k, -1)
    B = (lr / 2 * flat @ flat.T).reshape(k, k, k, k)
    slack = torch.diag(2 / lr - values) / dt
    X = oscillation_covariance(A, B, slack)
    pull = (X.reshape(-1) @ flat).reshape(w.shape)
    return value.detach(), push, pull, X


def _sharpest(
    loss_fn: Callable[[Tensor], Tensor], w: Tensor, k: int, guess: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The k largest eigenvalues of the Hessian, descending, and eigenvectors, (P, k)."""
    w = w.detach().requires_grad_()
    with hessian_operator(lambda: loss_fn(w), [w]) as H:
        if w.numel() <= 64:
            values, vectors = torch.linalg.eigh(H.dense())
            return values[-k:].flip(0), vectors[:, -k:].flip(1)
        found = eigsh(H, k, tol=1e-6, v0=guess)
    return found.values.to(w.dtype), found.vectors.to(w.dtype)


def _positive(M: Tensor) -> Tensor:
    s, V = torch.linalg.eigh((M + M.T) / 2)
    return (V * s.clamp(min=0)) @ V.T
