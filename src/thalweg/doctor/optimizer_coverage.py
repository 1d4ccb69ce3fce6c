"""Parameters that the optimizer holds but never moves, or that train but are in no optimizer."""

from __future__ import annotations

import numpy as np

from thalweg.doctor.diagnosis import Diagnosis, Evidence
from thalweg.doctor.readings import by_part, finite, whole
from thalweg.doctor.resolution import below_resolution, half_precision
from thalweg.recorder.run import Run

__all__ = ["never_moves", "outside_optimizer"]

# Zero at this many records, beginning and end included, is no coincidence: a gradient that is now
# and then exactly zero (a rarely used embedding) moves in between and leaves a distance.
LEAST_RECORDS = 3
_NAMED = 6


def never_moves(run: Run) -> list[Diagnosis]:
    """Finds parameters that an optimizer holds and that are where they started."""
    frozen = {
        f"{m['label']}.{name}" if m.get("label") else name
        for m in run.header.get("models") or []
        for name in m.get("frozen") or []
    }
    gradients = by_part(run, "grad_norm")
    stuck: dict[str, tuple[int, float]] = {}
    total = 0
    for name, series in by_part(run, "distance_from_init").items():
        steps, values = finite(series)
        if len(values) < LEAST_RECORDS:
            continue
        total += 1
        if (values == 0).all():
            g = finite(gradients.get(name, (steps, np.zeros(len(steps)))))[1]
            stuck[name] = int(steps[-1]), float(g.max()) if len(g) else 0.0
    held_frozen = [name for name in stuck if name in frozen]
    without = [n for n, (_, g) in stuck.items() if g == 0 and n not in frozen]
    rounded = [n for n, (_, g) in stuck.items() if g > 0 and n not in frozen]
    found = []
    if without:
        found.append(
            _diagnosis(
                "warning",
                f"{_count(without, total)} never move: no gradient reaches them",
                f"gradient and distance from the start are exactly 0 in every record up to step "
                f"{stuck[without[0]][0]}: {_listed(without)}",
                without,
                "Look for `.detach()`, `torch.no_grad()`, `.item()`, an unused branch or a dead "
                "layer between these and the loss; what should not train: `requires_grad_(False)`",
            )
        )
    # In half precision lost steps are one matter, which below_resolution speaks of; single tensors
    # are often biases before a normalisation, whose gradient is round-off and nothing else.
    half = half_precision(run) if rounded else {}
    in_half = all(name in half for name in rounded)
    if rounded and _steps_at_all(run) and not (in_half and below_resolution(run)):
        found.append(
            _diagnosis(
                "note" if in_half else "warning",
                f"{_count(rounded, total)} never move although they have gradients",
                f"gradients are not zero, the distance from the start is exactly 0 up to step "
                f"{stuck[rounded[0]][0]}: {_listed(rounded)}",
                rounded,
                "Their steps are zero or lost to rounding: raise the learning rate of their param "
                "group, or keep them in float32",
            )
        )
    if held_frozen:
        found.append(
            _diagnosis(
                "note",
                f"{_count(held_frozen, total)} are frozen and yet in the optimizer",
                f"requires_grad is False: {_listed(held_frozen)}",
                held_frozen,
                "If this is meant, leave them out: "
                "`(p for p in model.parameters() if p.requires_grad)`; "
                "if not: `model.requires_grad_(True)`",
            )
        )
    return found


def _steps_at_all(run: Run) -> bool:
    _, rates = finite(whole(run, "lr"))
    return not len(rates) or bool((rates > 0).any())


def outside_optimizer(run: Run) -> list[Diagnosis]:
    """Finds trainable parameters that no optimizer holds."""
    outside = run.header.get("outside_optimizers") or []
    held = {
        name
        for o in run.header.get("optimizers") or []
        for g in o.get("groups") or []
        for name in g.get("params") or []
    }  # a param group may have been added since
    outside = [p for p in outside if p.get("name") not in held]
    training = [str(p["name"]) for p in outside if p.get("gradient")]
    idle = [str(p["name"]) for p in outside if not p.get("gradient")]
    found = []
    if training:
        found.append(
            Diagnosis(
                "outside_optimizer",
                "problem",
                f"{len(training)} trainable tensor{'s' * (len(training) > 1)} get gradients but "
                "are in no optimizer",
                (Evidence(f"after step 2: {_listed(training)}", (2,)),),
                None,
                "torch.optim: an optimizer moves only the parameters that it was given",
                f"`optimizer.add_param_group({{'params': [model.get_parameter({training[0]!r})]}})`"
                ", or build the optimizer from `model.parameters()` after the last layer is made",
                False,
            )
        )
    if idle:
        found.append(
            Diagnosis(
                "outside_optimizer",
                "note",
                f"{len(idle)} trainable tensor{'s' * (len(idle) > 1)} are in no optimizer and get "
                "no gradient",
                (Evidence(f"after step 2: {_listed(idle)}", (2,)),),
                None,
                "torch.optim: an optimizer moves only the parameters that it was given",
                "If they are meant to stay: `module.requires_grad_(False)` says so",
                False,
            )
        )
    return found


def _diagnosis(severity, symptom: str, text: str, names: list[str], treatment: str) -> Diagnosis:
    series = ("distance_from_init", names[0])
    return Diagnosis(
        "never_moves",
        severity,
        symptom,
        (Evidence(text, value=0.0, series=series),),
        None,
        "torch.optim: a parameter without a gradient is passed over in silence",
        treatment,
        False,
    )


def _count(names: list[str], total: int) -> str:
    return f"{len(names)} of {total} tensors in the optimizer"


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
