"""A fine-tune that turned what the network had learnt: its leading singular directions.

A trained matrix has a few singular values beyond those of noise, and what it knows lies along them.
Fine-tuning that keeps the old abilities leaves these directions almost where they were; hard
fine-tuning turns them, and the old task goes with them.

Source: H. Zhu et al. 2025, arXiv 2511.08567 (angles of principal directions before and after); the
edge of noise: Marchenko and Pastur 1967. Axes: `m` rows, `n` columns, `k` directions.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod, sqrt
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from thalweg.doctor.diagnosis import Diagnosis, Evidence
from thalweg.doctor.readings import matrices
from thalweg.errors import ThalwegError
from thalweg.recorder.run import Run

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["principal_directions_moved"]

# The smaller side of a matrix: below, a spectrum says little, above, it takes minutes.
LEAST_SIDE, MOST_SIDE = 8, 2048
MOST_MATRICES = 12  # spread over the model
# Singular values so far beyond the edge of noise are spikes; fresh layers stay below it.
BEYOND = 1.05
# A run is a fine-tune if so many of its matrices begin with spikes.
TRAINED = 0.5
# Mean angle in degrees: our fine-tunes that keep the old task stay below 10, those that lose a
# seventh of it reach 25, those that lose half pass 35.
TURNED = 30.0
LEAST_STEPS = 20


@dataclass(frozen=True)
class _Moved:
    """A matrix: its spikes, the mean angle by which they turned, and how far its spectrum went."""

    name: str
    spikes: int
    degrees: float
    drift: float


def principal_directions_moved(run: Run) -> list[Diagnosis]:
    """Finds fine-tunes whose last snapshot has other leading directions than the first.

    A run counts as a fine-tune if half of its matrices begin with singular values that noise does
    not have; training from scratch begins with none. Looked at are a dozen matrices whose smaller
    side is 2048 at most.
    """
    snapshots = run.weights()
    if len(snapshots) < 2 or max(snapshots) - min(snapshots) < LEAST_STEPS:
        return []
    first, last = min(snapshots), max(snapshots)
    looked, moved = 0, list[_Moved]()
    try:
        for name, W0, W1 in _pairs(run, snapshots.path(first), snapshots.path(last)):
            looked += 1
            if spikes := _spikes(W0):
                moved.append(_Moved(name, spikes, *_turned(W0, W1, spikes)))
    except ThalwegError:  # a broken snapshot
        return []
    if not moved or len(moved) < TRAINED * looked:
        return []
    directions = sum(m.spikes for m in moved)
    mean = sum(m.spikes * m.degrees for m in moved) / directions
    if mean < TURNED:
        return []
    worst = sorted(moved, key=lambda m: -m.degrees)[:3]
    return [
        Diagnosis(
            "principal_directions_moved",
            "warning",
            "the fine-tune turned the leading directions of what the network knew: the old task is "
            "likely forgotten",
            (
                Evidence(
                    f"{len(moved)} of {looked} matrices begin with singular values beyond those of "
                    f"noise, so the run is a fine-tune; their {directions} leading directions "
                    f"turned by {mean:.0f} degrees on average between steps {first} and {last}",
                    (first, last),
                    mean,
                ),
                *(
                    Evidence(
                        f"{m.name!r}: {m.spikes} directions turned by {m.degrees:.0f} degrees on "
                        f"average, and its singular values changed by {m.drift:.0%}",
                        (first, last),
                        m.degrees,
                    )
                    for m in worst
                ),
            ),
            "rlvr-off-principals",
            "Zhu et al. 2025, arXiv 2511.08567: training with verifiable rewards leaves principal "
            "directions in place, supervised fine-tuning turns them",
            "Measure the old task now. To keep it: a tenth of the learning rate, fewer steps, old "
            "data mixed in (replay), or the lower layers frozen: `module.requires_grad_(False)`",
            False,
        )
    ]


def _pairs(run: Run, first: Path, last: Path) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Trained matrices at both ends; kernels as (out, in · height · width)."""
    from thalweg.trajectory import open_checkpoint

    frozen = {n for model in run.header.get("models") or [] for n in model.get("frozen") or []}
    before, after = open_checkpoint(first), open_checkpoint(last)
    fit = [
        name
        for name in matrices(run)
        if name not in frozen
        and name in before.tensors
        and before.tensors[name] == after.tensors.get(name)
        and len(shape := before.tensors[name].shape) <= 4
        and LEAST_SIDE <= min(prod(shape[:1]), prod(shape[1:])) <= MOST_SIDE
    ]
    for i in sorted({round(i) for i in np.linspace(0, len(fit) - 1, MOST_MATRICES)} if fit else ()):
        info = before.tensors[fit[i]]
        W0, W1 = (
            c.read(fit[i], 0, info.numel).float().reshape(info.shape).flatten(1)
            for c in (before, after)
        )
        if bool(W0.isfinite().all() and W1.isfinite().all()):
            yield fit[i], W0, W1


def _spikes(W: Tensor) -> int:
    """Singular values beyond σ(√m + √n), where those of noise with the same entries end."""
    from thalweg.trajectory.matrix_spectrum import matrix_spectrum

    edge = float(W.double().square().mean().sqrt()) * sum(sqrt(side) for side in W.shape)
    return int((matrix_spectrum(W).values > BEYOND * edge).sum()) if edge > 0 else 0


def _turned(W0: Tensor, W1: Tensor, k: int) -> tuple[float, float]:
    """Mean principal angle of the first k directions of both sides, and the spectrum's change."""
    from thalweg.trajectory import principal_angles, spectral_drift

    return float(principal_angles(W0, W1, k).mean()), spectral_drift(W0, W1)
