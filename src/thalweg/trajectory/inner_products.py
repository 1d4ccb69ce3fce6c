"""What a path's geometry is read from: the inner products of its changes, however they are known.

Full weights give them exactly; sketches, T × m random projections that a recording keeps far more
often than weights, give them up to about 1/√m of the lengths. Beyond some thousand checkpoints the
T × T matrix itself is too much, and its leading part stands for it.

Source: randomised range finder, Halko, Martinsson, Tropp 2011, arXiv 0909.4061. Axes: `T` points.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from thalweg.trajectory.delta_store import DeltaStore

__all__ = ["InnerProducts", "inner_products"]

MOST = 4096  # points: above, G would take over 128 MB and its eigenvectors minutes


@dataclass(frozen=True)
class InnerProducts:
    """Inner products ⟨θ_s − θ_0, θ_t − θ_0⟩ of a path.

    Attributes:
        steps: (T,) of the points, ascending; the base is not among them.
        gram: (T, T) float64.
        dim: number of weights.
        known_from: ``weights``, ``sketches`` (inner products within about ``error`` of the product
            of the lengths) or ``matrix``.
        error: relative, one standard deviation; 0 for weights.
        base_step: step of θ_0.
    """

    steps: tuple[int, ...]
    gram: Tensor
    dim: int
    known_from: Literal["weights", "sketches", "matrix"]
    error: float = 0.0
    base_step: int = 0


def inner_products(
    source: Any,
    *,
    names: Sequence[str] | None = None,
    sketched: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> InnerProducts:
    """Inner products of the changes of a path from its base.

    Args:
        source: a ``thalweg.Run`` (its snapshots; its sketches if it has fewer than three after the
            first), a ``DeltaStore``, what a ``DeltaStore`` takes, or a (T, P) matrix of changes.
        names: of tensors to count; default: all. Not for sketches, which mix them.
        sketched: use a run's sketches though it has snapshots: more points, less exact.
        progress: as for ``DeltaStore.gram``.

    Raises:
        ValueError: if nothing is there, values are not finite, or there are too many points.

    Example:
        >>> import torch
        >>> inner_products(torch.tensor([[1.0, 0.0], [2.0, 1.0]])).gram
        tensor([[1., 2.],
                [2., 5.]], dtype=torch.float64)
    """
    if isinstance(source, Tensor):
        if source.ndim != 2 or not source.numel():
            raise ValueError(f"inner_products: expected a (T, P) matrix, got {tuple(source.shape)}")
        M = source.detach().double()
        if not bool(torch.isfinite(M).all()):
            row = int((~torch.isfinite(M).all(1)).nonzero()[0])
            raise ValueError(f"inner_products: row {row} of the matrix is not finite")
        _few_enough(len(M))
        return InnerProducts(tuple(range(1, len(M) + 1)), M @ M.T, M.shape[1], "matrix")
    is_run = hasattr(source, "sketches") and hasattr(source, "weights")
    if is_run and (sketched or len(source.weights()) < 4):
        if names is not None:
            raise ValueError("inner_products: sketches mix all tensors; names= needs snapshots")
        return _from_sketches(source)
    store = source if isinstance(source, DeltaStore) else DeltaStore(source)
    _few_enough(len(store.steps))
    grams = store.gram(progress=progress)
    chosen = list(grams) if names is None else list(names)
    if unknown := [name for name in chosen if name not in grams]:
        raise ValueError(f"inner_products: no tensor {unknown[0]!r} in the store")
    G = sum((grams[name] for name in chosen), torch.zeros(len(store.steps), len(store.steps)))
    dim = sum(store.tensors[name].numel for name in chosen)
    return InnerProducts(tuple(store.steps), G.double(), dim, "weights", 0.0, store.base_step)


def _from_sketches(run: Any) -> InnerProducts:
    """Sum over parameter groups, at the steps that all groups share."""
    if len(getattr(run, "header", {}).get("segments", ())) > 1:
        raise ValueError(
            "inner_products: the run was resumed, and its sketches are of changes from where each "
            "part began; use its snapshots"
        )
    groups = list(run.sketches().values())
    if not groups:
        raise ValueError("inner_products: the run holds neither snapshots nor sketches of weights")
    shared = sorted(set.intersection(*(set(group.steps.tolist()) for group in groups)))
    _few_enough(len(shared))
    G = torch.zeros(len(shared), len(shared), dtype=torch.float64)
    for group in groups:
        at = {step: i for i, step in enumerate(group.steps.tolist())}
        S = torch.from_numpy(group.values[[at[step] for step in shared]]).double()
        G += S @ S.T
    size = min(group.values.shape[1] for group in groups)
    exact = all(group.dim <= group.values.shape[1] for group in groups)
    moved = G.diagonal() > 0
    steps = tuple(step for step, m in zip(shared, moved.tolist(), strict=True) if m)
    G = G[moved][:, moved]
    if not steps or not bool(torch.isfinite(G).all()):
        raise ValueError("inner_products: the sketches hold no finite change of the weights")
    dim = sum(group.dim for group in groups)
    # Stored as float16: 5e-4 relative, beside the sketch's own noise.
    return InnerProducts(steps, G, dim, "sketches", 5e-4 if exact else size**-0.5)


def _few_enough(points: int) -> None:
    if points > MOST:
        raise ValueError(
            f"inner_products: {points} points make a {points} × {points} matrix; at most {MOST}: "
            "take every k-th, or leading_directions(store, rank)"
        )
