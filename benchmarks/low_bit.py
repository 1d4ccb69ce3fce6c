"""A small transformer in INT4: StableSPAM beside Adam and Adam with clipping.

Two blocks over characters (docstrings of the standard library), all linear layers but the head in
INT4 with groups of 32, with and without spikes that multiply the whole gradient of a step. Each
method trains at each of the same learning rates; figures are losses on held-out text, quantised.
One process, one thread.

    python -m benchmarks.low_bit           # some minutes
    python -m benchmarks.low_bit --quick   # few steps, writes no file
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.machine import facts
from benchmarks.small_models import Transformer, text
from thalweg.nn import quantize_model
from thalweg.studies.low_bit_training import METHODS, train

RESULT = Path(__file__).parent / "results" / "low_bit.json"
COMPARED = ("Adam", "Adam + clip", "StableSPAM")
LRS = (3e-3, 1e-2, 3e-2)
SEEDS = (0, 1, 2)
SPIKES = {"no spikes": 0.0, "spikes": 0.02}
STEPS, BATCH, HELD_OUT = 200, 32, 512


def held_out_loss(name: str, lr: float, seed: int, spike_probability: float, steps: int) -> float:
    """Trains once."""
    torch.manual_seed(seed)
    model = Transformer()
    quantize_model(model, weight="int_asym", act="int_sym", group_size=32, skip=["head"])
    x, y = text()

    def loss_of(rows: Tensor) -> Tensor:
        return F.cross_entropy(model(x[rows]).flatten(0, 1), y[rows].flatten())

    def batch(generator: torch.Generator) -> Tensor:
        return loss_of(torch.randint(len(x) - HELD_OUT, (BATCH,), generator=generator))

    train(
        model,
        batch,
        METHODS[name],
        lr=lr,
        num_steps=steps,
        spike_probability=spike_probability,
        seed=seed,
    )
    with torch.no_grad():
        loss = float(loss_of(torch.arange(len(x) - HELD_OUT, len(x))))
    return loss if math.isfinite(loss) else math.inf


def main(argv: list[str] | None = None) -> None:
    """Runs and writes the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few steps, writes no file")
    quick = parser.parse_args(argv).quick
    torch.set_num_threads(1)
    steps, seeds = (5, (0,)) if quick else (STEPS, SEEDS)
    start = time.perf_counter()
    found: dict[str, Any] = {}
    for kind, probability in SPIKES.items():
        for name in COMPARED:
            by_lr = {
                f"{lr:g}": [held_out_loss(name, lr, s, probability, steps) for s in seeds]
                for lr in LRS
            }
            best = min(by_lr, key=lambda lr: statistics.fmean(by_lr[lr]))
            found.setdefault(kind, {})[name] = {"losses": by_lr, "best_lr": best}
            print(kind, name, by_lr, file=sys.stderr, flush=True)
    result = {
        "steps": steps,
        "batch": BATCH,
        "seeds": list(seeds),
        "found": found,
        "wall_s": round(time.perf_counter() - start, 1),
    }
    print(json.dumps(result, indent=2))
    if not quick:
        head = {"command": "python -m benchmarks.low_bit", **facts("torch")}
        RESULT.write_text(json.dumps({**head, **result}, indent=2) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
