"""Values that are not finite, and the layer in which the first one arose.

A nan travels: forward to every later layer and to the loss, backward to every gradient, and with
the step into every weight. Only what was measured *on the step itself* points at its source; what
was measured later is said to be later.
"""

from __future__ import annotations

import numpy as np

from thalweg.doctor.diagnosis import Diagnosis, Evidence
from thalweg.doctor.readings import Series, by_part, finite
from thalweg.recorder.kept import list_kept
from thalweg.recorder.run import Run

__all__ = ["nonfinite"]

_WATCHED = ("activation_rms", "loss", "grad_norm", "update_norm", "weight_norm")
# A figure of the last record before counts as having grown from here on; ordinary noise of a norm
# per batch stays within a factor of a few.
GROWN = 10.0


def nonfinite(run: Run) -> list[Diagnosis]:
    """Finds the first value that is not finite and, where records allow, its source layer."""
    first: dict[tuple[str, str], int] = {}
    for name, (steps, values) in run.all_series().items():
        if name[0] in _WATCHED and not np.isfinite(values).all():
            first[name] = int(steps[np.flatnonzero(~np.isfinite(values))[0]])
    if not first:
        return []
    step = min(first.values())
    at = [name for name, when in first.items() if when == step]
    evidence = [_first_seen(run, step, at)]
    source, why = _source(run, step, at)
    evidence.append(why)
    grown = _grown_before(run, step)
    if grown is not None:
        evidence.append(grown)
    left = _share_nonfinite(run, step)
    if left is not None:
        evidence.append(left)
    kept = [k for k in list_kept(run.path) if k.kind == "nonfinite"]
    if kept:
        text = f"the black box kept the steps up to {kept[0].step}; a replay names the operation"
        evidence.append(Evidence(text))
    symptom = f"values are not finite from step {step} on" + (f", first in {source}" if source else
                                                             "")  # fmt: skip
    return [
        Diagnosis(
            "nonfinite",
            "problem",
            symptom,
            tuple(evidence),
            "stable-spam",
            "Gradient spikes grow until values overflow: Huang et al. 2025, arXiv 2502.17055 "
            "(Stable-SPAM)",
            (
                f"Find the operation: `thalweg replay {run.path}`. Against "
                if kept
                else "Find the operation: `with torch.autograd.detect_anomaly(): loss.backward()`. "
                "Against "
            )
            + "overflow, before the step: "
            "`torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)`",
            False,
        )
    ]


def _first_seen(run: Run, step: int, at: list[tuple[str, str]]) -> Evidence:
    what = sorted({name[0] for name in at}, key=_WATCHED.index)
    name = next(n for n in at if n[0] == what[0])
    steps, values = run.all_series()[name]
    before = steps[(steps < step) & np.isfinite(values)]
    said = f"{', '.join(what)} not finite at step {step}"
    if len(before) and before[-1] < step - 1:
        said += f"; it arose after step {before[-1]}, the last record of {what[0]} before"
    return Evidence(said, (step,), series=name)


def _source(run: Run, step: int, at: list[tuple[str, str]]) -> tuple[str | None, Evidence]:
    """The layer in which it began, from what was measured on the very step."""
    weights = _bad(by_part(run, "weight_norm"), step)
    outputs = by_part(run, "activation_rms")
    measured = [part for part, (steps, _) in outputs.items() if step in steps]
    bad = [part for part in measured if part in _bad(outputs, step, exact=True)]
    earlier_weights = _bad(by_part(run, "weight_norm"), step - 1)
    if bad and not earlier_weights:
        text = f"on step {step} the output of {bad[0]!r} is the first that is not finite"
        if measured[0] != bad[0]:
            text += f"; that of {measured[measured.index(bad[0]) - 1]!r} before it is finite"
        return repr(bad[0]), Evidence(text, (step,), series=("activation_rms", bad[0]))
    gradients = by_part(run, "grad_norm")
    bad_gradients = _bad(gradients, step, exact=True)
    loss_bad = ("loss", "") in at
    if bad_gradients and not loss_bad:
        if len(bad_gradients) == 1 or len(bad_gradients) < len(gradients):
            last = bad_gradients[-1]
            text = (
                f"on step {step} the loss is finite and {len(bad_gradients)} of {len(gradients)} "
                f"gradients are not; the one nearest to the loss is that of {last!r}, where "
                "backward went wrong at or just after it"
            )
            return repr(last), Evidence(text, (step,), series=("grad_norm", last))
        text = f"on step {step} the loss is finite and every gradient is not: the loss's backward"
        return "the backward of the loss", Evidence(text, (step,), series=("grad_norm", ""))
    if weights and not bad_gradients and not loss_bad and not bad:
        name = weights[0]
        text = f"on step {step} loss and gradients are finite, the weight {name!r} after it is not"
        return repr(name), Evidence(text, (step,), series=("weight_norm", name))
    if measured and not bad and loss_bad:
        text = f"on step {step} every layer's output is finite, the loss is not: the loss function"
        return "the loss function", Evidence(text, (step,), series=("loss", ""))
    steps = np.unique(np.concatenate([np.zeros(0, np.int64), *(s for s, _ in outputs.values())]))
    around = [*map(int, steps[steps < step][-1:]), *map(int, steps[steps >= step][:1])]
    records = " and ".join(map(str, around)) or "none"
    text = (
        f"which layer came first was not measured: it arose at or before step {step}, layer "
        f"outputs were recorded at {records}, and by then every weight may be infected. A larger "
        "--overhead records more often"
    )
    return None, Evidence(text, (step,))


def _bad(parts: dict[str, Series], step: int, *, exact: bool = False) -> list[str]:
    """Parts that are not finite at (or, unless exact, up to) a step."""
    return [
        part
        for part, (steps, values) in parts.items()
        if (~np.isfinite(values) & ((steps == step) if exact else (steps <= step))).any()
    ]


def _grown_before(run: Run, step: int) -> Evidence | None:
    """The tensor whose gradient had grown most in the last record before."""
    worst: tuple[float, str, int] | None = None
    for part, series in by_part(run, "grad_norm").items():
        steps, values = finite(series)
        steps, values = steps[steps < step], values[steps < step]
        if len(values) < 4:
            continue
        usual = float(np.median(values[:-1]))
        if usual > 0 and (worst is None or values[-1] / usual > worst[0]):
            worst = float(values[-1] / usual), part, int(steps[-1])
    if worst is None or worst[0] < GROWN:
        return None
    factor, part, when = worst
    text = f"before, at step {when}, the gradient of {part!r} was {factor:.3g} times its median"
    return Evidence(text, (when,), value=factor, series=("grad_norm", part))


def _share_nonfinite(run: Run, step: int) -> Evidence | None:
    steps, values = run.all_series().get(("loss", ""), (np.zeros(0), np.zeros(0)))
    after = values[steps >= step]
    if not len(after):
        return None
    share = float(np.mean(~np.isfinite(after)))
    text = f"of the {len(after)} losses from there on, {share:.0%} are not finite"
    return Evidence(text, value=share, series=("loss", ""))
