"""What rules read of a run: series that may be missing, parts by kind, robust levels.

Medians and median absolute deviations throughout: a loss per batch is noisy and spikes, and one
spike must neither raise an alarm nor hide one. Axes: `T` rows of a series, `K` blocks of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any

import numpy as np

from thalweg.recorder.run import Run

__all__ = [
    "Levels",
    "ReadOnce",
    "Series",
    "by_part",
    "finite",
    "levels",
    "matrices",
    "shapes",
    "spread",
    "training_loss",
    "whole",
]

Series = tuple[np.ndarray, np.ndarray]
_NOTHING: Series = (np.zeros(0, np.int64), np.zeros(0))
# The median absolute deviation of a normal law is its standard deviation over this.
_MAD = 1.4826


class ReadOnce(Run):
    """A run whose files are read once, however many rules ask: one moment of a growing run."""

    @cached_property
    def header(self) -> dict[str, Any]:
        """As of the first time it was asked for."""
        return super().header

    @cached_property
    def events(self) -> list[dict[str, Any]]:
        """As of the first time they were asked for."""
        return super().events

    @cached_property
    def _rank0(self) -> dict[tuple[str, str], Series]:
        return super().all_series()

    def all_series(self, *, rank: int = 0) -> dict[tuple[str, str], Series]:
        """As `Run.all_series`; of rank 0 as of the first time it was asked for."""
        return self._rank0 if rank == 0 else super().all_series(rank=rank)


def _optimizer_labels(run: Run) -> set[str]:
    optimizers = run.header.get("optimizers") or []
    return {""} | {str(o.get("part", "")) for o in optimizers}


def whole(run: Run, instrument: str) -> Series:
    """The figure of the whole model; empty if there is none."""
    return run.all_series().get((instrument, ""), _NOTHING)


def by_part(run: Run, instrument: str) -> dict[str, Series]:
    """Part to series, without the wholes, in the order in which the recorder met them.

    For parameters that is the order of the param groups, for modules that of the forward pass.
    """
    wholes = _optimizer_labels(run)
    return {
        part: series
        for (owner, part), series in run.all_series().items()
        if owner == instrument and part not in wholes
    }


def training_loss(run: Run) -> Series:
    """The loss that the training lowers; empty if several optimizers have one each.

    Losses that play against each other (GANs, actor and critic) need not fall.
    """
    found = [s for (owner, _), s in run.all_series().items() if owner == "loss"]
    if not found or any(not np.array_equal(found[0][1], s[1], equal_nan=True) for s in found[1:]):
        return _NOTHING
    return found[0]


def shapes(run: Run) -> dict[str, tuple[int, ...]]:
    """Parameter name to shape, in the order of the model."""
    found: dict[str, tuple[int, ...]] = {}
    for model in run.header.get("models") or []:
        label = model.get("label") or ""
        for name, shape in (model.get("tensors") or {}).items():
            found[f"{label}.{name}" if label else name] = tuple(shape)
    return found


def matrices(run: Run) -> dict[str, int]:
    """Weights with two axes or more, in the order of the model, to their number of entries.

    Biases and the gains of normalisation layers live on scales of their own.
    """
    return {name: prod(shape) for name, shape in shapes(run).items() if len(shape) >= 2}


def finite(series: Series) -> Series:
    """The rows whose value is finite."""
    keep = np.isfinite(series[1])
    return series[0][keep], series[1][keep]


def spread(values: np.ndarray) -> float:
    """Robust standard deviation, 1.4826 · median |x − median x|; 0 for nothing."""
    return float(_MAD * np.median(np.abs(values - np.median(values)))) if len(values) else 0.0


@dataclass(frozen=True)
class Levels:
    """A series cut into consecutive blocks.

    Attributes:
        starts: first step of each block, (K,).
        medians: (K,).
        spreads: robust standard deviation inside each block, (K,).
        size: rows in a block, roughly.
    """

    starts: np.ndarray
    medians: np.ndarray
    spreads: np.ndarray
    size: int


def levels(series: Series, blocks: int) -> Levels:
    """Cuts the finite rows of a series, (T,) with T ≥ blocks, into blocks of equal size."""
    steps, values = finite(series)
    cut = np.array_split(np.arange(len(values)), blocks)
    return Levels(
        np.array([steps[rows[0]] for rows in cut]),
        np.array([np.median(values[rows]) for rows in cut]),
        np.array([spread(values[rows]) for rows in cut]),
        len(values) // blocks,
    )
