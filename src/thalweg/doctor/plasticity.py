"""Loss of plasticity: units fall dormant, or ranks collapse, and the loss no longer comes down."""

from __future__ import annotations

import numpy as np

from thalweg.doctor.diagnosis import Diagnosis, Evidence
from thalweg.doctor.readings import (
    Levels,
    Series,
    by_part,
    finite,
    levels,
    training_loss,
    whole,
)
from thalweg.doctor.turns import raised_rates, turns
from thalweg.recorder.run import Run

__all__ = ["loss_of_plasticity"]

BLOCKS = 8
# Records of the loss, and of what is said of units and ranks: fewer say nothing of a trend.
LEAST_LOSSES, LEAST_RECORDS = 64, 16
# A loss that came down and does not any more: the median of the last eighth, over the least median
# of an earlier eighth. Healthy trainings end at their least, or a little above it by noise.
RISEN = 1.25
# Share of dormant units of a layer at the end, and by how much it rose: Sokar et al. 2023 find
# performance lost at some tens of percent; healthy layers begin with up to a third and stay there.
DORMANT, MORE = 0.5, 0.25
# What is left of a rank: the paper's runs, and ours, lose nine tenths, healthy ones a third.
LEFT = 1 / 3
# A network that brings the loss down by so much after a change has not lost its plasticity.
RECOVERED = 0.5
RANKS = ("effective_rank", "entk_rank", "user/feature_effective_rank", "user/kernel_rank")


def loss_of_plasticity(run: Run) -> list[Diagnosis]:
    """Finds trainings that learnt at first and no longer do while the network wears out.

    A loss that stops falling has many reasons; here it must have risen above where it was before,
    and in the same time units must have fallen dormant or a rank must have collapsed.
    """
    steps, losses = finite(training_loss(run))
    if len(losses) < LEAST_LOSSES:
        return []
    level = levels((steps, losses), BLOCKS)
    best = int(np.argmin(level.medians[:-1]))
    least, last = float(level.medians[best]), float(level.medians[-1])
    if last < RISEN * least or last - least < float(level.spreads[-1]):
        return []
    worn = _dormant(run) + _collapsed(run)
    if not worn:
        return []
    if _one_change(run, level, best):
        return []
    return [
        Diagnosis(
            "loss_of_plasticity",
            "problem",
            "the network loses the ability to learn: it wears out, and the loss that it once "
            "reached is no longer reached",
            (
                Evidence(
                    f"loss {last:.3g} from step {level.starts[-1]} on; {least:.3g} was reached "
                    f"from step {level.starts[best]} on",
                    (int(level.starts[best]), int(level.starts[-1])),
                    last / least if least > 0 else None,
                    None,
                    ("loss", ""),
                ),
                *worn[:4],
            ),
            "adamo-isometry",
            "Rosseau, Müller, Nowé 2026, arXiv 2606.09762; Sokar et al. 2023, arXiv 2302.12902",
            "`thalweg.optim.AdamO(model.parameters(), lr=..., isometry=1e-2)` in the place of "
            "Adam, or the penalty of `thalweg.optim.L2Init(model)` in the loss, or "
            "`thalweg.optim.ReDo(model, optimizer)`",
            False,
        )
    ]


def _one_change(run: Run, level: Levels, best: int) -> bool:
    """Whether one change made the loss worse, from which it recovers, or a higher learning rate.

    Of these ``path_turned`` speaks; a network that wears out does not learn after them.
    """
    found = turns(run)
    if len(found) != 1 or not level.starts[best] <= found[0].step <= level.starts[-1]:
        return False
    since = level.medians[level.starts + level.size > found[0].step]
    learns = float(level.medians[-1]) <= RECOVERED * float(since.max())
    return learns or bool(raised_rates(run, found[0]))


def _ends(series: Series) -> tuple[float, float, int, int] | None:
    """Medians of the first quarter and the last eighth, and their steps."""
    steps, values = finite(series)
    if len(values) < LEAST_RECORDS:
        return None
    early, late = len(values) // 4, len(values) - len(values) // 8
    first, last = float(np.median(values[:early])), float(np.median(values[late:]))
    return first, last, int(steps[0]), int(steps[late])


def _dormant(run: Run) -> list[Evidence]:
    """Layers whose units fell dormant, the worst first."""
    found = []
    for part, series in by_part(run, "dormant_fraction").items():
        ends = _ends(series)
        if ends is None:
            continue
        first, last, began, at = ends
        if last >= DORMANT and last - first >= MORE:
            text = f"{part!r}: {last:.0%} of its units answer nothing from step {at} on, "
            found.append(
                Evidence(
                    text + f"{first:.0%} in the first quarter",
                    (began, at),
                    last,
                    None,
                    ("dormant_fraction", part),
                )
            )
    return sorted(found, key=lambda e: -(e.value or 0))


def _collapsed(run: Run) -> list[Evidence]:
    """Ranks of features, or of the tangent kernel, that fell."""
    found = []
    for name in RANKS:
        for part, series in {"": whole(run, name), **by_part(run, name)}.items():
            ends = _ends(series)
            if ends is None or ends[0] <= 1 or ends[1] > LEFT * ends[0]:
                continue
            first, last, began, at = ends
            where = f"{name} of {part!r}" if part else name
            found.append(
                Evidence(
                    f"{where} {last:.3g} from step {at} on, {first:.3g} in the first quarter",
                    (began, at),
                    last,
                    None,
                    (name, part),
                )
            )
    return sorted(found, key=lambda e: e.value or 0)
