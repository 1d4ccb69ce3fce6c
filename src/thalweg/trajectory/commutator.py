"""Do two minibatch steps commute, and where does the difference point?

With the step η on batches A and B, θ_AB = θ − ηg_A(θ) − ηg_B(θ − ηg_A(θ)), and θ_BA with the roles
exchanged,

    δ = θ_AB − θ_BA = η[g_A(θ_B) − g_A(θ)] − η[g_B(θ_A) − g_B(θ)] = η²(H_B g_A − H_A g_B) + O(η³),

computed in the middle form, whose terms are small themselves. A random frame of K directions holds
√(K/P) of any vector, so a share means something only over that of random frames.

Source: Y. Xu 2026, arXiv 2602.10496. Axes: `P` weights, `K` directions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from thalweg.numerics.untouched import random_state, set_random_state, untouched
from thalweg.trajectory.execution_basis import SubspaceBasis

__all__ = ["Alignment", "CommutatorResult", "commutator", "commutator_alignment"]

LossFn = Callable[[nn.Module, Any], Tensor]


@dataclass(frozen=True)
class CommutatorResult:
    """The difference that the order of two steps makes.

    Attributes:
        delta: θ_AB − θ_BA, (P,), trainable parameters end to end.
        defect: ‖δ‖/(‖ηg_A‖‖ηg_B‖ + 1e-12), in 1/(length of a parameter); O(1) as η → 0.
        grad_cos: cosine of the two gradients.
        step_norms: ‖ηg_A‖, ‖ηg_B‖.
    """

    delta: Tensor
    defect: float
    grad_cos: float
    step_norms: tuple[float, float]


@dataclass(frozen=True)
class Alignment:
    """How much of a vector lies in a subspace.

    Attributes:
        rho: ‖BBᵀδ‖/‖δ‖.
        rho_random: the same of random frames of as many directions, mean.
        rho_random_std: its spread over the frames.
        ratio: rho/rho_random; 1 is no preference.
        perpendicular: √(1 − ρ²), the share of the norm outside.
        perpendicular_random: the same of random frames, mean.
    """

    rho: float
    rho_random: float
    rho_random_std: float
    ratio: float
    perpendicular: float
    perpendicular_random: float


def commutator(
    loss_fn: LossFn, model: nn.Module, batch_a: Any, batch_b: Any, eta: float = 1e-3
) -> CommutatorResult:
    """The commutator of plain gradient steps on two batches.

    Four gradients. Weights, buffers, modes and random state are as before afterwards; dropout is
    off and both orders see the same random numbers.

    Args:
        loss_fn: (model, batch) → scalar.
        model: of at least float32; below η ≈ 1e-5 use ``model.double()``, or δ is round-off.
        batch_a: A.
        batch_b: B.
        eta: η > 0.

    Raises:
        ValueError: if η is not positive, no parameter is trainable, weights are in half precision,
            or the loss is not finite.

    Example:
        >>> import torch
        >>> model = torch.nn.Linear(1, 1, bias=False).double()
        >>> loss = lambda m, c: 0.5 * c * m.weight.square().sum()
        >>> commutator(loss, model, 1.0, 2.0).delta.abs().max() < 1e-18
        tensor(True)
    """
    params = [p for p in model.parameters() if p.requires_grad]
    if not eta > 0 or not params:
        raise ValueError(
            f"commutator: need eta > 0 and a trainable parameter, got eta={eta}, {len(params)} of "
            "them"
        )
    if any(p.dtype.itemsize < 4 for p in params):
        raise ValueError(
            "commutator: differences of half-precision gradients are round-off; "
            "call model.float() first"
        )
    start = [p.detach().clone() for p in params]
    training = [(m, m.training) for m in model.modules()]
    with untouched(params):
        state = random_state(params)

        def gradient(batch: Any, moved: Sequence[Tensor] | None) -> list[Tensor]:
            set_random_state(state)
            with torch.no_grad():
                for i, p in enumerate(params):
                    p.copy_(start[i] if moved is None else start[i] - eta * moved[i])
            loss = loss_fn(model, batch)
            if not bool(torch.isfinite(loss)):
                raise ValueError("commutator: the loss is not finite")
            found = torch.autograd.grad(loss, params, allow_unused=True)
            return [
                torch.zeros_like(p) if g is None else g for p, g in zip(params, found, strict=True)
            ]

        try:
            model.eval()
            a, b = gradient(batch_a, None), gradient(batch_b, None)
            a_after, b_after = gradient(batch_a, b), gradient(batch_b, a)
        finally:
            with torch.no_grad():
                for p, origin in zip(params, start, strict=True):
                    p.copy_(origin)
            for module, mode in training:
                module.training = mode
    g_a, g_b = _flat(a), _flat(b)
    delta = eta * (_flat(a_after) - g_a) - eta * (_flat(b_after) - g_b)
    norm_a, norm_b = float(eta * g_a.norm()), float(eta * g_b.norm())
    return CommutatorResult(
        delta,
        float(delta.norm()) / (norm_a * norm_b + 1e-12),
        float(torch.nn.functional.cosine_similarity(g_a, g_b, dim=0)),
        (norm_a, norm_b),
    )


def commutator_alignment(
    delta: Tensor,
    basis: SubspaceBasis | Tensor,
    n_random: int = 10,
    generator: torch.Generator | None = None,
) -> Alignment:
    """How much of a commutator lies in a subspace, beside random subspaces of equal size.

    A random frame is not made: its share has the distribution of that of the first K of P normal
    numbers.

    Args:
        delta: (P,).
        basis: of the subspace: blocks, or (P, K) orthonormal columns.
        n_random: frames.
        generator: of the normal numbers; default: a fixed seed.

    Raises:
        ValueError: if lengths do not fit, δ is 0 or not finite, or the columns are not orthonormal.

    Example:
        >>> import torch
        >>> found = commutator_alignment(torch.eye(400)[0], torch.eye(400)[:, :4])
        >>> found.rho, found.ratio > 5
        (1.0, True)
    """
    delta = delta.double()
    norm = delta.norm()
    if delta.ndim != 1 or not bool(torch.isfinite(norm)) or norm == 0 or n_random < 1:
        raise ValueError(
            "commutator_alignment: expected a finite vector that is not 0 and n_random >= 1, got "
            f"shape {tuple(delta.shape)}, norm {float(norm)}, n_random={n_random}"
        )
    if isinstance(basis, Tensor):
        basis = _checked(basis, len(delta))
    rho = float(basis.coordinates(delta).norm() / norm)
    generator = generator or torch.Generator().manual_seed(0)
    shares = torch.empty(n_random, dtype=torch.float64)
    for i in range(n_random):
        z = torch.randn(len(delta), generator=generator).square()
        shares[i] = (z[: basis.size].sum(dtype=torch.float64) / z.sum(dtype=torch.float64)).sqrt()
    mean = float(shares.mean())
    return Alignment(
        rho=min(rho, 1.0),
        rho_random=mean,
        rho_random_std=float(shares.std()) if n_random > 1 else math.nan,
        ratio=rho / mean if mean > 0 else math.nan,
        perpendicular=max(1 - rho**2, 0.0) ** 0.5,
        perpendicular_random=float((1 - shares.square()).clamp(min=0).sqrt().mean()),
    )


def _checked(basis: Tensor, dim: int) -> SubspaceBasis:
    if basis.ndim != 2 or len(basis) != dim:
        raise ValueError(
            f"commutator_alignment: expected a basis of ({dim}, K), got {tuple(basis.shape)}"
        )
    Q = basis.double()
    gap = (Q.T @ Q - torch.eye(Q.shape[1], dtype=torch.float64)).abs().max() if Q.numel() else 0
    if not float(gap) < 1e-4:
        raise ValueError("commutator_alignment: the basis is not orthonormal; take torch.linalg.qr")
    return SubspaceBasis(((0, Q),), dim, {})


def _flat(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([t.reshape(-1).double() for t in tensors])
