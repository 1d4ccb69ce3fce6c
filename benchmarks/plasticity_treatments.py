"""What treatments of loss of plasticity do: the symptom before and after, on a stream of tasks.

Each row is a network that learns random labels of digits, anew in every task, recorded with Adam
and with the treatment. Counted is in how many of three seeds the doctor says
``loss_of_plasticity``; beside it stands the accuracy at the end of the last three tasks.

    python -m benchmarks.plasticity_treatments           # some minutes
    python -m benchmarks.plasticity_treatments --quick   # one seed, writes no file
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import thalweg
from benchmarks.machine import facts
from thalweg.data import digits
from thalweg.optim import AdamO, ContinualBackprop, L2Init, ReDo

RESULT = Path(__file__).parent / "results" / "plasticity_treatments.json"
SEEDS = (0, 1, 2)
RULE = "loss_of_plasticity"
LR, TASKS, IMAGES, STEPS = 1e-2, 12, 64, 100


@dataclass(frozen=True)
class Treated:
    """What stands beside the model: an optimizer, a term of the loss, something after the step."""

    optimizer: torch.optim.Optimizer
    penalty: Callable[[], Tensor | float] = lambda: 0.0
    after_step: Callable[[], Any] = lambda: None


def _adam(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.Adam(model.parameters(), LR)


def _redo(model: nn.Module) -> Treated:
    adam = _adam(model)
    return Treated(adam, after_step=ReDo(model, adam, tau=0.025, every=50).after_step)


def _cbp(model: nn.Module) -> Treated:
    adam = _adam(model)
    cbp = ContinualBackprop(model, adam, replacement_rate=1e-3, maturity=50)
    return Treated(adam, after_step=cbp.after_step)


TREATMENTS: dict[str, Callable[[nn.Module], Treated]] = {
    "Adam": lambda m: Treated(_adam(m)),
    "`AdamO`, isometry 0.02": lambda m: Treated(AdamO(m.parameters(), LR, isometry=0.02)),
    "`L2Init`, weight 0.003": lambda m: Treated(_adam(m), penalty=L2Init(m, weight=3e-3).penalty),
    "`ReDo`, every 50 steps": _redo,
    "`ContinualBackprop`, rate 0.001": _cbp,
}


def stream(treatment: Callable[[nn.Module], Treated], seed: int, path: Path) -> float:
    """Trains, recorded at ``path``; accuracy at the end of the last three tasks."""
    data = digits(seed=seed)
    torch.manual_seed(seed)
    model = nn.Sequential()
    for _ in range(3):
        model += nn.Sequential(nn.Linear(64, 64), nn.ReLU())
    model.append(nn.Linear(64, 10))
    beside = treatment(model)
    ends = []
    with thalweg.record(model, beside.optimizer, path, overhead=0.3):
        for _ in range(TASKS):
            x = data.x[torch.randperm(len(data.x))[:IMAGES]]
            y = torch.randint(10, (IMAGES,))
            for _ in range(STEPS):
                rows = torch.randint(IMAGES, (32,))
                loss = nn.functional.cross_entropy(model(x[rows]), y[rows]) + beside.penalty()
                beside.optimizer.zero_grad()
                loss.backward()
                beside.optimizer.step()
                beside.after_step()
            with torch.no_grad():
                ends.append(float((model(x).argmax(1) == y).float().mean()))
    return sum(ends[-3:]) / 3


def row(name: str, seeds: tuple[int, ...]) -> dict[str, Any]:
    """One treatment on every seed."""
    figures, said = [], []
    for seed in seeds:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "run"
            figures.append(stream(TREATMENTS[name], seed, path))
            said.append(sorted({f.rule for f in thalweg.diagnose(path)}))
    return {"figures": figures, "findings": said}


def main(argv: list[str] | None = None) -> None:
    """Runs and writes the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one seed, writes no file")
    asked = parser.parse_args(argv)
    torch.set_num_threads(1)
    seeds = SEEDS[:1] if asked.quick else SEEDS
    rows = {}
    for name in TREATMENTS:
        rows[name] = row(name, seeds)
        print(name, json.dumps(rows[name]), flush=True)
    if not asked.quick:
        head = {"command": "python -m benchmarks.plasticity_treatments", **facts("torch")}
        result = {**head, "rule": RULE, "seeds": list(seeds), "rows": rows}
        RESULT.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
