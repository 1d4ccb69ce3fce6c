"""Dead units, and layers that starve or dominate."""

from __future__ import annotations

import numpy as np

from thalweg.doctor.diagnosis import Diagnosis, Evidence
from thalweg.doctor.readings import by_part, finite, matrices
from thalweg.recorder.run import Run

__all__ = ["dead_units", "dominating_layer", "starved_layer"]

# Share of a layer's units that are zero on a whole batch, over the last third of the records.
# Sokar et al. 2023 find performance lost at some tens of percent; small healthy ReLU layers of the
# tuning set reach 0.34 on batches of 8 to 64.
DEAD, ALL_DEAD = 0.6, 0.95
LEAST_RECORDS = 3
# How far a layer has travelled (distance from its first weights over their norm), against the
# median of the other layers, and at all: healthy layers of the tuning set travel up to 5 times as
# far as the others, and up to 3 times their first norm.
DOMINATES, TRAVELLED = 10.0, 5.0
# ... and no less than a tenth as far.
STARVES = 1e-3


def dead_units(run: Run) -> list[Diagnosis]:
    """Finds layers most of whose units answer nothing on a whole batch."""
    dead: dict[str, tuple[float, float, tuple[int, int]]] = {}
    for part, series in by_part(run, "dormant_fraction").items():
        steps, values = finite(series)
        if len(values) < LEAST_RECORDS:
            continue
        late = max(LEAST_RECORDS, len(values) // 3)
        share = float(np.median(values[-late:]))
        if share >= DEAD:
            dead[part] = share, float(values[0]), (int(steps[-late]), int(steps[-1]))
    if not dead:
        return []
    worst = max(dead, key=lambda p: dead[p][0])
    gone = dead[worst][0] >= ALL_DEAD
    evidence = tuple(
        Evidence(
            f"{part!r}: {share:.0%} of its units are zero on a whole batch (median of steps "
            f"{when[0]} to {when[1]}); {first:.0%} at the first record",
            when,
            share,
            None,
            ("dormant_fraction", part),
        )
        for part, (share, first, when) in sorted(dead.items(), key=lambda d: -d[1][0])[:4]
    )
    return [
        Diagnosis(
            "dead_units",
            "problem" if gone else "warning",
            f"{'all' if gone else 'most'} units of {worst!r} are dead"
            + (f", and of {len(dead) - 1} more" if len(dead) > 1 else ""),
            evidence,
            "adamo-isometry",
            "Sokar, Agarwal, Castro, Evci 2023, arXiv 2302.12902 (dormant neurons)",
            "Start again with zero biases and a lower learning rate, or `torch.nn.LeakyReLU()`; "
            "`thalweg.optim.ReDo` revives dormant units",
            False,
        )
    ]


def _travelled(run: Run) -> dict[str, tuple[float, int]]:
    """Distance from the first weights over their norm, at the last record, and its step."""
    weights, distances = by_part(run, "weight_norm"), by_part(run, "distance_from_init")
    found: dict[str, tuple[float, int]] = {}
    for name in matrices(run):
        if name not in weights or name not in distances:
            continue
        (_, w), (steps, d) = finite(weights[name]), finite(distances[name])
        if len(w) >= LEAST_RECORDS and len(d) >= LEAST_RECORDS and w[0] > 0:
            start = max(float(w[0]) - float(d[0]), 0.5 * float(w[0]))  # w is after the first step
            found[name] = float(d[-1]) / start, int(steps[-1])
    return found


def dominating_layer(run: Run) -> list[Diagnosis]:
    """Finds a layer that travelled orders of magnitude farther than the others."""
    travelled = _travelled(run)
    if len(travelled) < 3:
        return []
    name = max(travelled, key=lambda n: travelled[n][0])
    far, step = travelled[name]
    usual = float(np.median([t for n, (t, _) in travelled.items() if n != name]))
    if far < TRAVELLED or far < DOMINATES * usual:
        return []
    return [
        Diagnosis(
            "dominating_layer",
            "warning",
            f"{name!r} dominates: it moves far more than the other layers",
            (
                Evidence(
                    f"at step {step} it is {far:.3g} times its first norm away from its start; "
                    f"the median of the others {usual:.3g} times",
                    (step,),
                    far / usual if usual else None,
                    None,
                    ("distance_from_init", name),
                ),
                *_group_rates(run, name),
            ),
            "large-learning-rates",
            "Per-layer learning rates must match the layer's scale: Yang et al. 2022, "
            "arXiv 2203.03466; Haas et al. 2025, arXiv 2505.22491",
            "Give the layer the learning rate of the others (one param group); "
            "`thalweg.optim.mup_param_groups` sets them by width",
            True,
        )
    ]


def starved_layer(run: Run) -> list[Diagnosis]:
    """Finds layers that move, but a thousand times less than the others."""
    travelled = {n: t for n, t in _travelled(run).items() if t[0] > 0}  # never moved: another rule
    if len(travelled) < 3:
        return []
    usual = float(np.median([t for t, _ in travelled.values()]))
    found = {name: at for name, at in travelled.items() if at[0] <= STARVES * usual}
    if not found or usual < 1e-3:  # nothing moves: the learning rate's finding
        return []
    name = min(found, key=lambda n: found[n][0])
    far, step = found[name]
    return [
        Diagnosis(
            "starved_layer",
            "warning",
            f"{name!r} starves: it hardly moves while the other layers train"
            + (f" (and {len(found) - 1} more)" if len(found) > 1 else ""),
            (
                Evidence(
                    f"by step {step} it moved {far:.2g} of its first norm, the median layer "
                    f"{usual:.2g}",
                    (step,),
                    far / usual,
                    None,
                    ("distance_from_init", name),
                ),
                *_group_rates(run, name),
            ),
            "large-learning-rates",
            "Per-layer learning rates must match the layer's scale: Yang et al. 2022, "
            "arXiv 2203.03466; Haas et al. 2025, arXiv 2505.22491",
            "Give the layer the learning rate of the others (one param group), and check that its "
            "gradient reaches it: `thalweg show --instrument grad_norm`",
            False,
        )
    ]


def _group_rates(run: Run, name: str) -> list[Evidence]:
    """The learning rate of the layer's param group where groups differ."""
    groups = [g for o in run.header.get("optimizers") or [] for g in o.get("groups") or []]
    rates = {p: g["lr"] for g in groups for p in g.get("params") or [] if "lr" in g}
    others = {float(rate) for p, rate in rates.items() if p != name and rate != rates.get(name)}
    if name not in rates or not others:
        return []
    text = f"its param group has lr={rates[name]}, others have {', '.join(map(str, others))}"
    return [Evidence(text, value=float(rates[name]))]
