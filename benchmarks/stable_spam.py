"""A step of StableSPAM beside AdamW, pytorch_optimizer's and the official code.

Given gradients of another scale at every step, so that clipping is at work on about every second
one; methods take turns, block after block, in an order that is shuffled, and ratios are medians of
the ratios within blocks. The peers write into the gradients, which are restored between steps,
outside the time that is taken. One process, one thread.

    python -m benchmarks.stable_spam           # some minutes
    python -m benchmarks.stable_spam --quick   # small, writes no file
    python -m benchmarks.stable_spam --official FOLDER   # with stablespam.py of the authors

pytorch_optimizer is left out if it cannot be imported.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterable
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.machine import facts
from thalweg.optim import StableSPAM

RESULT = Path(__file__).parent / "results" / "stable_spam.json"
# Matrix, number of matrices (each with a bias), blocks.
SIZES = {"1 M": ((256, 256), 16, 60), "10 M": ((512, 512), 38, 20), "100 M": ((2048, 2048), 24, 7)}
QUICK = {"0.1 M": ((64, 64), 24, 3)}
Make = Callable[[Iterable[Tensor]], torch.optim.Optimizer]
OURS: dict[str, Make] = {
    "AdamW(foreach)": lambda p: torch.optim.AdamW(p, foreach=True),
    "thalweg StableSPAM": lambda p: StableSPAM(p),
    "thalweg StableSPAM, one at a time": lambda p: StableSPAM(p, foreach=False),
}


def peers(official: str | None) -> dict[str, Make]:
    """The others that can be had here."""
    found: dict[str, Make] = {}
    try:
        theirs: Any = import_module("pytorch_optimizer").StableSPAM
    except ImportError:
        print("pytorch_optimizer cannot be imported and is left out", file=sys.stderr)
    else:
        version = metadata.version("pytorch_optimizer")
        found[f"pytorch_optimizer {version}"] = lambda p: theirs(p)
        found[f"pytorch_optimizer {version}, foreach"] = lambda p: theirs(p, foreach=True)
    if official is not None:
        spec = importlib.util.spec_from_file_location("stablespam", f"{official}/stablespam.py")
        assert spec is not None and spec.loader is not None
        module: Any = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        found["official"] = lambda p: module.StableSPAM(p)
    return found


def step_times(
    makers: dict[str, Make], shape: tuple[int, int], count: int, blocks: int
) -> dict[str, Any]:
    """Seconds a step and ratios to AdamW, all in turn."""
    shapes = [s for _ in range(count) for s in (shape, shape[:1])]
    master = [torch.randn(s) for s in shapes]
    grads = [torch.empty(s) for s in shapes]  # one set for all, restored for each
    made: dict[str, torch.optim.Optimizer] = {}
    for name, make in makers.items():
        params = [nn.Parameter(torch.randn(s)) for s in shapes]
        for p, g in zip(params, grads, strict=True):
            p.grad = g
        made[name] = make(params)
    wall: dict[str, list[float]] = {name: [] for name in made}
    order, chance = list(made), random.Random(0)
    for block in range(blocks + 1):
        scale = chance.uniform(0.5, 2)
        chance.shuffle(order)
        for name in order:
            for g, m in zip(grads, master, strict=True):
                torch.mul(m, scale, out=g)
            start = time.perf_counter()
            made[name].step()
            if block:  # the first makes the state
                wall[name].append(time.perf_counter() - start)
    rows = {}
    for name in made:
        pairs = zip(wall[name], wall["AdamW(foreach)"], strict=True)
        ratios = [a / b for a, b in pairs]
        low, _, high = statistics.quantiles(ratios, n=4)
        rows[name] = {
            "step_s": statistics.median(wall[name]),
            "ratio": statistics.median(ratios),
            "ratio_quartiles": [low, high],
        }
    parameters = sum(m.numel() for m in master)
    return {"parameters": parameters, "tensors": len(shapes), "blocks": blocks, "methods": rows}


def main(argv: list[str] | None = None) -> None:
    """Runs and writes the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small, writes no file")
    parser.add_argument("--official", help="folder with stablespam.py of the authors")
    asked = parser.parse_args(argv)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    makers = OURS | peers(asked.official)
    sizes, busy = (QUICK if asked.quick else SIZES), os.getloadavg()
    steps = {name: step_times(makers, *size) for name, size in sizes.items()}
    result = {"load_average": [busy[0], os.getloadavg()[0]], "steps": steps}
    print(json.dumps(result, indent=2))
    if not asked.quick:
        head = {"command": "python -m benchmarks.stable_spam", **facts("torch")}
        RESULT.write_text(json.dumps({**head, **result}, indent=2) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
