"""A training step of a hypernetwork beside hyperlight, the authors' package.

Sixteen hyper-inputs with 32 points each, a primary network 64-w-w-10 whose weights are all
predicted; forward and backward pass. hyperlight predicts for the whole batch and then sets the
weights of one input after the other, as it has no other way; ``HyperModule`` calls the network once
for all. Both have the same number of parameters. Interleaved blocks, ratios within blocks. One
process, one thread.

    python -m benchmarks.hypernetwork           # about a minute
    python -m benchmarks.hypernetwork --quick   # small, writes no file

hyperlight is left out if it cannot be imported.
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
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.machine import facts
from thalweg.nn import hypernetize

RESULT = Path(__file__).parent / "results" / "hypernetwork.json"
INPUTS, POINTS, BLOCKS = 16, 32, 100
WIDTHS = (24, 128)
Step = Callable[[Tensor, Tensor], Tensor]


def primary(width: int) -> nn.Sequential:
    return nn.Sequential(
        *(nn.Linear(64, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU()),
        nn.Linear(width, 10),
    )


def steps(width: int) -> dict[str, tuple[nn.Module, Step]]:
    """Name to what holds the parameters and the loss of a batch."""
    model = hypernetize(primary(width), {"gamma": (1,)})
    found: dict[str, tuple[nn.Module, Step]] = {
        "thalweg HyperModule": (model, lambda g, x: model({"gamma": g}, x).square().mean())
    }
    try:
        hl: Any = import_module("hyperlight")
    except ImportError:
        print("hyperlight cannot be imported and is left out", file=sys.stderr)
        return found
    net = primary(width)
    net = hl.hypernetize(net, modules=[m for m in net if isinstance(m, nn.Linear)])
    hyper = hl.HyperNet({"gamma": (1,)}, net.external_shapes(), [16, 128])

    def one_by_one(gamma: Tensor, x: Tensor) -> Tensor:
        predicted = hyper(gamma=gamma)
        total = x.new_zeros(())
        for b in range(len(x)):
            with net.using_externals({n: t[b] for n, t in predicted.items()}):
                total = total + net(x[b]).square().mean()
        return total / len(x)

    found[f"hyperlight {metadata.version('hyperlight')}"] = hyper, one_by_one
    return found


def timed(width: int, blocks: int) -> dict[str, Any]:
    """Seconds of a forward and backward pass, all in turn."""
    methods = steps(width)
    wall: dict[str, list[float]] = {name: [] for name in methods}
    order, chance = list(methods), random.Random(0)
    for block in range(blocks + 3):
        gamma, x = torch.rand(INPUTS, 1), torch.randn(INPUTS, POINTS, 64)
        chance.shuffle(order)
        for name in order:
            holder, loss_of = methods[name]
            holder.zero_grad()
            start = time.perf_counter()
            loss_of(gamma, x).backward()
            if block >= 3:
                wall[name].append(time.perf_counter() - start)
    ours, rows = wall["thalweg HyperModule"], {}
    for name, (holder, _) in methods.items():
        ratios = [a / b for a, b in zip(wall[name], ours, strict=True)]
        low, _, high = statistics.quantiles(ratios, n=4)
        rows[name] = {
            "parameters": sum(p.numel() for p in holder.parameters()),
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
    found = {f"64-{w}-{w}-10": timed(w, blocks) for w in WIDTHS[: 1 if quick else None]}
    result = {"blocks": blocks, "load_average": [busy[0], os.getloadavg()[0]], "found": found}
    print(json.dumps(result, indent=2))
    if not quick:
        head = {"command": "python -m benchmarks.hypernetwork", **facts("torch")}
        RESULT.write_text(json.dumps({**head, **result}, indent=2) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
