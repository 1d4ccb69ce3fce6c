"""A conservation law that moves otherwise than the optimizer's own numbers say."""

from __future__ import annotations

import numpy as np

from thalweg.doctor.diagnosis import Diagnosis, Evidence
from thalweg.recorder.run import Run

__all__ = ["broken_law"]

# Round-off is a random walk of known size: a residual of so many standard deviations is none of it.
DEVIATIONS = 30.0
# Below this share of what the law is the sum of, nobody needs to act.
LEAST = 1e-4
LEAST_RECORDS = 3
MOST = 5  # laws named


def broken_law(run: Run) -> list[Diagnosis]:
    """Finds laws whose drift is not what step size, momentum and decay explain.

    Training follows the gradients of a loss, or it does not: weights decayed twice, a hook that
    rescales the gradient of one layer, a part of an accumulation scaled otherwise, a frozen tensor
    that moves. Each leaves a residual in the laws of the layers it touches, and only there. Laws
    that hold but for the ε of a norm are left out: they drift without any fault. So are sums of
    biases: their gradients are zero but for its own round-off, which enters at first order and is
    not in the uncertainty, and a bias may be as small as that.
    """
    broken = []
    listed = run.header.get("laws") or []
    approximate = {law["name"] for law in listed if "eps" in law.get("note", "")}
    vectors = {
        name
        for model in run.header.get("models") or []
        for name, shape in model.get("tensors", {}).items()
        if len(shape) < 2
    }
    for instrument, part in run.all_series():
        if instrument != "law_residual" or not part or part in approximate:
            continue
        kind, _, parameter = part.partition(": ")
        if kind.endswith(("sums", "key bias")) and parameter in vectors:
            continue
        table = run.table(instrument, part).to_pydict()
        good = [s == "ok" for s in table["status"]]
        value = np.array(table["value"])[good]
        rounding = np.array(table["uncertainty"])[good]
        steps = np.array(table["step"])[good]
        if len(value) < LEAST_RECORDS:
            continue
        bad = value > np.maximum(LEAST, DEVIATIONS * np.nan_to_num(rounding))
        if bad[-1]:  # residuals add up over all steps: what one record shows is no accident
            broken.append((float(value[-1]), part, float(rounding[-1]), int(steps[np.argmax(bad)])))
    if not broken:
        return []
    broken.sort(reverse=True)
    evidence = tuple(
        Evidence(
            f"{part}: off by {value:.2g} of its size where rounding explains {rounding:.1g}; "
            f"first seen at step {step}",
            (step,),
            value,
            rounding,
            ("law_residual", part),
        )
        for value, part, rounding, step in broken[:MOST]
    )
    more = f" (and {len(broken) - MOST} more)" if len(broken) > MOST else ""
    frozen = all(part.rpartition("frozen: ")[1] for _, part, _, _ in broken)
    if frozen:
        symptom = f"a frozen parameter moves{more}"
        treatment = (
            "Find who writes to it: an average of weights, a decay over all parameters, a copy. "
            "Put the write behind `if p.requires_grad`"
        )
    else:
        symptom = f"training does something else than its optimizer says{more}"
        treatment = (
            "In the layers named, look for weights changed outside `optimizer.step()` (a second "
            "decay, an average), gradients rescaled by a hook, and losses of an accumulation "
            "scaled differently; `thalweg laws FILE.py:BUILD` lists what should hold"
        )
    return [
        Diagnosis(
            "broken_law",
            "warning",
            symptom,
            evidence,
            "conservation-laws",
            "The drift of a conservation law is exact under SGD: Kunin et al. 2020, arXiv "
            "2012.04728; Galley et al. 2026, arXiv 2606.10913",
            treatment,
            False,
        )
    ]
