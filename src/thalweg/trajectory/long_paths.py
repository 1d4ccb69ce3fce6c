"""Paths of so many checkpoints that their T × T inner products are too much.

Three summaries of the changes M, each in memory that does not grow with T²: a random projection of
every row, the leading part of the singular value decomposition, and a matrix that stands for a
stream. Axes: `T` checkpoints, `d` entries of a tensor, `m` numbers in a sketch, `r` directions.

Source: count sketch, Charikar, Chen, Farach-Colton 2002; randomised range finder, Halko,
Martinsson, Tropp 2011, arXiv 0909.4061; Frequent Directions, Liberty 2013, arXiv 1206.0594.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from thalweg.numerics import BlockSketch, FrequentDirections
from thalweg.trajectory.delta_store import DeltaStore

__all__ = ["leading_directions", "sketch_path", "stream_directions"]


def sketch_path(
    store: DeltaStore,
    dim: int = 16_384,
    *,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Tensor:
    """A random projection of every row, all tensors end to end, (T, m) float64.

    Inner products of rows are kept up to about 1/√m of the product of their norms, so that
    explained fractions and cosines can be read from T × m numbers however large the model is.

    Args:
        store: the checkpoints.
        dim: m; rows of fewer entries come as they are.
        seed: of the projection.
        progress: told rows done and rows in all.

    Cost: one read of the files.

    Source: Charikar, Chen, Farach-Colton 2002; the block form is ours.
    """
    project, names = BlockSketch(seed, dim), list(store.tensors)
    sizes = [store.tensors[name].numel for name in names]
    out = []
    for t in range(len(store.steps)):

        def stretch(i: int, start: int, stop: int, t: int = t) -> Tensor:
            return store.rows(names[i], slice(start, stop), rows=[t])[0]

        out.append(project.of_stretches(sizes, stretch, torch.float64))
        if progress:
            progress(t + 1, len(store.steps))
    return torch.stack(out) if out else torch.zeros(0, min(dim, sum(sizes)))


def leading_directions(
    store: DeltaStore,
    rank: int,
    *,
    oversample: int = 10,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Tensor, Tensor]:
    """Leading left singular vectors and values of M without its Gram matrix.

    A sketch of every row gives a basis of the T-space; the rows are then read once more, mixed into
    it block by block.

    Args:
        store: the checkpoints.
        rank: r ≤ T.
        oversample: directions beyond r that are kept on the way.
        seed: of the sketch.
        progress: as for ``DeltaStore.blocks``; of the second pass.

    Returns:
        U (T, r), S (r,) descending, float64. No S exceeds the true one; exact for rank ≤ r.

    Raises:
        ValueError: if rank is not in 1 … T.

    Source: Halko, Martinsson, Tropp 2011, arXiv 0909.4061.
    """
    if not 1 <= rank <= len(store.steps):
        raise ValueError(f"leading_directions: need 1 <= rank <= {len(store.steps)}, got {rank}")
    wide = sketch_path(store, max(256, 8 * (rank + oversample)), seed=seed)
    Q = torch.linalg.svd(wide, full_matrices=False).U[:, : rank + oversample]
    B = torch.zeros(Q.shape[1], Q.shape[1], dtype=torch.float64)
    for _, _, block in store.blocks(progress=progress):
        mixed = Q.T @ block
        B.addmm_(mixed, mixed.T)
    values, vectors = torch.linalg.eigh(B)
    S = values.flip(0).clamp(min=0).sqrt()
    return (Q @ vectors.flip(1))[:, :rank], S[:rank]


def stream_directions(store: DeltaStore, name: str, rank: int) -> FrequentDirections:
    """A summary of one tensor's path that never grows, fed checkpoint by checkpoint.

    Its columns stand for the changes: SSᵀ ≈ MᵀM within ‖M‖²_F/(r − j) beyond the j-th direction,
    however many checkpoints there are; new ones can go on being fed to it.

    Args:
        store: the checkpoints.
        name: of a tensor.
        rank: r, columns kept: d × 2r floats.

    Raises:
        MissingTensor: for a name that is not followed.

    Source: Liberty 2013, arXiv 1206.0594.
    """
    directions = FrequentDirections(rank)
    for start in range(0, len(store.steps), rank):
        rows = range(start, min(start + rank, len(store.steps)))
        directions.update(store.rows(name, rows=rows).T)
    return directions
