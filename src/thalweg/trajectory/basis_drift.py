"""How fast the directions that a training uses turn away from those that it began with.

V_t are the first m right singular directions of the gradients, or updates, t … t + w − 1. Their
overlap with those of the first window is O(t) = ‖V_tᵀV_0‖²_F/m: 1 for the same span, m/P for random
ones. Few noisy gradients never give the same span twice, even where nothing moves, so that drift is
only what lies below the ceiling: the overlap of two sets of w gradients at the same weights.

Source: I. Piontkovskaia, S. Nikolenko 2026, arXiv 2606.10929; definitions reconstructed from its
abstract. Axes: `T` rows, `P` weights.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from thalweg.trajectory.gradient_bank import GradientBank, gram_of, overlap_of_rows
from thalweg.trajectory.inner_products import inner_products

__all__ = ["DriftCurve", "basis_drift"]


@dataclass(frozen=True)
class DriftCurve:
    """Overlap of later windows with the first.

    Attributes:
        starts: (W,) first row of each window; row i is the update from point i to point i + 1.
        steps: (W,) of the training at which the windows begin.
        overlap: (W,) O(t), the first is 1; nan where a window does not move.
        random: m/P, of random directions.
        ceiling: overlap at the same weights; nan if it is not known.
        size: m.
        window: w.
    """

    starts: tuple[int, ...]
    steps: tuple[int, ...]
    overlap: tuple[float, ...]
    random: float
    ceiling: float
    size: int
    window: int

    def at(self, start: int) -> float:
        """O of the window that begins with this row.

        Raises:
            ValueError: if none does.
        """
        if start not in self.starts:
            raise ValueError(f"DriftCurve: no window begins at row {start}: {self.starts[:8]} …")
        return self.overlap[self.starts.index(start)]

    @property
    def half_life(self) -> float:
        """The first row after w at which O falls below half of O(w); inf if none.

        Windows before w share rows with the first, so that O(w) is where the comparison begins.
        """
        later = [(t, o) for t, o in zip(self.starts, self.overlap, strict=True) if t >= self.window]
        if not later:
            return math.inf
        return next((float(t) for t, o in later if o < 0.5 * later[0][1]), math.inf)


def basis_drift(
    source: Any,
    m: int,
    window: int,
    *,
    stride: int = 1,
    names: Sequence[str] | None = None,
    ceiling: GradientBank | float = math.nan,
) -> DriftCurve:
    """Overlap of the directions of later windows with those of the first one.

    Args:
        source: a (T, P) matrix of gradients or updates, one row a step; or a run, a ``DeltaStore``
            or what one takes, whose updates between checkpoints are the rows.
        m: directions, at most ``window``.
        window: w, rows; at most T.
        stride: rows from one window to the next.
        names: tensors to follow; default: all. Not for a matrix.
        ceiling: overlap of two sets of w gradients at the same weights, or a bank of 2w gradients
            at the weights of the first window, from which it is taken.

    Raises:
        ValueError: if m or the window do not fit, the first window does not move, or values are
            not finite.

    Cost: one read of the weights, (T/stride) decompositions of (w, w).

    Source: arXiv 2606.10929; entry local-linear-structure.

    Example:
        >>> rows = torch.eye(4)[[0, 0, 1, 1, 2, 2]]
        >>> found = basis_drift(rows, m=1, window=2, stride=2)
        >>> [round(o, 6) for o in found.overlap], found.random
        ([1.0, 0.0, 0.0], 0.25)
    """
    gram, steps, dim = _rows(source, names)
    total = len(gram)
    if not 1 <= m <= window <= total or stride < 1:
        raise ValueError(
            f"basis_drift: need 1 <= m <= window <= {total} rows and stride >= 1, got m={m}, "
            f"window={window}, stride={stride}"
        )
    if isinstance(ceiling, GradientBank):
        if ceiling.size < 2 * window:
            raise ValueError(
                f"basis_drift: the ceiling of windows of {window} needs {2 * window} gradients, "
                f"got {ceiling.size}"
            )
        pair = range(window), range(window, 2 * window)
        ceiling = overlap_of_rows(ceiling.gram, *pair, m)
    first = range(window)
    if not float(gram[:window, :window].trace()) > 0:
        raise ValueError("basis_drift: nothing moves in the first window")
    starts = range(0, total - window + 1, stride)
    overlap = [overlap_of_rows(gram, first, range(t, t + window), m) for t in starts]
    return DriftCurve(
        starts=tuple(starts),
        steps=tuple(steps[t] for t in starts),
        overlap=tuple(overlap),
        random=min(m / dim, 1.0),
        ceiling=float(ceiling),
        size=m,
        window=window,
    )


def _rows(source: Any, names: Sequence[str] | None) -> tuple[Tensor, Sequence[int], int]:
    """Inner products of the rows, the step before each, P."""
    if isinstance(source, Tensor):
        if source.ndim != 2 or not source.numel() or names is not None:
            raise ValueError(
                f"basis_drift: expected a (T, P) matrix without names, got {tuple(source.shape)}"
            )
        gram = gram_of(source.detach())
        if not bool(torch.isfinite(gram).all()):
            raise ValueError("basis_drift: the matrix is not finite")
        return gram, range(len(gram)), source.shape[1]
    found = inner_products(source, names=names)
    # Updates are differences of neighbouring changes, the first of which is an update itself.
    G = torch.zeros(len(found.steps) + 1, len(found.steps) + 1, dtype=torch.float64)
    G[1:, 1:] = found.gram
    gram = G.diff(dim=0).diff(dim=1)
    return gram, (found.base_step, *found.steps[:-1]), found.dim
