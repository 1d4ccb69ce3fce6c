"""``thalweg.diagnose``: every rule over a run, the gravest findings first."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

from thalweg.doctor.accumulation import uneven_accumulation
from thalweg.doctor.clipping import clipping_always
from thalweg.doctor.delayed_generalisation import delayed_generalisation
from thalweg.doctor.diagnosis import SEVERITIES, Diagnosis
from thalweg.doctor.generalisation import overfitting
from thalweg.doctor.gradient_spikes import gradient_spikes
from thalweg.doctor.gradients import (
    exploding_activations,
    exploding_gradients,
    gradients_not_cleared,
    vanishing_gradients,
)
from thalweg.doctor.laws import broken_law
from thalweg.doctor.learning_rate import lr_too_high, lr_too_low
from thalweg.doctor.mixed_precision import loss_scale_collapse
from thalweg.doctor.nonfinite import nonfinite
from thalweg.doctor.optimizer_coverage import never_moves, outside_optimizer
from thalweg.doctor.path_turned import path_turned
from thalweg.doctor.plasticity import loss_of_plasticity
from thalweg.doctor.principal_directions import principal_directions_moved
from thalweg.doctor.proportional_output import proportional_output
from thalweg.doctor.readings import ReadOnce
from thalweg.doctor.resolution import below_resolution
from thalweg.doctor.shapes import broadcast_loss
from thalweg.doctor.units import dead_units, dominating_layer, starved_layer
from thalweg.doctor.width_scaling import width_scaling
from thalweg.recorder.run import Run

__all__ = ["RULES", "Examination", "diagnose", "examine"]

#: Each rule, and what it needs: names of instruments, or of facts in the header after a ``:``.
RULES: tuple[tuple[Callable[[Run], list[Diagnosis]], tuple[str, ...]], ...] = (
    (nonfinite, ("loss",)),
    (broadcast_loss, (":loss_calls",)),
    (loss_scale_collapse, ("loss",)),
    (outside_optimizer, (":outside_optimizers",)),
    (never_moves, ("distance_from_init",)),
    (below_resolution, ("grad_norm",)),
    (gradients_not_cleared, ("grad_norm", ":gradients_kept")),
    (lr_too_high, ("loss",)),
    (lr_too_low, ("loss", "update_ratio")),
    (exploding_gradients, ("grad_norm",)),
    (gradient_spikes, ("grad_norm",)),
    (exploding_activations, ("activation_rms",)),
    (vanishing_gradients, ("grad_norm", "weight_norm")),
    (path_turned, ("loss",)),
    (loss_of_plasticity, ("loss",)),
    (dead_units, ("dormant_fraction",)),
    (dominating_layer, ("distance_from_init", "weight_norm")),
    (starved_layer, ("distance_from_init", "weight_norm")),
    (principal_directions_moved, ("distance_from_init",)),
    (overfitting, ("val_loss", "loss")),
    (delayed_generalisation, ("val_loss", "loss")),
    (proportional_output, ("user/proportionality_exponent",)),
    (clipping_always, ("grad_norm", "grad_norm_preclip")),
    (uneven_accumulation, ("item_weight",)),
    (broken_law, ("law_residual",)),
    (width_scaling, (":models",)),
)


@dataclass(frozen=True)
class Examination:
    """All that the rules said of a run.

    Attributes:
        findings: the gravest first, then in the order of ``RULES``.
        skipped: rule to what it lacked, for rules that could not judge.
    """

    findings: tuple[Diagnosis, ...]
    skipped: dict[str, str]


def examine(run: Run | str | os.PathLike[str]) -> Examination:
    """Applies every rule to a run.

    Args:
        run: a run or its directory; it may still be growing.

    Raises:
        ThalwegError: if it is no run.
    """
    read = ReadOnce(run.path if isinstance(run, Run) else run)
    instruments = {instrument for instrument, _ in read.all_series()}
    known = instruments | {f":{key}" for key, fact in read.header.items() if fact is not None}
    findings: list[Diagnosis] = []
    skipped: dict[str, str] = {}
    for rule, needs in RULES:
        missing = [need for need in needs if need not in known]
        if missing:
            skipped[rule.__name__] = f"the run has no {', '.join(missing).replace(':', '')}"
            continue
        found = rule(read)
        ended = [why for need in needs if (why := _ended(read, need))]
        if ended and not found:  # what it saw was sound, but it did not see all
            skipped[rule.__name__] = ended[0]
        findings += found
    findings.sort(key=lambda finding: SEVERITIES.index(finding.severity))
    return Examination(tuple(findings), skipped)


def _ended(run: Run, instrument: str) -> str | None:
    """Why an instrument stopped before the run did, if no part of it went on."""
    parts = [part for name, part in run.all_series() if name == instrument]
    if not parts or instrument.startswith(":"):
        return None
    began, why = None, ""
    for part in parts:
        table = run.table(instrument, part)
        why = table["status"][-1].as_py()
        if not why.startswith(("skipped:", "unsupported:")):
            return None
        began = table["step"][-2].as_py() if len(table) > 1 else None
    return f"{instrument} ended {f'at step {began}' if began is not None else 'at once'}: {why}"


def diagnose(run: Run | str | os.PathLike[str]) -> list[Diagnosis]:
    """What is wrong with a training, by what was recorded of it.

    Args:
        run: a run or its directory; it may still be growing.

    Returns:
        Findings, the gravest first; none for a healthy run. A rule whose data was not recorded
        says nothing; ``thalweg.doctor.examine`` lists those.

    Raises:
        ThalwegError: if it is no run.

    Example:
        for finding in thalweg.diagnose("runs/a"):
            print(finding.symptom, finding.treatment)
    """
    return list(examine(run).findings)
