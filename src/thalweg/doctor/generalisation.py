"""Memorisation: the validation loss rises for good while the training loss still falls."""

from __future__ import annotations

import numpy as np

from thalweg.doctor.diagnosis import Diagnosis, Evidence
from thalweg.doctor.readings import finite, training_loss
from thalweg.recorder.run import Run

__all__ = ["overfitting"]

# Evaluations after the minimum, all above it: three can be chance where evaluations are noisy.
LEAST_AFTER = 4
# Rise over the minimum in standard errors of the evaluation, and relative to it: every training of
# finite data overfits a little in the end, and below a tenth nobody would act.
SIGMAS, RISE = 3.0, 0.1


def overfitting(run: Run) -> list[Diagnosis]:
    """Finds the step from which validation gets worse while training gets better."""
    if ("val_loss", "") not in run.all_series():
        return []
    table = run.table("val_loss", "", rank=0)
    steps, values = table["step"].to_numpy(), table["value"].to_numpy()
    error = table["uncertainty"].to_numpy()
    keep = np.isfinite(values)
    steps, values, error = steps[keep], values[keep], error[keep]
    if len(values) < LEAST_AFTER + 1:
        return []
    noise = np.where(np.isfinite(error), error, _jitter(values))
    best = int(values.argmin())
    after, count = values[best + 1 :], len(values) - best - 1
    if count < LEAST_AFTER:
        return []
    last = slice(len(values) - LEAST_AFTER, len(values))
    end, sigma = (
        float(np.median(values[last])),
        float(np.hypot(noise[best], np.median(noise[last]))),
    )
    rise = end - float(values[best])
    if rise < max(SIGMAS * sigma, RISE * abs(float(values[best]))):
        return []
    if (after[-LEAST_AFTER:] <= values[best] + sigma).any():
        return []
    at, loss = finite(training_loss(run))
    before, late = loss[at <= steps[best]], loss[at > steps[best]]
    eighth = max(4, len(loss) // 8)
    if not len(before) or len(late) < 4:
        return []
    then, now = float(np.median(before[-eighth:])), float(np.median(late[-eighth:]))
    if now >= then:
        return []  # both get worse: not memorisation
    return [
        Diagnosis(
            "overfitting",
            "warning",
            f"the model memorises from about step {steps[best]} on",
            (
                Evidence(
                    f"validation loss {values[best]:.3g} at step {steps[best]}, its least; "
                    f"{end:.3g} ± {sigma:.1g} over the last {LEAST_AFTER} of {count} evaluations "
                    "since",
                    (int(steps[best]), int(steps[-1])),
                    rise,
                    sigma,
                    ("val_loss", ""),
                ),
                Evidence(
                    f"training loss {then:.3g} then, {now:.3g} now",
                    (int(steps[best]), int(at[-1])),
                    now,
                    None,
                    ("loss", ""),
                ),
            ),
            "early-learning-regularization",
            "Networks fit clean labels first and memorise wrong ones later: Liu et al. 2020, "
            "arXiv 2007.00151",
            f"Stop at step {steps[best]} (its weights: `thalweg.Run(path).weights()`), add data or "
            "`weight_decay`; where labels may be wrong, `thalweg.losses.ELRLoss`, which also says "
            "which",
            False,
        )
    ]


def _jitter(values: np.ndarray) -> float:
    """Noise of an evaluation without a standard error of its own, from its second differences."""
    if len(values) < 3:
        return 0.0
    return float(1.4826 * np.median(np.abs(np.diff(values, 2))) / 6**0.5)
