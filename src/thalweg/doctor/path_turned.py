"""The path of the weights turned: at one step it left the subspace in which it ran.

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
import torch
from torch import Tensor

from thalweg.doctor.diagnosis import Diagnosis, Evidence
from thalweg.doctor.gradient_spikes import gradient_spikes
from thalweg.doctor.learning_rate import lr_too_high
from thalweg.doctor.nonfinite import nonfinite
from thalweg.doctor.readings import by_part, finite, training_loss
from thalweg.recorder.run import Run
from thalweg.recorder.stored_weights import Sketches

__all__ = ["Turn", "path_turned", "turns"]

# A window is this part of the training; coarser where gaps between sketches ask for it.
WINDOWS = (20, 16, 12)
BEFORE, AFTER = 4, 2
# 119 healthy trainings of five architectures reach 1.13 at most, 24 with a change in the middle
# pass 1.3 but for three; a random walk is at 1.
TURNED = 1.25
LEAST_POINTS = 24
POINTS = 400  # of sketches are enough
# A learning rate, or a loss, that is so many times what it was just before.
RAISED, ROSE = 1.5, 1.5
# Events that the recorder writes of itself.
TECHNICAL = ("unsupported", "recorder error", "disk error", "black box", "black box off")


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


def path_turned(run: Run) -> list[Diagnosis]:
    """Finds the steps at which the weights set out in a new direction, and what changed there.

    Says nothing where a learning rate that is too high, spikes or values that are not finite
    explain the path.
    """
    found = turns(run)
    if not found or nonfinite(run) or lr_too_high(run) or gradient_spikes(run):
        return []
    worst = max(found, key=lambda turn: turn.length)
    causes = [*_learning_rate(run, worst), *_began_to_move(run, worst), *_events(run, worst)]
    loss = _loss(run, worst)
    at = ", ".join(str(turn.step) for turn in found)
    return [
        Diagnosis(
            "path_turned",
            "warning",
            f"the path of the weights turned at step {at}: it left the subspace in which it ran",
            (
                Evidence(
                    f"the {worst.window:.0f} steps after step {worst.step} went {worst.length:.3g} "
                    f"times as far outside the span of the {BEFORE * worst.window:.0f} steps "
                    f"before as any {worst.window:.0f} of those went; at most {worst.usual:.2g} "
                    "elsewhere, 1 for a random walk",
                    (worst.step,),
                    worst.length,
                ),
                *(evidence for _, evidence in causes),
                *loss,
            ),
            "local-linear-structure",
            "Piontkovskaia and Nikolenko 2026, arXiv 2606.10929; Xu 2026, arXiv 2602.10496",
            _treatment(causes[0][0] if causes else "", bool(loss), worst),
            False,
        )
    ]


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
    G = torch.nn.functional.pad(path.gram, (1, 0, 1, 0))
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


def _new_lengths(steps: np.ndarray, G: Tensor) -> dict[int, tuple[float, float, float]]:
    """Step to its window, the new length and the known share, at the finest windows that fit."""
    found: dict[int, tuple[float, float, float]] = {}
    first, last, gaps = steps[0], steps[-1], np.diff(steps)
    for windows in reversed(WINDOWS):
        h = (last - first) / windows
        for step in steps[(steps >= first + BEFORE * h) & (steps <= last - AFTER * h)]:
            near = (steps[1:] > step - BEFORE * h) & (steps[:-1] < step + AFTER * h)
            if gaps[near].max() <= h:
                found[int(step)] = (h, *new_length(steps, G, float(step), h))
    return found


def new_length(steps: np.ndarray, G: Tensor, step: float, window: float) -> tuple[float, float]:
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
    before = halves.diff(dim=0)
    moves = halves[::2].diff(dim=0)
    after = _points(steps, np.array([step, step + window])).diff(dim=0)[0]
    values, vectors = torch.linalg.eigh(before @ G @ before.T)
    kept = values > 1e-4 * values[-1]  # smaller ones are the noise of the sketches
    along = vectors[:, kept].T @ (before @ G @ after)
    square = float(after @ G @ after)
    longest = float((moves @ G @ moves.T).diagonal().max())
    if not square > 0 or not longest > 0:
        return 0.0, 1.0
    known = min(float((along.square() / values[kept]).sum()) / square, 1.0)
    return ((1 - known) * square / longest) ** 0.5, known


def _points(steps: np.ndarray, times: np.ndarray) -> Tensor:
    """Points of the path at any times as mixtures of those known, (n, T)."""
    j = (np.searchsorted(steps, times, side="right") - 1).clip(0, len(steps) - 2)
    share = torch.from_numpy((times - steps[j]) / (steps[j + 1] - steps[j]))
    out = torch.zeros(len(times), len(steps), dtype=torch.float64)
    rows = torch.arange(len(times))
    out[rows, torch.from_numpy(j)] = 1 - share
    out[rows, torch.from_numpy(j + 1)] = share
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


Cause = tuple[str, Evidence]


def _learning_rate(run: Run, turn: Turn) -> list[Cause]:
    """Learning rates that rose where the path turned."""
    found, begins = [], turn.step - turn.window / 2  # the step is known to half a window
    for (name, part), series in run.all_series().items():
        steps, rates = finite(series)
        if name != "lr" or not len(rates):
            continue
        # A rate is written when it changes: one holds until the next.
        first = max(np.searchsorted(steps, turn.step - BEFORE * turn.window, side="right") - 1, 0)
        before = rates[first : np.searchsorted(steps, begins, side="right")]
        after = rates[(steps > begins) & (steps <= turn.step + turn.window)]
        if len(before) and len(after) and after.max() >= RAISED * before.max():
            of = f" of {part!r}" if part else ""
            text = f"the learning rate{of} rose from {before.max():.3g} to {after.max():.3g}"
            value = float(after.max() / before.max()) if before.max() > 0 else None
            found.append(("lr", Evidence(text, (turn.step,), value, None, ("lr", part))))
    return found[:1]


def _began_to_move(run: Run, turn: Turn) -> list[Cause]:
    """Tensors that stood still before and move since."""
    found, steps = [], np.zeros(0)
    for part, series in by_part(run, "distance_from_init").items():
        steps, values = finite(series)
        moving = np.flatnonzero(values > 0)
        if len(moving) and moving[0] > 1 and abs(steps[moving[0]] - turn.step) <= 2 * turn.window:
            found.append(part)
    if not found:
        return []
    more = f" and {len(found) - 3} more" if len(found) > 3 else ""
    text = f"{', '.join(map(repr, found[:3]))}{more} did not move before"
    return [("layers", Evidence(text, (turn.step,), None, None, ("distance_from_init", found[0])))]


def _events(run: Run, turn: Turn) -> list[Cause]:
    """What the run itself says of that moment."""
    near = [
        event
        for event in run.events
        if abs(event.get("step", -1e9) - turn.step) <= turn.window
        and event.get("event") not in TECHNICAL
    ]
    return [
        ("event", Evidence(f"the run notes {e['event']!r} at step {e['step']}", (e["step"],)))
        for e in near[:2]
    ]


def _loss(run: Run, turn: Turn) -> list[Evidence]:
    """A loss that rose where the path turned."""
    steps, losses = finite(training_loss(run))
    before = losses[(steps < turn.step) & (steps >= turn.step - turn.window)]
    after = losses[(steps >= turn.step) & (steps <= turn.step + turn.window)]
    if len(before) < 3 or len(after) < 3:
        return []
    usual, peak = float(np.median(before)), float(np.median(after))
    if not 0 < ROSE * usual <= peak:
        return []
    text = f"the loss rose from {usual:.3g} to {peak:.3g}"
    return [Evidence(text, (turn.step,), peak / usual, None, ("loss", ""))]


def _treatment(cause: str, worse: bool, turn: Turn) -> str:
    do = {
        "lr": "Warm up to a higher learning rate: "
        "`torch.optim.lr_scheduler.LinearLR(optimizer, 0.1, total_iters=...)`, or go back to the "
        "former one",
        "layers": "Give layers that are unfrozen a warm-up or a lower learning rate of their own",
    }.get(
        cause,
        "Other data or another task from there on? Mix some of the old in (replay), or lower the "
        "learning rate at the change, and check the old task"
        if worse or cause
        else "Look for what changed there: data, task, augmentation, frozen layers",
    )
    return (
        f"{do}. Neither extrapolate nor average weights across step {turn.step}: take the path "
        "from there on"
    )
