"""Delayed generalisation: training data memorised long ago, held-out data not learnt yet."""

from __future__ import annotations

import numpy as np

from thalweg.doctor.diagnosis import Diagnosis, Evidence
from thalweg.doctor.generalisation import overfitting
from thalweg.doctor.readings import finite, spread, training_loss, whole
from thalweg.recorder.run import Run

__all__ = ["delayed_generalisation"]

# What is left of the first training loss once the data are memorised, and what held-out loss is
# far from learnt: a network that generalises brings both below a tenth or so.
MEMORISED, FAR = 0.05, 0.3
# Steps waited since, over the steps that memorising took, and evaluations in that time: held-out
# loss is always some steps behind.
WAITED, LEAST_AFTER = 2.0, 4
# Rise of the held-out loss while it waits; above it that is another symptom.
RISE = 0.1
# A difference of accuracies that is no longer one. Under a penalty outputs shrink and the held-out
# loss stays high with every sample right, so that an accuracy that is recorded has the last word.
GAP = 0.05
GAPS = "user/generalisation_gap"
LEAST_LOSSES = 32


def delayed_generalisation(run: Run) -> list[Diagnosis]:
    """Finds trainings that fit their data and wait, at a plateau or late on the way.

    A held-out loss that gets worse meanwhile is ``overfitting``, and no finding here.
    """
    at, loss = finite(training_loss(run))
    steps, held_out = finite(whole(run, "val_loss"))
    if len(loss) < LEAST_LOSSES or loss[0] <= 0:
        return []
    memorised = _memorised(at, loss)
    if memorised is None:
        return []
    since = held_out[steps >= memorised]
    took, waited = memorised - int(at[0]) + 1, int(at[-1]) - memorised
    if len(since) < LEAST_AFTER or waited < WAITED * took:
        return []
    then, now = float(since[0]), float(np.median(since[-LEAST_AFTER:]))
    far = FAR * float(loss[0])
    if then < far or now < far or now > (1 + RISE) * float(since.min()) or overfitting(run):
        return []
    gaps = finite(whole(run, GAPS))
    gap = float(np.median(gaps[1][-LEAST_AFTER:])) if len(gaps[1]) else None
    if gap is not None and gap < GAP:
        return []
    # noise of an evaluation: what is left after the trend
    noise = spread(np.diff(since)) / 2**0.5 if len(since) > 2 else 0.0
    late = then - now > max(3 * noise, RISE * then)
    how = "improves late" if late else "stays where it was"
    evidence = [
        Evidence(
            f"training loss {loss[at >= memorised].max():.3g} at most from step {memorised} on, "
            f"{loss[0]:.3g} at the first step",
            (memorised, int(at[-1])),
            float(loss[-1]),
            None,
            ("loss", ""),
        ),
        Evidence(
            f"held-out loss {then:.3g} then, {now:.3g} now, {waited} steps later: it {how}",
            (memorised, int(steps[-1])),
            now,
            None,
            ("val_loss", ""),
        ),
    ]
    if gap is not None:
        text = f"held-out accuracy {gap:.0%} below that on the training data"
        evidence.append(Evidence(text, (memorised, int(gaps[0][-1])), gap, None, (GAPS, "")))
    return [
        Diagnosis(
            "delayed_generalisation",
            "warning",
            f"the model memorised its data by step {memorised} and has waited {waited} steps since "
            "to generalise"
            + (": held-out data improve, slowly" if late else ": held-out data are not learnt"),
            tuple(evidence),
            "grokalign",
            "Walker et al. 2025, arXiv 2506.12284; Power et al. 2022, arXiv 2201.02177",
            "`loss = loss + thalweg.losses.GrokAlign(model, weight=1.0)(x)` for a squared error of "
            "one output, from 1e-3 for classes, with `weight_decay` on: on an XOR among noise 78 "
            "to 136 steps to 95 % where weight decay alone took over 400; on digits it was not "
            "seen to help. Without it go on with `weight_decay` as long as the held-out figure "
            "improves; if it never does, add data",
            False,
        )
    ]


def _memorised(at: np.ndarray, loss: np.ndarray) -> int | None:
    """First step from which the training loss, but for single batches, stays down."""
    down = loss <= MEMORISED * loss[0]
    # of the records from each one on, the share that is down
    share = np.cumsum(down[::-1])[::-1] / np.arange(len(down), 0, -1)
    settled = np.flatnonzero(down & (share >= 0.95))
    return int(at[settled[0]]) if len(settled) else None
