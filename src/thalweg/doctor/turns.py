"""Where the path of the weights turned: steps at which it left the subspace in which it ran.

Healthy paths bend slowly: what a stretch of steps adds lies to a good part where the stretches
before went, and late in a training, where noise moves the weights, it is no longer than they were.
Another task, other data, a sudden learning rate break that. The statistic is a length: of the move
of a window after a step, the part outside the span of the windows before it, over the longest move
among these. A random walk in many dimensions gives 1, a line 0. A path that turns without becoming
faster gives 1 at most and is not told from a walk.

Source: paths of few dimensions, Xu 2026, arXiv 2602.10496; structure that holds for a while only,
Piontkovskaia and Nikolenko 2026, arXiv 2606.10929. The statistic is ours. Axes: `T` points.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from thalweg.doctor.readings import finite
from thalweg.recorder.run import Run
from thalweg.recorder.stored_weights import Sketches

__all__ = ["AFTER", "BEFORE", "TURNED", "Turn", "new_length", "raised_rates", "turns"]

# A window is this part of the training; coarser where gaps between sketches ask for it.
WINDOWS = (20, 16, 12)
BEFORE, AFTER = 4, 2
# Healthy trainings of five architectures whose sketches suffice reach 1.13 at most, those of mlp
# and transformer with a sketch at every step 1.14; a random walk is at 1. Of 45 with a change in
# the middle 37 pass this mark. All five architectures were in view when it was set.
TURNED = 1.25
LEAST_POINTS = 24
POINTS = 400  # of sketches are enough
# A learning rate that is so many times what it was just before.
RAISED = 1.5


@dataclass(frozen=True)
class Turn:
    """A step at which the path left the subspace in which it ran.

    Attributes:
        step: after which it did.
        window: steps that are looked at behind it; four times as many before.
        length: of the new part of the move, over the longest of the moves before; 1 for noise.
        usual: the largest such number elsewhere in the run.
        known: share of the move's square in the span of the moves before.
    """

    step: int
    window: float
    length: float
    usual: float
    known: float


def turns(run: Run) -> list[Turn]:
    """The turns of a run's path, in order; none if its sketches are too few to tell."""
    from thalweg.trajectory import inner_products

    thinned = _Thinned(run)
    try:
        path = inner_products(thinned, sketched=True)
    except ValueError:  # resumed, not finite, or nothing there
        return []
    if len(path.steps) < LEAST_POINTS:
        return []
    steps = np.array([path.base_step, *path.steps])
    G = np.pad(path.gram.numpy(), ((1, 0), (1, 0)))
    lengths = _new_lengths(steps, G)
    return _peaks(lengths)


class _Thinned:
    """At most ``POINTS`` of a run's sketches, evenly spaced in time: T² inner products are many."""

    def __init__(self, run: Run) -> None:
        self.header, self._run = run.header, run

    def weights(self) -> Any:
        return self._run.weights()

    def sketches(self) -> dict[str, Sketches]:
        return {
            part: Sketches(s.steps[at], s.values[at], s.dim, s.seed)
            for part, s in self._run.sketches().items()
            if len(at := _evenly(s.steps))
        }


def _evenly(steps: np.ndarray) -> np.ndarray:
    if len(steps) <= POINTS:
        return np.arange(len(steps))
    wanted = np.linspace(steps[0], steps[-1], POINTS)
    return np.unique(np.searchsorted(steps, wanted).clip(max=len(steps) - 1))


def _new_lengths(steps: np.ndarray, G: np.ndarray) -> dict[int, tuple[float, float, float]]:
    """Step to its window, the new length and the known share, at the finest windows that fit."""
    found: dict[int, tuple[float, float, float]] = {}
    first, last, gaps = steps[0], steps[-1], np.diff(steps)
    for windows in reversed(WINDOWS):
        h = (last - first) / windows
        for step in steps[(steps >= first + BEFORE * h) & (steps <= last - AFTER * h)]:
            near = (steps[1:] > step - BEFORE * h) & (steps[:-1] < step + AFTER * h)
            if gaps[near].max() <= h / 2:  # longer straight lines cut the corners of noise
                found[int(step)] = (h, *new_length(steps, G, float(step), h))
    return found


def new_length(steps: np.ndarray, G: np.ndarray, step: float, window: float) -> tuple[float, float]:
    """How far a window after a step goes outside where the four before it went.

    Args:
        steps: (T,) ascending.
        G: (T, T) float64, inner products of the points; points between are on straight lines.
        step: where to look.
        window: in steps.

    Returns:
        The length of that part over the longest move before, and the share of the move's square
        that is not in it. 1 and 0 for a random walk in many dimensions, 0 and 1 for a line.
    """
    halves = _points(steps, step + window / 2 * np.arange(-2 * BEFORE, 1))
    before = np.diff(halves, axis=0)
    moves = np.diff(halves[::2], axis=0)
    after = np.diff(_points(steps, np.array([step, step + window])), axis=0)[0]
    values, vectors = np.linalg.eigh(before @ G @ before.T)
    kept = values > 1e-4 * values[-1]  # smaller ones are the noise of the sketches
    along = vectors[:, kept].T @ (before @ G @ after)
    square = float(after @ G @ after)
    longest = float((moves @ G @ moves.T).diagonal().max())
    if not square > 0 or not longest > 0:
        return 0.0, 1.0
    known = min(float((along**2 / values[kept]).sum()) / square, 1.0)
    return ((1 - known) * square / longest) ** 0.5, known


def _points(steps: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Points of the path at any times as mixtures of those known, (n, T)."""
    j = (np.searchsorted(steps, times, side="right") - 1).clip(0, len(steps) - 2)
    share = (times - steps[j]) / (steps[j + 1] - steps[j])
    out = np.zeros((len(times), len(steps)))
    rows = np.arange(len(times))
    out[rows, j] = 1 - share
    out[rows, j + 1] = share
    return out


def _peaks(found: dict[int, tuple[float, float, float]]) -> list[Turn]:
    """The largest numbers above the threshold, one in two windows."""
    left, chosen = dict(found), list[tuple[int, tuple[float, float, float]]]()
    while left:
        step = max(left, key=lambda s: left[s][1])
        window, length, _ = left[step]
        if length < TURNED:
            break
        chosen.append((step, left[step]))
        left = {s: row for s, row in left.items() if abs(s - step) > AFTER * window}
    usual = max((length for _, length, _ in left.values()), default=0.0)
    return [Turn(step, h, length, usual, known) for step, (h, length, known) in sorted(chosen)]


def raised_rates(run: Run, turn: Turn) -> dict[str, tuple[float, float]]:
    """Learning rates that rose where the path turned: part to the rate before and after."""
    found, begins = {}, turn.step - turn.window / 2  # the step is known to half a window
    for (name, part), series in run.all_series().items():
        steps, rates = finite(series)
        if name != "lr" or not len(rates):
            continue
        # A rate is written when it changes: one holds until the next.
        first = max(np.searchsorted(steps, turn.step - BEFORE * turn.window, side="right") - 1, 0)
        before = rates[first : np.searchsorted(steps, begins, side="right")]
        after = rates[(steps > begins) & (steps <= turn.step + turn.window)]
        if len(before) and len(after) and after.max() >= RAISED * before.max():
            found[part] = float(before.max()), float(after.max())
    return found
