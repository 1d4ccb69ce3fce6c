"""Updates too small for the number format of the weights: the optimizer steps, nothing moves.

A bfloat16 weight changes only if an update crosses half the spacing of the format at its size,
1/256 of it or so. What is smaller is rounded away, at every step anew.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from thalweg.doctor.diagnosis import Diagnosis, Evidence
from thalweg.doctor.readings import finite
from thalweg.recorder.run import Run

__all__ = ["below_resolution", "half_precision"]

HALF = {"BF16": "bfloat16", "F16": "float16"}
# Adam on digits in bfloat16 leaves 0.1 % of the entries as they were at 1e-3, 97 % at 1e-5.
STUCK = 0.5
LEAST_STEPS = 50


def below_resolution(run: Run) -> list[Diagnosis]:
    """Finds weights in half precision most of whose entries never changed while steps were taken.

    Compared are the first and the last snapshot, entry by entry; a weight whose gradient is zero
    does not move either, so tensors that stood still altogether are left to ``never_moves``.
    """
    snapshots = run.weights()
    if len(snapshots) < 2:
        return []
    first, last = min(snapshots), max(snapshots)
    _, gradients = finite(run.all_series().get(("grad_norm", ""), (np.zeros(0), np.zeros(0))))
    if last - first < LEAST_STEPS or not len(gradients) or not gradients.max() > 0:
        return []
    formats = _half(snapshots.path(last))
    if not formats:
        return []
    kept = _unchanged(snapshots.path(first), snapshots.path(last), list(formats))
    moved = {name: share for name, share in kept.items() if share[0] < share[1]}
    still, entries = (sum(share[i] for share in moved.values()) for i in range(2))
    if not entries or still / entries < STUCK:
        return []
    worst = sorted(moved, key=lambda n: -moved[n][0] / moved[n][1])[:3]
    kind = formats[worst[0]]
    evidence = (
        Evidence(
            f"{still / entries:.0%} of {entries:,} {kind} weights are the same number at step "
            f"{first} and at step {last}",
            (first, last),
            still / entries,
            None,
            None,
        ),
        *(
            Evidence(
                f"{name!r}: {moved[name][0] / moved[name][1]:.0%} of its entries never changed",
                (first, last),
                moved[name][0] / moved[name][1],
                None,
                None,
            )
            for name in worst
        ),
    )
    return [
        Diagnosis(
            "below_resolution",
            "problem" if still / entries >= 0.9 else "warning",
            f"updates are below what {kind} can hold: most weights never change",
            evidence,
            "rlvr-off-principals",
            "Zhu et al. 2025, arXiv 2511.08567 (the precision gate)",
            "Keep the weights in float32 and compute in half precision: "
            f"`torch.autocast(device, torch.{kind})` in place of `model.to(torch.{kind})`; or give "
            "the optimizer float32 master weights, or a higher learning rate",
            False,
        )
    ]


def half_precision(run: Run) -> dict[str, str]:
    """The tensors of a run's last snapshot that are in half precision, and in which."""
    snapshots = run.weights()
    return _half(snapshots.path(max(snapshots))) if len(snapshots) else {}


def _half(path: Path) -> dict[str, str]:
    """The tensors in half precision of a snapshot, and in which."""
    try:
        with safe_open(path, framework="np") as file:
            kinds = {name: file.get_slice(name).get_dtype() for name in file.keys()}
    except (SafetensorError, OSError, ValueError):
        return {}
    return {name: HALF[kind] for name, kind in kinds.items() if kind in HALF}


def _unchanged(first: Path, last: Path, names: list[str]) -> dict[str, tuple[int, int]]:
    """Entries that are the same in both, and all entries, of each tensor."""
    from thalweg.errors import ThalwegError
    from thalweg.trajectory import open_checkpoint

    block = 1 << 20
    found: dict[str, tuple[int, int]] = {}
    try:
        a, b = open_checkpoint(first), open_checkpoint(last)
        for name in names:
            if name not in a.tensors or a.tensors[name] != b.tensors[name]:
                continue
            total, same = a.tensors[name].numel, 0
            for start in range(0, total, block):
                stop = min(start + block, total)
                same += int((a.read(name, start, stop) == b.read(name, start, stop)).sum())
            if total:
                found[name] = same, total
    except ThalwegError:
        return {}
    return found
