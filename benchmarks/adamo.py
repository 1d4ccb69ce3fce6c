"""A step of AdamO beside AdamW and what its Gram products cost by themselves.

Methods take turns, block after block, in an order that is shuffled, and ratios are medians of the
ratios within blocks. *Gram products* are WᵀW and W(WᵀW) of every matrix, those of one shape in one
call: what no implementation of the isometry penalty can do without. One process, one thread.

    python -m benchmarks.adamo           # a minute or two
    python -m benchmarks.adamo --quick   # small, writes no file
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
from torch import Tensor, nn

from benchmarks.machine import facts
from thalweg.optim import AdamO

RESULT = Path(__file__).parent / "results" / "adamo.json"
# Matrix, number of matrices (each with a bias), blocks.
SIZES = {"1 M": ((256, 256), 16, 80), "10 M": ((512, 512), 38, 25)}
QUICK = {"0.1 M": ((64, 64), 24, 3)}


def _products(params: list[nn.Parameter]) -> Callable[[], Any]:
    """The Gram products, stacked beforehand."""
    W = torch.stack([p.detach() for p in params if p.ndim == 2])

    def step() -> Tensor:
        return W @ (W.mT @ W)

    return step


def step_times(shape: tuple[int, int], count: int, blocks: int) -> dict[str, Any]:
    """Seconds a step and ratios to AdamW, all in turn."""
    shapes = [s for _ in range(count) for s in (shape, shape[:1])]
    grads = [torch.randn(s) for s in shapes]

    def params() -> list[nn.Parameter]:
        made = [nn.Parameter(torch.randn(s) / shape[1] ** 0.5) for s in shapes]
        for p, g in zip(made, grads, strict=True):
            p.grad = g
        return made

    steps: dict[str, Callable[[], Any]] = {
        "AdamW(foreach)": torch.optim.AdamW(params(), foreach=True).step,
        "AdamO": AdamO(params()).step,
        "AdamO, one at a time": AdamO(params(), foreach=False).step,
        "AdamO, isometry=0": AdamO(params(), isometry=0.0).step,
        "Gram products alone": _products(params()),
    }
    wall: dict[str, list[float]] = {name: [] for name in steps}
    order, chance = list(steps), random.Random(0)
    for block in range(blocks + 1):
        chance.shuffle(order)
        for name in order:
            start = time.perf_counter()
            steps[name]()
            if block:  # the first makes the state
                wall[name].append(time.perf_counter() - start)
    bare, gram = wall["AdamW(foreach)"], wall["Gram products alone"]
    both = [a + g for a, g in zip(bare, gram, strict=True)]
    rows = {
        name: {"step_s": statistics.median(w), **_ratios(w, bare, "ratio")}
        for name, w in wall.items()
    }
    for name in ("AdamO", "AdamO, one at a time"):
        rows[name] |= _ratios(wall[name], both, "over_adamw_and_products")
    parameters = sum(g.numel() for g in grads)
    return {"parameters": parameters, "tensors": len(shapes), "blocks": blocks, "methods": rows}


def _ratios(times: list[float], others: list[float], name: str) -> dict[str, Any]:
    ratios = [a / b for a, b in zip(times, others, strict=True)]
    low, _, high = statistics.quantiles(ratios, n=4)
    return {name: statistics.median(ratios), f"{name}_quartiles": [low, high]}


def main(argv: list[str] | None = None) -> None:
    """Runs and writes the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small, writes no file")
    asked = parser.parse_args(argv)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    busy = os.getloadavg()
    steps = {n: step_times(*size) for n, size in (QUICK if asked.quick else SIZES).items()}
    result = {"load_average": [busy[0], os.getloadavg()[0]], "steps": steps}
    print(json.dumps(result, indent=2))
    if not asked.quick:
        head = {"command": "python -m benchmarks.adamo", **facts("torch")}
        RESULT.write_text(json.dumps({**head, **result}, indent=2) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
