"""How much of a displacement lies in a subspace, beside a random subspace of equal size.

The energy share is ‖QQᵀΔ‖²/‖Δ‖², the norm share its root: .77 of the norm is .59 of the energy, so
that a figure means nothing without its kind. A random frame of m directions in P dimensions holds
m/P of the energy of any vector.

Source: I. Piontkovskaia, S. Nikolenko 2026, arXiv 2606.10929; definitions reconstructed from its
abstract. Axes: `P` weights, `m` directions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

__all__ = ["Basis", "Capture", "subspace_capture"]

Kind = Literal["energy", "norm"]


class Basis(Protocol):
    """Orthonormal directions that need not be held as one matrix: a ``SubspaceBasis``, a prefix."""

    @property
    def dim(self) -> int:
        """P."""
        ...

    @property
    def size(self) -> int:
        """M."""
        ...

    def coordinates(self, vec: Tensor) -> Tensor:
        """QᵀΔ, (m,)."""
        ...


@dataclass(frozen=True)
class Capture:
    """A share and what chance gives; ``float()`` of it is the share.

    Attributes:
        share: in [0, 1].
        random: mean share of a random frame of as many directions.
        kind: ``energy`` or ``norm``.
        size: m.
        dim: P.
    """

    share: float
    random: float
    kind: Kind
    size: int
    dim: int

    @property
    def ratio(self) -> float:
        """Share over that of chance; 1 is no preference."""
        return self.share / self.random if self.random > 0 else math.nan

    def __float__(self) -> float:
        return self.share


def subspace_capture(
    displacement: Tensor, basis: Tensor | Basis, *, kind: Kind = "energy"
) -> Capture:
    """Share of a displacement in the span of a basis.

    Args:
        displacement: Δ, (P,).
        basis: (P, m) orthonormal columns, a ``SubspaceBasis`` or a ``PrefixBasis``.
        kind: of the ``energy``, squared length, or of the ``norm``.

    Raises:
        ValueError: if Δ is 0, not finite or of another length, or the columns are not orthonormal.

    Source: arXiv 2606.10929; entry local-linear-structure.

    Example:
        >>> found = subspace_capture(torch.tensor([3.0, 4.0, 0.0, 0.0]), torch.eye(4)[:, :1])
        >>> round(found.share, 6), found.random
        (0.36, 0.25)
        >>> found = subspace_capture(torch.tensor([3.0, 4.0]), torch.eye(2)[:, :1], kind="norm")
        >>> round(float(found), 6)
        0.6
    """
    if kind not in ("energy", "norm"):
        raise ValueError(f"subspace_capture: kind must be 'energy' or 'norm', got {kind!r}")
    if displacement.ndim != 1:
        raise ValueError(
            f"subspace_capture: expected a vector (P,), got {tuple(displacement.shape)}; "
            "flatten all parameters"
        )
    delta = displacement.detach().double()
    # Of unit length, so that squares neither overflow nor vanish.
    largest = delta.abs().max() if len(delta) else delta.new_zeros(())
    delta = delta / largest if float(largest) > 0 and bool(torch.isfinite(largest)) else delta
    length = torch.linalg.vector_norm(delta)
    if not bool(torch.isfinite(length)) or not float(length) > 0:
        raise ValueError(f"subspace_capture: the displacement has length {float(length)}")
    delta = delta / length
    if isinstance(basis, Tensor):
        dim, size, along = len(delta), _columns(basis, len(delta)), basis.double().T @ delta
    else:
        dim, size = basis.dim, basis.size
        along = basis.coordinates(delta)
    energy = min(float(along.square().sum()), 1.0)
    if kind == "energy":
        return Capture(energy, size / dim, kind, size, dim)
    return Capture(math.sqrt(energy), _mean_norm_share(size, dim), kind, size, dim)


def _columns(basis: Tensor, dim: int) -> int:
    if basis.ndim != 2 or len(basis) != dim:
        raise ValueError(
            f"subspace_capture: expected a basis of ({dim}, m), got {tuple(basis.shape)}"
        )
    Q = basis.double()
    identity = torch.eye(Q.shape[1], dtype=torch.float64, device=Q.device)
    if Q.shape[1] and not float((Q.T @ Q - identity).abs().max()) < 1e-4:
        raise ValueError("subspace_capture: the basis is not orthonormal; take torch.linalg.qr")
    return Q.shape[1]


def _mean_norm_share(m: int, P: int) -> float:
    """E√β of β ~ Beta(m/2, (P − m)/2), the energy share of a random frame."""
    if m in (0, P):
        return float(m > 0)
    logs = math.lgamma((m + 1) / 2) - math.lgamma(m / 2)
    return math.exp(logs + math.lgamma(P / 2) - math.lgamma((P + 1) / 2))
