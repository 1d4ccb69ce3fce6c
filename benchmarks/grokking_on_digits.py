"""Does GrokAlign help on handwritten digits, learnt from weights eight times too large?

The paper's recipe for delayed generalisation on MNIST, smaller: it memorises and generalises badly.
Trained without and with the penalty; counted are the step of full memory and the held-out accuracy
then, after a quarter of the steps and at the end.

    python -m benchmarks.grokking_on_digits           # two minutes
    python -m benchmarks.grokking_on_digits --quick   # one seed, a quarter of the steps, no file
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.machine import facts
from thalweg.data import digits
from thalweg.instruments import GrokkingMonitor
from thalweg.losses import GrokAlign

RESULT = Path(__file__).parent / "results" / "grokking_on_digits.json"
SEEDS = (0, 1, 2)
WEIGHTS = (0.0, 1e-3, 1e-2)
STEPS, EVERY, BATCH, LARGER = 2000, 10, 200, 8.0


def trained(weight: float, seed: int, steps: int, larger: float = LARGER) -> dict[str, Any]:
    """One training: 400 images, four layers of width 100 without biases, AdamW."""
    data = digits(seed=seed, num_train=400)
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(64, 100, bias=False), nn.ReLU())
    for _ in range(2):
        model += nn.Sequential(nn.Linear(100, 100, bias=False), nn.ReLU())
    model.append(nn.Linear(100, 10, bias=False))
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(larger)
    penalty, monitor = GrokAlign(model, weight=weight), GrokkingMonitor(memorised=1.0)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3, weight_decay=0.01)
    accuracy: dict[int, float] = {}
    for step in range(1, steps + 1):
        rows = torch.randint(400, (BATCH,))
        x = data.x[rows].requires_grad_(weight > 0)
        out = model(x)
        loss = F.cross_entropy(out, data.y[rows])
        if weight > 0:
            loss = loss + penalty(x, out=out)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % EVERY == 0:
            with torch.no_grad():
                train = float((model(data.x).argmax(1) == data.y).double().mean())
                test = float((model(data.x_test).argmax(1) == data.y_test).double().mean())
            accuracy[step] = test
            monitor.update(step, train=train, test=test)
    at = monitor.memorised_at
    return {
        "memorised_at": at,
        "then": accuracy[at] if at is not None else None,
        "quarter": accuracy[steps // 4],
        "end": accuracy[steps],
    }


def main(argv: list[str] | None = None) -> None:
    """Runs and writes the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small, writes no file")
    quick = parser.parse_args(argv).quick
    torch.set_num_threads(1)
    steps, seeds = (STEPS // 4, SEEDS[:1]) if quick else (STEPS, SEEDS)
    found = {f"{w:g}": [trained(w, seed, steps) for seed in seeds] for w in WEIGHTS}
    found["0, initial weights as they are"] = [trained(0.0, seed, steps, 1.0) for seed in seeds]
    result = {"steps": steps, "seeds": list(seeds), "found": found}
    print(json.dumps(result, indent=2))
    if not quick:
        head = {"command": "python -m benchmarks.grokking_on_digits", **facts("torch")}
        RESULT.write_text(json.dumps({**head, **result}, indent=2) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
