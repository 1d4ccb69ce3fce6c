"""What the doctor's treatments do: the symptom before and after, and what it costs or gains.

Each row is a small training with a fault that the doctor finds, recorded without and with the
treatment that the finding names. Counted is in how many of three seeds the rule speaks; beside it
stands a figure that a user would care about.

    python -m benchmarks.treatments                  # all
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
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

import thalweg
from benchmarks.machine import facts
from thalweg.data import corrupt_labels, digits
from thalweg.losses import ELRLoss

RESULT = Path(__file__).parent / "results" / "treatments.json"
SEEDS = (0, 1, 2)


@dataclass(frozen=True)
class Treatment:
    """A symptom and what is prescribed.

    ``run(treated, seed, path)`` trains, recorded at ``path``, and returns the figure.
    """

    rule: str
    prescribed: str
    figure: str
    run: Callable[[bool, int, Path], float]


def noisy_labels(treated: bool, seed: int, path: Path, *, lr: float, lam: float) -> float:
    """A dense network on digits, 40 % of the labels wrong; accuracy on clean held-out ones."""
    data = digits(seed=seed, num_train=1000)
    labels = corrupt_labels(data.y, 0.4, seed=seed)
    torch.manual_seed(seed)
    model = nn.Sequential(
        *(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 10))
    )
    elr = ELRLoss(len(labels), 10, lam=lam)
    optimizer = torch.optim.SGD(model.parameters(), lr, momentum=0.9)
    accuracy = 0.0
    with thalweg.record(model, optimizer, path, overhead=1.0):
        for epoch in range(80):
            for rows in torch.randperm(len(labels)).split(50):
                logits = model(data.x[rows])
                if treated:
                    loss = elr(logits, labels[rows], rows)
                else:
                    loss = nn.functional.cross_entropy(logits, labels[rows])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            if epoch % 4 == 3:
                model.eval()
                with torch.no_grad():
                    out = model(data.x_test)
                    nn.functional.cross_entropy(out, data.y_test)
                accuracy = float((out.argmax(1) == data.y_test).double().mean())
                model.train()
    return accuracy


TREATMENTS: dict[str, Treatment] = {
    f"40 % wrong labels, lr {lr}": Treatment(
        "overfitting",
        f"`ELRLoss`, λ = {lam:g}",
        "held-out accuracy",
        partial(noisy_labels, lr=lr, lam=lam),
    )
    for lr, lam in ((0.02, 5.0), (0.05, 7.0))
}


def row(treatment: Treatment, seeds: tuple[int, ...]) -> dict[str, Any]:
    """Both trainings of every seed."""
    found: dict[str, Any] = {
        "rule": treatment.rule,
        "prescribed": treatment.prescribed,
        "figure": treatment.figure,
        "seeds": list(seeds),
    }
    for when, treated in (("before", False), ("after", True)):
        figures, said = [], []
        for seed in seeds:
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "run"
                figures.append(treatment.run(treated, seed, path))
                said.append(sorted({f.rule for f in thalweg.diagnose(path)}))
        found[when] = {"figures": figures, "findings": said}
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
        RESULT.write_text(json.dumps({**head, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
