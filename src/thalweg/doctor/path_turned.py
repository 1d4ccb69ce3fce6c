"""The path of the weights turned: at one step it left the subspace in which it ran, and why.

The statistic is in ``turns``. Source: Piontkovskaia and Nikolenko 2026, arXiv 2606.10929; Xu 2026,
arXiv 2602.10496.
"""

from __future__ import annotations

import numpy as np

from thalweg.doctor.diagnosis import Diagnosis, Evidence
from thalweg.doctor.gradient_spikes import gradient_spikes
from thalweg.doctor.learning_rate import lr_too_high
from thalweg.doctor.nonfinite import nonfinite
from thalweg.doctor.plasticity import loss_of_plasticity
from thalweg.doctor.readings import by_part, finite, training_loss
from thalweg.doctor.turns import BEFORE, Turn, raised_rates, turns
from thalweg.recorder.run import Run

__all__ = ["path_turned"]

# A loss that is so many times what it was just before, and has lost such a part of what was learnt:
# near nothing, a loss is eight times what it was by a few hard batches.
ROSE = 1.5
LOST = 0.1
# A turn for which the run shows no cause is a note, and must stand out from the rest of the path: a
# training with early-learning regularisation, where nothing changes, reaches 1.27, and 1.2
# elsewhere; one with momentum of a small residual network 1.71 and 0.96.
STANDS_OUT = 1.5
# Events that the recorder writes of itself.
TECHNICAL = ("unsupported", "recorder error", "disk error", "black box", "black box off")


def path_turned(run: Run) -> list[Diagnosis]:
    """Finds the steps at which the weights set out in a new direction, and what changed there.

    Says nothing where a rule that is more exact explains the path: values that are not finite, a
    learning rate that is too high, spikes, or a network that wears out.
    """
    found = turns(run)
    others = (nonfinite, lr_too_high, gradient_spikes, loss_of_plasticity)
    if not found or any(rule(run) for rule in others):
        return []
    worst = max(found, key=lambda turn: turn.length)
    causes = [*_learning_rate(run, worst), *_began_to_move(run, worst), *_events(run, worst)]
    loss = _loss(run, worst)
    if not causes and not loss and worst.length < STANDS_OUT * worst.usual:
        return []
    at = ", ".join(str(turn.step) for turn in found)
    return [
        Diagnosis(
            "path_turned",
            "warning" if causes or loss else "note",
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


Cause = tuple[str, Evidence]


def _learning_rate(run: Run, turn: Turn) -> list[Cause]:
    """The first learning rate that rose where the path turned."""
    for part, (before, after) in raised_rates(run, turn).items():
        of = f" of {part!r}" if part else ""
        text = f"the learning rate{of} rose from {before:.3g} to {after:.3g}"
        value = after / before if before > 0 else None
        return [("lr", Evidence(text, (turn.step,), value, None, ("lr", part)))]
    return []


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
    started = float(np.median(losses[:3]))
    if not 0 < ROSE * usual <= peak or peak - usual < LOST * (started - usual):
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
