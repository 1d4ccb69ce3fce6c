"""Principal components of a weight trajectory, with what a random walk of equal length shows.

Changes from the first point are centred over time; with singular values s_k of the centred matrix,
component k explains λ_k/Σλ, λ_k = s_k². r_q is the least number of components that explain a share
q.

Source: Y. Xu 2026, arXiv 2602.10496 (r_q, entropy rank of singular values, alignment); the null is
J. Antognini, J. Sohl-Dickstein 2018, arXiv 1806.08805. Axes: `n` points, the first included.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from thalweg.trajectory.delta_store import DeltaStore
from thalweg.trajectory.inner_products import InnerProducts, inner_products
from thalweg.trajectory.random_walk import random_walk_null

__all__ = ["PCAResult", "components_of", "trajectory_pca"]

NEGLIGIBLE = 1e-6  # singular value over the largest below which a component is round-off


@dataclass(frozen=True)
class PCAResult:
    """Components of a path.

    Attributes:
        steps: (n,) of the points.
        explained: (n − 1,) share of the variance, descending, sum 1; zeros if nothing moved.
        singular_values: (n − 1,), descending.
        scores: (n, n − 1) coordinates of the points along the components.
        alignment: (n − 1,) cosine of each change from the first point with the last one.
        null: (n − 1,) what ``explained`` is for a random walk seen at these steps.
        dim: number of weights.
        known_from: ``weights``, ``sketches`` or ``matrix``, as in ``InnerProducts``.
        error: relative, of the inner products.
    """

    steps: tuple[int, ...]
    explained: Tensor
    singular_values: Tensor
    scores: Tensor
    alignment: Tensor
    null: Tensor
    dim: int
    known_from: str
    error: float

    def r(self, q: float = 0.9) -> int:
        """Least number of components that explain a share q of the variance; 0 of no movement.

        Raises:
            ValueError: if q is not in (0, 1].
        """
        return _count(self.explained, q)

    def null_r(self, q: float = 0.9) -> int:
        """The same of a random walk: 6 at q = 0.9 for many points. r below it is structure."""
        return _count(self.null, q)

    @property
    def entropy_rank(self) -> float:
        """exp(−Σ p log p), p = s/Σs: of singular values, not of variances."""
        s = self.singular_values
        p = s / s.sum() if s.sum() > 0 else s
        return float(torch.special.entr(p).sum().exp()) if s.sum() > 0 else 0.0

    def basis(self, source: Any, k: int, *, names: Sequence[str] | None = None) -> Tensor:
        """The first k components as directions, (dim, k), orthonormal.

        Args:
            source: what the components were computed from; a matrix or anything with weights.
            k: how many; at most those that are not round-off.
            names: as then.

        Raises:
            ValueError: if k is more, or the source holds only sketches.
        """
        real = int((self.singular_values > NEGLIGIBLE * self.singular_values[0]).sum())
        if not 1 <= k <= real:
            raise ValueError(f"basis: need 1 <= k <= {real} components with length, got {k}")
        # Centred or not, v = Σ_t u_t (θ_t − θ_0)/s: centred components sum to 0 over time.
        mix = self.scores[:, :k] / self.singular_values[:k].square()
        if isinstance(source, Tensor):
            return (source.double() - source[0].double()).T @ mix
        if self.known_from != "weights":
            raise ValueError("basis: these components are of sketches; directions need weights")
        store = source if isinstance(source, DeltaStore) else DeltaStore(source)
        return torch.cat([block.T @ mix[1:] for _, _, block in store.blocks(names)])


def trajectory_pca(
    snapshots: Any,
    center: bool = True,
    *,
    names: Sequence[str] | None = None,
    sketched: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> PCAResult:
    """Principal components of a path.

    Args:
        snapshots: a run, a ``DeltaStore`` or what one takes, or an (n, P) matrix of points.
        center: subtract the mean over time; else components of the changes from the first point.
        names: tensors to look at; default: all.
        sketched: of a run: its sketches, not its snapshots.
        progress: as for ``DeltaStore.gram``.

    Raises:
        ValueError: with fewer than three points, or values that are not finite.

    Example:
        >>> import torch
        >>> path = torch.tensor([[0.0, 0], [1, 0], [2, 0], [2, 1], [2, 2]])
        >>> pca = trajectory_pca(path)
        >>> pca.r(0.9), round(pca.entropy_rank, 2)
        (2, 1.91)
    """
    source = snapshots
    if isinstance(source, Tensor):
        if source.ndim != 2 or len(source) < 3:
            raise ValueError(
                f"trajectory_pca: expected (n, P) with n >= 3 points, got {tuple(source.shape)}"
            )
        source = (source.double() - source[0].double())[1:]
    found = inner_products(source, names=names, sketched=sketched, progress=progress)
    return components_of(found, center=center)


def components_of(found: InnerProducts, *, center: bool = True) -> PCAResult:
    """Principal components of a path whose inner products are known.

    Raises:
        ValueError: with fewer than two points after the first.
    """
    n = len(found.steps) + 1
    if n < 3:
        raise ValueError(f"trajectory_pca: expected at least 3 points, got {n}; keep more")
    G = torch.zeros(n, n, dtype=torch.float64)
    G[1:, 1:] = found.gram
    if center:
        G = G - G.mean(0) - G.mean(1)[:, None] + G.mean()
    values, vectors = torch.linalg.eigh(G)
    values, vectors = values.flip(0).clamp(min=0)[: n - 1], vectors.flip(1)[:, : n - 1]
    total, length = values.sum(), found.gram.diagonal().clamp(min=0).sqrt()
    seen = [step - found.base_step for step in found.steps]
    null = (
        random_walk_null(n, steps=[1, *(t + 1 for t in seen)])[:-1]
        if center
        else random_walk_null(n - 1, False, steps=seen)
    )
    return PCAResult(
        steps=(found.base_step, *found.steps),
        explained=values / total if total > 0 else values,
        singular_values=values.sqrt(),
        scores=vectors * values.sqrt(),
        alignment=(found.gram[:, -1] / (length * length[-1])).nan_to_num(0.0),
        null=null,
        dim=found.dim,
        known_from=found.known_from,
        error=found.error,
    )


def _count(explained: Tensor, q: float) -> int:
    if not 0 < q <= 1:
        raise ValueError(f"r: q must be in (0, 1], got {q}")
    if not bool(explained.sum() > 0):
        return 0
    # A share of all but round-off counts as all.
    return int((explained.cumsum(0) < q * (1 - 1e-12)).sum()) + 1
