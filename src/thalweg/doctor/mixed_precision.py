"""A gradient scaler that skips step after step while its scale collapses."""

from __future__ import annotations

from thalweg.doctor.diagnosis import Diagnosis, Evidence
from thalweg.doctor.readings import whole
from thalweg.recorder.run import Run

__all__ = ["loss_scale_collapse"]

# A scaler starts at 65,536, halves at each overflow and doubles after 2,000 good steps: a dozen
# skips while it finds its scale are its ordinary life.
LEAST_SKIPS = 10
# Below one it shrinks gradients instead of saving them from underflow.
COLLAPSED = 1.0
# Share of the second half of the steps that is skipped.
OFTEN = 0.25


def loss_scale_collapse(run: Run) -> list[Diagnosis]:
    """Finds skipped steps that do not cease, or a loss scale below one."""
    skipped = [e for e in run.events if e.get("event") == "skipped step" and not e.get("rank")]
    if len(skipped) < LEAST_SKIPS:
        return []
    steps = [int(e.get("step", 0)) for e in skipped]
    last = int(max([*steps, *whole(run, "loss")[0][-1:]]))
    late = sum(step > last / 2 for step in steps) / max(1.0, last / 2)
    # As the event has it; the scale of a step that had none is None.
    scales = [float(e["loss_scale"]) for e in skipped if e.get("loss_scale") is not None]
    low = min(scales, default=float("inf"))
    if late < OFTEN and low >= COLLAPSED:
        return []
    evidence = [
        Evidence(
            f"{len(steps)} of {last} steps skipped for non-finite gradients, {late:.0%} of the "
            "second half",
            (steps[0], steps[-1]),
            len(steps) / last,
        )
    ]
    if scales:
        text = f"loss scale {scales[0]:g} at the first skip, {scales[-1]:g} at the last"
        evidence.append(Evidence(text, (steps[0], steps[-1]), scales[-1]))
    return [
        Diagnosis(
            "loss_scale_collapse",
            "problem",
            "the loss scale collapses: gradients overflow whatever it is",
            tuple(evidence),
            "stable-spam",
            "Micikevicius et al. 2018, arXiv 1710.03740 (loss scaling); gradient spikes in low "
            "precision: Huang et al. 2025, arXiv 2502.17055",
            "Use bfloat16, which needs no scaler: `torch.autocast(device, dtype=torch.bfloat16)`; "
            "or keep the overflowing operation in float32",
            False,
        )
    ]
