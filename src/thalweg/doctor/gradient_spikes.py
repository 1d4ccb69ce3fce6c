"""Single steps whose gradient is far larger than on the steps around them."""

from __future__ import annotations

import numpy as np

from thalweg.doctor.diagnosis import Diagnosis, Evidence
from thalweg.doctor.readings import finite, spread, whole
from thalweg.recorder.run import Run

__all__ = ["gradient_spikes"]

LEAST_RECORDS = 30
# Records on either side that say what is usual; the median of them ignores spikes.
AROUND = 10
# A record is a spike if its norm is so many times the usual one there, ...
TIMES = 20.0
# ... and so many robust standard deviations away in the logarithm: noisy gradients of small batches
# vary by factors around their median, and wide as that band is, they stay inside.
DEVIATIONS = 8.0
LEAST_SPIKES = 2
# Beyond this share it is no exception but the way in which these gradients are distributed.
MOST_SHARE = 0.2


def gradient_spikes(run: Run) -> list[Diagnosis]:
    """Finds isolated records whose gradient leaves a robust running band by far.

    The norm is compared with the median of the records around it, so that growth and decay over the
    training do not count. Spikes that clipping took away before the step are no finding.
    """
    steps, norms = finite(whole(run, "grad_norm"))
    keep = norms > 0
    steps, norms = steps[keep], norms[keep]
    if len(norms) < LEAST_RECORDS:
        return []
    padded = np.pad(np.log(norms), AROUND, mode="reflect")
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * AROUND + 1)
    beside = np.delete(windows, AROUND, axis=1)
    excess = np.log(norms) - np.median(beside, axis=1)
    band = max(np.log(TIMES), DEVIATIONS * spread(excess))
    spiked = excess > band
    if not LEAST_SPIKES <= spiked.sum() <= MOST_SHARE * len(norms):
        return []
    worst = int(np.argmax(excess))
    times = float(np.exp(excess[worst]))
    usual = float(np.median(norms[~spiked]))
    at = tuple(int(s) for s in steps[spiked])
    listed = ", ".join(map(str, at[:5])) + (", …" if len(at) > 5 else "")
    return [
        Diagnosis(
            "gradient_spikes",
            "warning",
            f"gradient spikes: {len(at)} of {len(norms)} records have a gradient far above usual",
            (
                Evidence(
                    f"gradient norm {norms[worst]:.3g} at step {steps[worst]}, {times:.3g} times "
                    f"that of the records around it",
                    (int(steps[worst]),),
                    times,
                    None,
                    ("grad_norm", ""),
                ),
                Evidence(
                    f"spikes at steps {listed}; the others stay within {np.exp(band):.3g} times "
                    f"the median of their neighbours",
                    at,
                    float(np.exp(band)),
                    None,
                    ("grad_norm", ""),
                ),
            ),
            "stable-spam",
            "Huang et al. 2025, arXiv 2502.17055. In this library's study of it, Adam with "
            "clipping ended lower than StableSPAM on most seeds, and both far below Adam alone",
            f"`torch.nn.utils.clip_grad_norm_(model.parameters(), {2 * usual:.2g})` before "
            "`optimizer.step()`, and look at the batches of these steps; "
            "`thalweg.optim.StableSPAM` where one norm does not suit all tensors",
            False,
        )
    ]
