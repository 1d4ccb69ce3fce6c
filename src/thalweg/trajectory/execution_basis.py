"""The subspace that a trajectory runs in, kept block by block: the execution manifold.

The first k principal components of the path of each matrix are directions within that matrix;
padded with zeros they are directions of the whole model, and those of different matrices are
orthogonal as they stand. So the basis is kept as one small matrix per block, never as P × K.

Source: Y. Xu 2026, arXiv 2602.10496 (version 2: components of the trajectory, not of the weights).
Axes: `P` weights, `K` directions in all, `k` per block.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from thalweg.trajectory.checkpoint import TensorInfo
from thalweg.trajectory.delta_store import BLOCK, DeltaStore
from thalweg.trajectory.inner_products import InnerProducts
from thalweg.trajectory.pca import NEGLIGIBLE, PCAResult, components_of

__all__ = ["SubspaceBasis", "execution_basis"]


@dataclass(frozen=True)
class SubspaceBasis:
    """Orthonormal directions of the flattened model, in blocks.

    Attributes:
        blocks: (first entry, (d, k) orthonormal columns), of disjoint stretches of the vector.
        dim: P.
        components: name of a block → components of its path; empty for a basis made by hand.
    """

    blocks: tuple[tuple[int, Tensor], ...]
    dim: int
    components: Mapping[str, PCAResult]

    @property
    def size(self) -> int:
        """K, directions in all."""
        return sum(Q.shape[1] for _, Q in self.blocks)

    def coordinates(self, vec: Tensor) -> Tensor:
        """BᵀV, (K,) of a vector (P,).

        Raises:
            ValueError: if the length is not P.
        """
        if vec.shape != (self.dim,):
            raise ValueError(
                f"SubspaceBasis: expected a vector of {self.dim} entries, got {tuple(vec.shape)}; "
                "flatten all parameters in the order of named_parameters()"
            )
        parts = [Q.T.to(vec) @ vec[start : start + len(Q)] for start, Q in self.blocks]
        return torch.cat(parts) if parts else vec.new_zeros(0)

    def project(self, vec: Tensor) -> Tensor:
        """BBᵀv, (P,)."""
        c, out, at = self.coordinates(vec), torch.zeros_like(vec), 0
        for start, Q in self.blocks:
            out[start : start + len(Q)] = Q.to(vec) @ c[at : at + Q.shape[1]]
            at += Q.shape[1]
        return out

    def dense(self) -> Tensor:
        """B, (P, K): for small models."""
        out, at = torch.zeros(self.dim, self.size, dtype=torch.float64), 0
        for start, Q in self.blocks:
            out[start : start + len(Q), at : at + Q.shape[1]] = Q
            at += Q.shape[1]
        return out


def execution_basis(
    source: Any,
    k: int = 3,
    *,
    select: Callable[[str, TensorInfo], bool] | None = None,
    fused: Mapping[str, int] | None = None,
    steps: slice | None = None,
) -> SubspaceBasis:
    """The first k principal components of every selected matrix.

    Vectors that it projects are all followed tensors end to end, in the order of the checkpoints,
    which for a state dict of parameters alone is that of ``named_parameters()``.

    Args:
        source: a run, a ``DeltaStore``, or what one takes.
        k: components per block; fewer where the path has fewer.
        select: which tensors; default: all matrices.
        fused: ending of a name → number of equal matrices stacked in its rows, each a block of its
            own; default: ``{"in_proj_weight": 3, "qkv.weight": 3}``.
        steps: use only the checkpoints of these steps (both ends included), as for a basis that
            must not have seen what it is compared with.

    Raises:
        ValueError: if nothing is selected, k < 1, a fused tensor does not divide, or there are
            fewer than three checkpoints.

    Example:
        >>> import torch
        >>> path = [{"w": torch.eye(2) * t} for t in range(4)]
        >>> basis = execution_basis(path, k=1)
        >>> basis.project(torch.tensor([1.0, 5.0, 5.0, 0.0]))
        tensor([0.5000, 0.0000, 0.0000, 0.5000])
    """
    store = source if isinstance(source, DeltaStore) else DeltaStore(source)
    if k < 1:
        raise ValueError(f"execution_basis: k must be >= 1, got {k}")
    fused = {"in_proj_weight": 3, "qkv.weight": 3} if fused is None else fused
    chosen = select or (lambda name, info: len(info.shape) == 2)
    rows = [i for i, t in enumerate(store.steps) if _within(t, steps)]
    blocks, components, start = list[tuple[int, Tensor]](), dict[str, PCAResult](), 0
    for name, info in store.tensors.items():
        if chosen(name, info):
            parts = next((n for ending, n in fused.items() if name.endswith(ending)), 1)
            if not info.shape or info.shape[0] % parts:
                raise ValueError(
                    f"execution_basis: {name!r} of shape {info.shape} is not {parts} equal matrices"
                )
            size = info.numel // parts
            for i in range(parts):
                stretch = range(i * size, (i + 1) * size)
                pca, Q = _components(store, name, stretch, rows, k)
                components[name if parts == 1 else f"{name}[{i}]"] = pca
                if Q.shape[1]:
                    blocks.append((start + i * size, Q))
        start += info.numel
    if not components:
        raise ValueError(
            f"execution_basis: no tensor was selected of {list(store.tensors)[:8]} …; "
            "give select=lambda name, info: …"
        )
    return SubspaceBasis(tuple(blocks), start, components)


def _components(
    store: DeltaStore, name: str, stretch: range, rows: list[int], k: int
) -> tuple[PCAResult, Tensor]:
    """Components of the path of some entries of a tensor, and their directions (d, ≤ k)."""
    if len(rows) < 2:
        raise ValueError(
            f"execution_basis: expected at least 2 checkpoints after the first, got {len(rows)}"
        )
    G = torch.zeros(len(rows), len(rows), dtype=torch.float64)
    for block in _stretches(store, name, stretch, rows):
        G.addmm_(block, block.T)
    if not bool(torch.isfinite(G).all()):
        raise ValueError(f"execution_basis: tensor {name!r} is not finite in some checkpoint")
    steps = tuple(store.steps[i] for i in rows)
    found = InnerProducts(steps, G, len(stretch), "weights", 0.0, store.base_step)
    pca = components_of(found)
    s = pca.singular_values
    kept = min(k, int((s > NEGLIGIBLE * s[0]).sum()) if s[0] > 0 else 0)
    mix = pca.scores[1:, :kept] / s[:kept].square()
    pieces = [block.T @ mix for block in _stretches(store, name, stretch, rows)]
    return pca, torch.cat(pieces)


def _stretches(store: DeltaStore, name: str, stretch: range, rows: list[int]) -> Iterator[Tensor]:
    for start in range(stretch.start, stretch.stop, BLOCK):
        yield store.rows(name, slice(start, min(start + BLOCK, stretch.stop)))[rows]


def _within(step: int, steps: slice | None) -> bool:
    if steps is None:
        return True
    low = step if steps.start is None else steps.start
    return low <= step <= (step if steps.stop is None else steps.stop)
