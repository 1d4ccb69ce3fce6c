"""The first few updates of a training as directions, and what they tell of the rest.

The span of the first m updates is that of the first m changes θ_i − θ_0. A direction of it is a
mixture of those rows, so that shares are read from the T × T matrix of inner products and
directions are written block by block; P × m is never held unless asked for. The last change
contains the first ones: the honest share is that of θ_T − θ_m, which the prefix has not seen.

Source: I. Piontkovskaia, S. Nikolenko 2026, arXiv 2606.10929; definitions reconstructed from its
abstract. Axes: `P` weights, `T` points after the first, `m` updates.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from thalweg.trajectory.delta_store import BLOCK, DeltaStore
from thalweg.trajectory.gradient_bank import NEGLIGIBLE
from thalweg.trajectory.inner_products import inner_products
from thalweg.trajectory.random_walk import walk_gram

__all__ = ["PrefixBasis", "prefix_basis"]


@dataclass(frozen=True)
class PrefixBasis:
    """Orthonormal directions that span the first updates.

    Attributes:
        step: up to which they go.
        captured: share of ‖θ_T − θ_0‖² in the span; nan if the last change is 0.
        walk: the same of a random walk seen at these steps.
        residual: share of ‖θ_T − θ_m‖² in the span; of a random walk about 0; nan if m = T.
        random: m/P, of random directions, of either.
        mix: (m updates, size) float64: directions are the changes, transposed, times it.
        dim: P.
        known_from: ``weights``, ``matrix``, or ``sketches``, which give the shares but hold no
            directions.
    """

    step: int
    captured: float
    walk: float
    residual: float
    random: float
    mix: Tensor
    dim: int
    known_from: str
    _source: Any = field(repr=False, compare=False)
    _names: tuple[str, ...] | None = field(default=None, repr=False)

    @property
    def size(self) -> int:
        """Directions: m less those that the others span."""
        return self.mix.shape[1]

    def blocks(self) -> Iterator[tuple[int, Tensor]]:
        """The directions a stretch at a time: first entry and (c, size) rows, in order.

        Raises:
            ValueError: if only sketches are known.
        """
        if self.known_from == "sketches":
            raise ValueError("PrefixBasis: sketches hold no directions; keep snapshots of weights")
        m, start = len(self.mix), 0
        if isinstance(self._source, Tensor):
            for start in range(0, self.dim, BLOCK):
                changes = self._source[:m, start : start + BLOCK].double().cumsum(0)
                yield start, changes.T @ self.mix.to(changes.device)
            return
        for _, _, block in self._source.blocks(self._names, rows=range(m)):
            yield start, block.T @ self.mix
            start += block.shape[1]

    def coordinates(self, vec: Tensor) -> Tensor:
        """QᵀΔ, (size,) of a vector (P,), in one pass over the weights.

        Raises:
            ValueError: if the length is not P, or as ``blocks``.
        """
        self._check(vec)
        out = vec.new_zeros(self.size)
        for start, Q in self.blocks():
            out += Q.T.to(vec) @ vec[start : start + len(Q)]
        return out

    def project(self, vec: Tensor) -> Tensor:
        """QQᵀΔ, (P,), in two passes."""
        c, out = self.coordinates(vec), torch.empty_like(vec)
        for start, Q in self.blocks():
            out[start : start + len(Q)] = Q.to(vec) @ c
        return out

    def dense(self) -> Tensor:
        """Q, (P, size) float64: for small models."""
        return torch.cat([Q for _, Q in self.blocks()])

    def _check(self, vec: Tensor) -> None:
        if vec.shape != (self.dim,):
            raise ValueError(
                f"PrefixBasis: expected a vector of {self.dim} entries, got {tuple(vec.shape)}; "
                "flatten all parameters in the order of the checkpoints"
            )


def prefix_basis(source: Any, m: int, *, names: Sequence[str] | None = None) -> PrefixBasis:
    """Directions of the first m updates of a path.

    Args:
        source: a run, a ``DeltaStore`` or what one takes, or a (T, P) matrix whose rows are
            updates θ_{i+1} − θ_i.
        m: updates; directions are fewer if some are 0 or spanned by others.
        names: tensors to follow; default: all.

    Raises:
        ValueError: if m is not in 1 … T, nothing moved in the first m updates, or values are not
            finite.

    Cost: one read of the weights; another for ``blocks``, of the first m rows only.

    Source: arXiv 2606.10929; entry local-linear-structure.

    Example:
        >>> updates = torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 3.0]])
        >>> found = prefix_basis(updates, 2)
        >>> found.size, round(found.captured, 6), round(found.walk, 6), found.residual
        (1, 0.5, 0.666667, 0.0)
        >>> found.dense().abs().round(decimals=6)
        tensor([[1.],
                [0.]], dtype=torch.float64)
    """
    is_run = hasattr(source, "sketches") and hasattr(source, "weights")
    if isinstance(source, Tensor):
        if names is not None:
            raise ValueError("prefix_basis: a matrix has no tensor names")
        source = source.detach()
        found = inner_products(source.double().cumsum(0) if source.ndim == 2 else source)
    else:
        if not isinstance(source, DeltaStore) and not is_run:
            source = DeltaStore(source)
        found = inner_products(source, names=names)
    G, total = found.gram.cpu(), len(found.steps)
    if not 1 <= m <= total:
        raise ValueError(f"prefix_basis: need 1 <= m <= {total} updates, got {m}")
    if is_run and found.known_from == "weights":
        source = DeltaStore(source)
    mix = _mix(G, m)
    if not mix.shape[1]:
        raise ValueError(f"prefix_basis: nothing moved in the first {m} updates; take more")
    walk = walk_gram(found.steps, base_step=found.base_step)
    return PrefixBasis(
        step=found.steps[m - 1],
        captured=_share(G, mix, -1),
        walk=_share(walk, _mix(walk, m), -1),
        residual=_share(_from_point(G, m), mix, -1) if m < total else float("nan"),
        random=min(mix.shape[1] / found.dim, 1.0),
        mix=mix,
        dim=found.dim,
        known_from=found.known_from,
        _source=source,
        _names=None if names is None else tuple(names),
    )


def _mix(G: Tensor, m: int) -> Tensor:
    """What the first m changes are multiplied with to give orthonormal directions."""
    # Changes are nearly parallel; updates span the same and lose less in round-off.
    one = torch.ones(m, m, dtype=torch.float64)
    to_updates = one.tril().triu() - one.tril(-1).triu(-1)
    values, vectors = torch.linalg.eigh(to_updates @ G[:m, :m] @ to_updates.T)
    kept = (values > NEGLIGIBLE * values[-1]) & (values > 0)
    return to_updates.T @ (vectors[:, kept] / values[kept].sqrt()).flip(1)


def _from_point(G: Tensor, m: int) -> Tensor:
    """Inner products of the last change less the m-th with all changes, in the last row."""
    out = G.clone()
    out[-1] -= G[m - 1]
    out[-1, -1] = G[-1, -1] - 2 * G[-1, m - 1] + G[m - 1, m - 1]
    out[:-1, -1] = out[-1, :-1]
    return out


def _share(G: Tensor, mix: Tensor, row: int) -> float:
    """‖projection of a change on the span of the first ones‖² over its own."""
    if not float(G[row, row]) > 0:
        return float("nan")
    along = mix.T @ G[: len(mix), row]
    return min(float(along.square().sum() / G[row, row]), 1.0)
