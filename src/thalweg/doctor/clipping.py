"""Clipping that is always active and takes nearly all of the gradient."""

from __future__ import annotations

import numpy as np

from thalweg.doctor.diagnosis import Diagnosis, Evidence
from thalweg.doctor.readings import finite, whole
from thalweg.recorder.run import Run

__all__ = ["clipping_always"]

LEAST_RECORDS = 20
# A record counts as clipped below this ratio: norms of the same gradient differ by rounding.
CLIPPED = 0.99
SHARE = 0.95
# Clipping to 1.0 in early transformer training leaves a tenth and is healthy (the least in
# the tuning set is a quarter); a fiftieth is a learning rate in disguise, divided by the norm.
LEFT = 0.02


def clipping_always(run: Run) -> list[Diagnosis]:
    """Finds a gradient that is cut to a small share of itself on nearly every step."""
    before, after = finite(whole(run, "grad_norm_preclip")), finite(whole(run, "grad_norm"))
    steps, i, j = np.intersect1d(before[0], after[0], return_indices=True)
    raw, used = before[1][i], after[1][j]
    keep = raw > 0
    steps, raw, used = steps[keep], raw[keep], used[keep]
    if len(steps) < LEAST_RECORDS:
        return []
    ratio = used / raw
    share, left = float(np.mean(ratio < CLIPPED)), float(np.median(ratio))
    if share < SHARE or left > LEFT:
        return []
    limit, norm = float(np.median(used)), float(np.median(raw))
    return [
        Diagnosis(
            "clipping_always",
            "warning",
            "gradient clipping is always active and leaves almost nothing",
            (
                Evidence(
                    f"clipped on {share:.0%} of {len(steps)} records; the median keeps "
                    f"{left:.2g} of the gradient",
                    (int(steps[0]), int(steps[-1])),
                    left,
                    float(np.subtract(*np.percentile(ratio, [75, 25])) / 1.349),
                    ("grad_norm", ""),
                ),
                Evidence(
                    f"median norm {norm:.3g} before clipping, {limit:.3g} after",
                    value=norm,
                    series=("grad_norm_preclip", ""),
                ),
            ),
            "stable-spam",
            "Clipping should catch spikes against the running norm, not every step: Huang et al. "
            "2025, arXiv 2502.17055",
            f"Clip near the usual norm: `torch.nn.utils.clip_grad_norm_(model.parameters(), "
            f"{2 * norm:.2g})`; `thalweg.optim.StableSPAM` follows it by itself",
            True,
        )
    ]
