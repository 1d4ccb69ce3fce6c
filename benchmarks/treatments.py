"""What the doctor's treatments do: the symptom before and after, and what it costs or gains.

Each row is a small training with a fault that the doctor finds, recorded without and with a
treatment that the finding names. Counted is in how many of three seeds the rule speaks; beside it
stands a figure that a user would care about.

    python -m benchmarks.treatments                  # all, some minutes
    python -m benchmarks.treatments --only labels    # rows with this in their name, into the result
    python -m benchmarks.treatments --quick          # one seed, writes no file
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch

import thalweg
from benchmarks.machine import facts
from benchmarks.treated_trainings import (
    adam,
    adamo,
    continual_backprop,
    l2_init,
    new_labels,
    noisy_labels,
    redo,
    sine_waves,
    xor,
)

RESULT = Path(__file__).parent / "results" / "treatments.json"
SEEDS = (0, 1, 2)

#: ``training(seed, path)`` trains, recorded at ``path``, and returns the figure.
Training = Callable[[int, Path], float]


@dataclass(frozen=True)
class Treatment:
    """A symptom and what is prescribed; ``lower``: whether a smaller figure is the better one."""

    rule: str
    prescribed: str
    figure: str
    before: Training
    after: Training
    lower: bool = False


def _labels(lr: float, lam: float) -> Treatment:
    before, after = (partial(noisy_labels, lr=lr, lam=weight) for weight in (None, lam))
    prescribed = f"`ELRLoss`, λ = {lam:g}"
    return Treatment("overfitting", prescribed, "held-out accuracy", before, after)


_stream = partial(new_labels, beside=adam)
_TASKS = "tasks of new labels"
TREATMENTS: dict[str, Treatment] = {
    "40 % wrong labels, lr 0.02": _labels(0.02, 5.0),
    "40 % wrong labels, lr 0.05": _labels(0.05, 7.0),
    **{
        f"{_TASKS}, {name}": Treatment(
            "loss_of_plasticity",
            prescribed,
            "accuracy in the last three of twelve tasks",
            _stream,
            partial(new_labels, beside=beside),
        )
        for name, prescribed, beside in (
            ("AdamO", "`AdamO`, isometry 0.02", adamo),
            ("L2Init", "`L2Init`, weight 0.003", l2_init),
            ("ReDo", "`ReDo`, every 50 steps", redo),
            ("ContinualBackprop", "`ContinualBackprop`, rate 0.001", continual_backprop),
        )
    },
    "XOR among noise": Treatment(
        "delayed_generalisation",
        "`GrokAlign`, weight 1",
        "step of 95 % held-out accuracy (401: never)",
        partial(xor, weight=0.0),
        partial(xor, weight=1.0),
        lower=True,
    ),
    "hypernetwork without biases": Treatment(
        "proportional_output",
        "`hypernetize`, as it is by default",
        "squared error",
        partial(sine_waves, changed=False),
        partial(sine_waves, changed=True),
        lower=True,
    ),
}


@cache
def outcome(training: Training, seed: int) -> tuple[float, list[str]]:
    """The figure of one training, and the rules that speak."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run"
        figure = training(seed, path)
        return figure, sorted({f.rule for f in thalweg.diagnose(path)})


def row(treatment: Treatment, seeds: tuple[int, ...]) -> dict[str, Any]:
    """Both trainings of every seed."""
    found: dict[str, Any] = {
        "rule": treatment.rule,
        "prescribed": treatment.prescribed,
        "figure": treatment.figure,
        "lower": treatment.lower,
        "seeds": list(seeds),
    }
    for when, training in (("before", treatment.before), ("after", treatment.after)):
        outcomes = [outcome(training, seed) for seed in seeds]
        found[when] = {"figures": [o[0] for o in outcomes], "findings": [o[1] for o in outcomes]}
    return found


def main(argv: list[str] | None = None) -> None:
    """Runs and writes the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="rows whose name contains this")
    parser.add_argument("--quick", action="store_true", help="one seed, writes no file")
    asked = parser.parse_args(argv)
    torch.set_num_threads(1)
    rows = {} if not RESULT.exists() else json.loads(RESULT.read_text())["rows"]
    for name, treatment in TREATMENTS.items():
        if asked.only in name:
            rows[name] = row(treatment, SEEDS[:1] if asked.quick else SEEDS)
            print(name, json.dumps(rows[name], indent=2), flush=True)
    if not asked.quick:
        head = {"command": "python -m benchmarks.treatments", **facts("torch")}
        rows = {name: rows[name] for name in TREATMENTS if name in rows}
        RESULT.write_text(json.dumps({**head, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
