"""Signals that grow or fade: over time, over depth backward, over depth forward; stale gradients.

Depth is read from the order of the layers, so a profile counts only where it is steep: within a
healthy network the relative gradients of two layers differ by a factor of 100 at most.
"""

from __future__ import annotations

import numpy as np

from thalweg.doctor.diagnosis import Diagnosis, Evidence
from thalweg.doctor.readings import by_part, finite, matrices, whole
from thalweg.recorder.run import Run

__all__ = [
    "exploding_activations",
    "exploding_gradients",
    "gradients_not_cleared",
    "vanishing_gradients",
]

# Gradient norm late over early in the training, medians of a fifth each. Healthy growth (learning
# from a small start, progressive sharpening) stays below 8 in the tuning set.
GROWTH = 100.0
LEAST_RECORDS = 10
# Relative gradient |g|/|w| of a layer over that of the largest. Glorot and Bengio 2010 lose a
# factor of 10 over five sigmoid layers and call it vanishing when training stalls; healthy
# networks of the tuning set keep every layer above 3e-3.
FADED = 1e-4
# How many layers have to be faded: one alone may just be a branch that is hardly used.
FADED_LAYERS = 2
# Root mean square of a layer's output over that of the first layers: He et al. 2015 keep it at 1.
# Healthy layers of the tuning set reach 4, logits of trained classifiers some tens.
SWOLLEN = 100.0
# ... and over the first layer's: inputs may be on a large scale themselves (pixels up to 255).
SWELLS = 10.0
# Sum of uncleared gradients over the first one.
PILED_UP = 3.0


def exploding_gradients(run: Run) -> list[Diagnosis]:
    """Finds gradients that grow over the training by orders of magnitude and stay there."""
    series = whole(run, "grad_norm_preclip")
    name = "grad_norm_preclip"
    if len(finite(series)[0]) < LEAST_RECORDS:
        series, name = whole(run, "grad_norm"), "grad_norm"
    steps, values = finite(series)
    if len(values) < LEAST_RECORDS:
        return []
    fifth = len(values) // 5
    early, late = float(np.median(values[:fifth])), float(np.median(values[-fifth:]))
    if not early > 0 or late / early < GROWTH:
        return []
    parts = {p: finite(s)[1] for p, s in by_part(run, "grad_norm").items()}
    grown = {p: np.median(v[-fifth:]) / np.median(v[:fifth]) for p, v in parts.items()
             if len(v) >= LEAST_RECORDS and np.median(v[:fifth]) > 0}  # fmt: skip
    worst = max(grown, key=lambda p: grown[p], default=None)
    evidence = [
        Evidence(
            f"gradient norm {early:.3g} in the first {fifth} records, {late:.3g} in the last: "
            f"{late / early:.3g} times",
            (int(steps[0]), int(steps[-1])),
            late / early,
            None,
            (name, ""),
        )
    ]
    if worst is not None:
        text = f"it grew most in {worst!r}: {grown[worst]:.3g} times"
        evidence.append(Evidence(text, value=float(grown[worst]), series=("grad_norm", worst)))
    return [
        Diagnosis(
            "exploding_gradients",
            "problem",
            "gradients explode over the training",
            tuple(evidence),
            "stable-spam",
            "Pascanu, Mikolov, Bengio 2013, arXiv 1211.5063; Huang et al. 2025, arXiv 2502.17055",
            "`torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)` before `optimizer.step()`",
            False,
        )
    ]


def vanishing_gradients(run: Run) -> list[Diagnosis]:
    """Finds layers whose gradient is orders of magnitude below that of the others."""
    gradients, weights = by_part(run, "grad_norm"), by_part(run, "weight_norm")
    relative: dict[str, float] = {}
    for name in matrices(run):
        g, w = finite(gradients.get(name, _NONE))[1], finite(weights.get(name, _NONE))[1]
        if len(g) >= 2 and len(w) and np.median(w) > 0:
            early = max(2, len(g) // 3)
            relative[name] = float(np.median(g[:early]) / np.median(w[:early]))
    alive = {name: r for name, r in relative.items() if r > 0}  # none at all is another finding
    if len(alive) < FADED_LAYERS + 1:
        return []
    largest = max(alive, key=lambda n: alive[n])
    order = list(alive)
    before = order[: order.index(largest)]  # backward fades toward the input
    faded = [name for name in before if alive[name] < FADED * alive[largest]]
    if len(faded) < FADED_LAYERS:
        return []
    least = min(faded, key=lambda n: alive[n])
    ratio = alive[least] / alive[largest]
    return [
        Diagnosis(
            "vanishing_gradients",
            "problem",
            f"gradients vanish on the way back: {len(faded)} of {len(alive)} layers hardly get any",
            (
                Evidence(
                    f"|gradient|/|weights| is {alive[largest]:.2g} in {largest!r} and "
                    f"{alive[least]:.2g} in {least!r}: {ratio:.1g} of it",
                    value=ratio,
                    series=("grad_norm", least),
                ),
                Evidence(f"below {FADED:g} of the largest: {_listed(faded)}"),
            ),
            "adamo-isometry",
            "Glorot and Bengio 2010; gradients keep their size where layers are near isometries: "
            "Rosseau et al. 2026, arXiv 2606.09762",
            "Use ReLU-like activations, residual connections or `torch.nn.LayerNorm`, and start "
            "isometric: `torch.nn.init.orthogonal_(layer.weight)`",
            False,
        )
    ]


def exploding_activations(run: Run) -> list[Diagnosis]:
    """Finds a signal that grows by orders of magnitude on its way forward."""
    outputs = {p: finite(s)[1] for p, s in by_part(run, "activation_rms").items()}
    outputs = {part: values for part, values in outputs.items() if len(values)}
    if len(outputs) < 2:
        return []
    first, *_, last = outputs
    # A model that learns to predict large numbers grows its last layer's output, and rightly so.
    early = {p: v[:1] if p == last else v[: max(1, len(v) // 3)] for p, v in outputs.items()}
    rms = {part: max(float(v[0]), float(np.median(v))) for part, v in early.items()}
    largest = max(rms, key=lambda p: rms[p])
    if rms[largest] < max(SWOLLEN, SWELLS * rms[first]):
        return []
    return [
        Diagnosis(
            "exploding_activations",
            "problem",
            f"activations explode on the way forward, to {rms[largest]:.3g} in {largest!r}",
            (
                Evidence(
                    f"root mean square {rms[first]:.3g} at {first!r}, "
                    f"{rms[largest]:.3g} at {largest!r} in the first third of the records; "
                    "about 1 is usual",
                    value=rms[largest],
                    series=("activation_rms", largest),
                ),
            ),
            "adamo-isometry",
            "He et al. 2015, arXiv 1502.01852 (variance-preserving initialisation); isometry: "
            "Rosseau et al. 2026, arXiv 2606.09762",
            "`torch.nn.init.kaiming_normal_(layer.weight, nonlinearity='relu')`, or a "
            "`torch.nn.LayerNorm` before the layer",
            False,
        )
    ]


def gradients_not_cleared(run: Run) -> list[Diagnosis]:
    """Finds gradients that pile up over steps because nothing clears them."""
    if run.header.get("gradients_kept") is not True:
        return []
    steps, values = finite(whole(run, "grad_norm"))
    if len(values) < LEAST_RECORDS or not values[0] > 0:
        return []
    piled = float(np.median(values[len(values) // 2 :]) / values[0])
    if piled < PILED_UP:
        return []  # cleared by hand, in place
    return [
        Diagnosis(
            "gradients_not_cleared",
            "problem",
            "gradients of past steps are never cleared: each step follows the sum of all",
            (
                Evidence("no zero_grad between the first two steps, and .grad lived on", (1, 2)),
                Evidence(
                    f"gradient norm {values[0]:.3g} at step {steps[0]}, median {piled:.3g} times "
                    "that in the second half",
                    (int(steps[0]), int(steps[-1])),
                    piled,
                    None,
                    ("grad_norm", ""),
                ),
            ),
            "gradient-accumulation",
            "Debut et al. 2024, Fixing Gradient Accumulation (Hugging Face): the sum must be over "
            "one window",
            "`optimizer.zero_grad()` before each backward, or after each window of micro-batches",
            False,
        )
    ]


_NONE = (np.zeros(0, np.int64), np.zeros(0))


def _listed(names: list[str], most: int = 4) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(repr, names[:most])) + more
