"""A learning rate that is too high, or uselessly low.

Too high is judged by the loss alone: it leaves its band and does not come back. Curvature beyond
2/η is no sign of illness, since full-batch training sits at that edge for most of its healthy life;
where it was measured it is shown as evidence, never used as the trigger.
"""

from __future__ import annotations

import numpy as np

from thalweg.doctor.diagnosis import Diagnosis, Evidence
from thalweg.doctor.readings import Levels, finite, levels, spread, training_loss, whole
from thalweg.doctor.resolution import below_resolution
from thalweg.recorder.run import Run

__all__ = ["lr_too_high", "lr_too_low"]

# Fewer losses say nothing about a band.
LEAST_LOSSES = 30
# The loss is judged by the medians of this many stretches, of at least 8 steps each.
BLOCKS, BLOCK_STEPS = 40, 8
# Half-width of the band in robust standard deviations of the loss per batch.
BAND = 6.0
# ... and at least this share of all that the training had gained: a healthy loss may creep up a
# little (regularisation, harder data), it does not give back a third.
LOST = 0.3
# The loss counts as gone when it stays away for this share of the training, and until its end.
AWAY, AWAY_STEPS = 0.1, 30
# A loss that rose to this many times its first value ...
BLOWN_UP = 3.0
# ... and ends above this share of it has lost the training to that rise.
KEPT = 0.5
# A step of a tenth of the weights is 30 to 100 times what trainings of any size work with (the rule
# of thumb is 1e-3).
LARGE_RATIO = 0.1
# Ratio of update to weights below which a training stands still: 1e4 steps move it by 10 %.
SMALL_RATIO = 1e-5
# "Hardly moved": less than this share of the first loss, or within its noise.
HARDLY = 0.03


def lr_too_high(run: Run) -> list[Diagnosis]:
    """Finds a loss that left its running band for good, or blew up and never recovered."""
    series = training_loss(run)
    steps, values = finite(series)
    if not len(series[0]) or not len(steps):
        return []
    found = _diverged(series) or _blew_up(steps, values)
    if found is None and len(values) >= LEAST_LOSSES:
        blocks = min(BLOCKS, len(values) // BLOCK_STEPS)
        found = _left_band(levels(series, blocks), steps, values)
    if found is None:
        return []
    symptom, evidence = found
    evidence = [evidence, *_steps_too_large(run), *_curvature(run)]
    return [
        Diagnosis(
            "lr_too_high",
            "problem",
            symptom,
            tuple(evidence),
            "sgd-dynamical-stability",
            "Steps beyond the stability threshold 2/λ_max diverge unless the loss curves back: "
            "Cohen et al. 2021, arXiv 2103.00065; Wu and Su 2023, arXiv 2305.17490",
            f"{_smaller(run)} and warm up: "
            "`torch.optim.lr_scheduler.LinearLR(optimizer, 0.01, total_iters=500)`",
            False,
        )
    ]


def _diverged(series: tuple[np.ndarray, np.ndarray]) -> tuple[str, Evidence] | None:
    """The loss grew and then was finite no more."""
    steps, values = series
    bad = np.flatnonzero(~np.isfinite(values))
    if not len(bad) or bad[0] < 2:
        return None
    before = values[: bad[0]]
    last = float(before[-3:].max())
    usual = float(np.median(before[: max(1, len(before) - 3)]))
    start = max(abs(float(before[0])), abs(usual))
    if last < BLOWN_UP * start:
        return None
    text = (
        f"loss {before[0]:.3g} at step {steps[0]}, {last:.3g} just before step {steps[bad[0]]}, "
        "not finite from there"
    )
    return "the loss diverges", Evidence(text, (int(steps[bad[0]]),), last, None, ("loss", ""))


def _blew_up(steps: np.ndarray, values: np.ndarray) -> tuple[str, Evidence] | None:
    """The loss rose far above its first value and the training ends without much gained."""
    if len(values) < LEAST_LOSSES:
        return None
    start = float(values[0])
    tail = values[-max(8, len(values) // 8) :]
    end, noise = float(np.median(tail)), spread(tail) / len(tail) ** 0.5
    peak = int(values.argmax())
    if start <= 0 or values[peak] < BLOWN_UP * start or end < KEPT * start:
        return None
    text = (
        f"loss {start:.3g} at step {steps[0]}, {values[peak]:.3g} at step {steps[peak]}, "
        f"{end:.3g} ± {noise:.1g} at the end"
    )
    return "the loss blew up and never recovered", Evidence(
        text, (int(steps[peak]),), end, noise, ("loss", "")
    )


def _left_band(found: Levels, steps: np.ndarray, values: np.ndarray) -> tuple[str, Evidence] | None:
    """The loss left the band that it had reached and stayed away until the end."""
    medians = found.medians
    if len(medians) < 3:
        return None
    best = int(medians.argmin())
    near = slice(max(0, best - 2), best + 3)
    noise = float(np.median(found.spreads[near]))
    gained = max(float(values[0]), float(medians[0])) - medians[best]
    limit = medians[best] + max(BAND * noise, LOST * gained)
    inside = np.flatnonzero(medians <= limit)
    left = int(inside[-1]) + 1
    if left >= len(medians):
        return None
    away = int(steps[-1] - found.starts[left]) + 1
    if away < max(AWAY_STEPS, AWAY * (steps[-1] - steps[0])):
        return None
    end = float(medians[-1])
    text = (
        f"loss {medians[best]:.3g} ± {noise:.1g} around step {found.starts[best]}; above "
        f"{limit:.3g} from step {found.starts[left]} to the end, {away} steps, where it is "
        f"{end:.3g}"
    )
    where = int(found.starts[best]), int(found.starts[left])
    return "the loss left its band and did not come back", Evidence(
        text, where, end, noise, ("loss", "")
    )


def _steps_too_large(run: Run) -> list[Evidence]:
    steps, ratio = finite(whole(run, "update_ratio"))
    if not len(ratio) or ratio.max() < LARGE_RATIO:
        return []
    i = int(ratio.argmax())
    text = f"step {steps[i]} moved the weights by {ratio[i]:.3g} of their norm; 1e-3 is usual"
    return [Evidence(text, (int(steps[i]),), float(ratio[i]), series=("update_ratio", ""))]


def _curvature(run: Run) -> list[Evidence]:
    """λ_max·η/2 where both were measured, for the optimizers whose threshold is plain."""
    steps, sharpness = finite(whole(run, "sharpness"))
    rates = whole(run, "lr")
    optimizers = run.header.get("optimizers") or []
    if not len(steps) or not len(rates[0]) or len(optimizers) != 1:
        return []
    group = (optimizers[0].get("groups") or [{}])[0]
    if optimizers[0].get("class") != "SGD" or group.get("nesterov"):
        return []  # an adaptive optimizer's threshold is that of the preconditioned Hessian
    rate = rates[1][np.maximum(np.searchsorted(rates[0], steps, side="right") - 1, 0)]
    edge = sharpness * rate / (2 + 2 * float(group.get("momentum") or 0.0))
    i = int(edge.argmax())
    text = (
        f"sharpness at {edge[i]:.3g} of the stability threshold at step {steps[i]} "
        "(evidence only: healthy training sits near 1)"
    )
    return [Evidence(text, (int(steps[i]),), float(edge[i]), series=("sharpness", ""))]


def _smaller(run: Run) -> str:
    rates = {
        part: float(values.max())
        for (owner, part), series in run.all_series().items()
        if owner == "lr" and len(values := finite(series)[1])
    }
    if not rates:
        return "Lower the learning rate tenfold"
    part = max(rates, key=lambda p: rates[p])
    of = f" of param {part}" if part and len(set(rates.values())) > 1 else ""
    return f"Lower the learning rate{of} tenfold: `lr={rates[part] / 10:.3g}`"


def lr_too_low(run: Run) -> list[Diagnosis]:
    """Finds a loss that hardly moved while the weights hardly did."""
    series = training_loss(run)
    steps, values = finite(series)
    at, ratio = finite(whole(run, "update_ratio"))
    if len(values) < LEAST_LOSSES or len(ratio) < 2 or len(values) < len(series[1]):
        return []
    typical = float(np.median(ratio[ratio > 0])) if (ratio > 0).any() else 0.0
    if typical >= SMALL_RATIO:
        return []
    eighth = max(8, len(values) // 8)
    head, tail = values[:eighth], values[-eighth:]
    start, end = float(np.median(head)), float(np.median(tail))
    noise = float(np.hypot(spread(head), spread(tail)) / eighth**0.5)
    if start - end > max(HARDLY * abs(start), 2 * noise):
        return []
    if values.max() > BLOWN_UP * abs(start):
        return []  # it stands still because it blew up
    if below_resolution(run):
        return []  # the steps are lost to rounding
    _, rates = finite(whole(run, "lr"))
    raised = f": `lr={rates.max() * 100:.3g}`" if len(rates) else ""
    return [
        Diagnosis(
            "lr_too_low",
            "warning",
            "the learning rate is too low to train at all",
            (
                Evidence(
                    f"loss {start:.4g} in the first {eighth} steps, {end:.4g} ± {noise:.1g} in "
                    f"the last {eighth}",
                    (int(steps[0]), int(steps[-1])),
                    end,
                    noise,
                    ("loss", ""),
                ),
                Evidence(
                    f"a step moves the weights by {typical:.1g} of their norm (median of "
                    f"{len(ratio)} records); 1e-3 is usual, {SMALL_RATIO:g} is standing still",
                    (int(at[0]), int(at[-1])),
                    typical,
                    None,
                    ("update_ratio", ""),
                ),
            ),
            "large-learning-rates",
            "The best learning rate lies close below the largest stable one: Haas et al. 2025, "
            "arXiv 2505.22491",
            "Raise the learning rate a hundredfold (`for g in optimizer.param_groups: "
            f"g['lr'] *= 100`), then double it until the loss gets worse{raised}",
            False,
        )
    ]
