"""The ELR loss beside cross-entropy at 1000 classes: forward and backward, alone and in a step.

Methods take turns, block after block, in an order that is shuffled; ratios are medians of the
ratios within blocks. Beside ``ELRLoss`` stands the same loss written with torch's operations one by
one, as the authors' code has it, which gives the same numbers. One process, one thread.

    python -m benchmarks.elr           # about a minute
    python -m benchmarks.elr --quick   # small, writes no file
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.machine import facts
from thalweg.losses import ELRLoss

RESULT = Path(__file__).parent / "results" / "elr.json"
CLASSES, EXAMPLES = 1000, 20_000
BATCHES, BLOCKS = (32, 128, 512), 200
Loss = Callable[[Tensor, Tensor, Tensor], Tensor]


class OneByOne(nn.Module):
    """The authors' formulas in their order, by autograd."""

    def __init__(self, num_examples: int, num_classes: int) -> None:
        super().__init__()
        self.target = torch.zeros(num_examples, num_classes)

    def forward(self, logits: Tensor, labels: Tensor, index: Tensor) -> Tensor:
        p = torch.clamp(F.softmax(logits, dim=1), 1e-4, 1 - 1e-4)
        q = p.detach()
        new = 0.7 * self.target[index] + 0.3 * (q / q.sum(dim=1, keepdim=True))
        self.target[index] = new
        inner = (self.target[index] * p).sum(dim=1)
        return F.cross_entropy(logits, labels) + 3 * (1 - inner).log().mean()


def losses() -> dict[str, Loss]:
    return {
        "cross-entropy": lambda z, y, i: F.cross_entropy(z, y),
        "thalweg ELRLoss": ELRLoss(EXAMPLES, CLASSES),
        "thalweg ELRLoss, float16 table": ELRLoss(EXAMPLES, CLASSES, dtype=torch.float16),
        "operations one by one": OneByOne(EXAMPLES, CLASSES),
    }


def timed(methods: dict[str, Loss], batch: int, blocks: int, model: nn.Module | None) -> Any:
    """Seconds of a forward and backward pass and ratios to cross-entropy, all in turn."""
    x = torch.randn(batch, 1024)
    z = (4 * torch.randn(batch, CLASSES)).requires_grad_()
    y = torch.randint(CLASSES, (batch,))
    wall: dict[str, list[float]] = {name: [] for name in methods}
    order, chance = list(methods), random.Random(0)
    for block in range(blocks + 3):
        index = torch.randperm(EXAMPLES)[:batch]
        chance.shuffle(order)
        for name in order:
            z.grad = None
            start = time.perf_counter()
            if model is not None:
                model.zero_grad()
            methods[name](z if model is None else model(x), y, index).backward()
            if block >= 3:
                wall[name].append(time.perf_counter() - start)
    rows = {}
    for name in methods:
        ratios = [a / b for a, b in zip(wall[name], wall["cross-entropy"], strict=True)]
        low, _, high = statistics.quantiles(ratios, n=4)
        rows[name] = {
            "wall_s": statistics.median(wall[name]),
            "ratio": statistics.median(ratios),
            "ratio_quartiles": [low, high],
        }
    return rows


def main(argv: list[str] | None = None) -> None:
    """Runs and writes the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small, writes no file")
    quick = parser.parse_args(argv).quick
    torch.set_num_threads(1)
    torch.manual_seed(0)
    busy, blocks = os.getloadavg(), 3 if quick else BLOCKS
    model = nn.Sequential(nn.Linear(1024, 1024), nn.ReLU(), nn.Linear(1024, CLASSES))
    found = {f"alone, batch {b}": timed(losses(), b, blocks, None) for b in BATCHES}
    found["MLP 1024-1024-1000, batch 128"] = timed(losses(), 128, blocks // 3, model)
    result = {"blocks": blocks, "load_average": [busy[0], os.getloadavg()[0]], "found": found}
    print(json.dumps(result, indent=2))
    if not quick:
        head = {"command": "python -m benchmarks.elr", **facts("torch")}
        RESULT.write_text(json.dumps({**head, **result}, indent=2) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
