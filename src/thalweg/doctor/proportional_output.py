"""Proportional output: the weights that a hypernetwork predicts grow with its input."""

from __future__ import annotations

import numpy as np

from thalweg.doctor.diagnosis import Diagnosis, Evidence
from thalweg.doctor.readings import finite, whole
from thalweg.recorder.run import Run

__all__ = ["proportional_output"]

EXPONENT = "user/proportionality_exponent"
# A slope of log ‖θ‖ over log ‖γ‖: 1 for a piecewise linear network without biases, and for one with
# biases at first; it is judged over the last half of the records, when those have learnt.
PROPORTIONAL, LEAST_RECORDS = 0.8, 4


def proportional_output(run: Run) -> list[Diagnosis]:
    """Finds hypernetworks whose output is still proportional to their input.

    A recording does not say which tensor is the conditioning input: the figure is one that the
    training logs, ``recording.log({"proportionality_exponent": report.exponent})``.
    """
    steps, values = finite(whole(run, EXPONENT))
    if len(values) < LEAST_RECORDS:
        return []
    late = len(values) // 2
    exponent = float(np.median(values[late:]))
    if exponent < PROPORTIONAL:
        return []
    return [
        Diagnosis(
            "proportional_output",
            "warning",
            "the weights that the hypernetwork predicts grow in proportion to its input",
            (
                Evidence(
                    f"‖θ‖ grows as ‖γ‖ to the power {exponent:.2f} from step {steps[late]} on; "
                    f"{values[0]:.2f} at first",
                    (int(steps[0]), int(steps[-1])),
                    exponent,
                    None,
                    (EXPONENT, ""),
                ),
            ),
            "hypernetwork-mip",
            "Gonzalez Ortiz, Guttag, Dalca 2023, arXiv 2304.07645",
            "`thalweg.nn.hypernetize(primary, input_shapes)`, which encodes the input as a vector "
            "of constant norm and predicts changes to ordinary weights; or "
            "`thalweg.nn.encode(gamma)` before a hypernetwork of your own",
            False,
        )
    ]
