"""Muon beside torch's Muon and AdamW, and what the polar factor is worth per matrix product.

A step with given gradients at about 1 and 10 million parameters; methods take turns, block after
block, and ratios are medians of the ratios within blocks. The error of a polar factor is
‖X − UVᵀ‖_F / √k. One process, one thread.

    python -m benchmarks.muon           # some minutes
    python -m benchmarks.muon --quick   # small, writes no file
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim._muon import _zeropower_via_newtonschulz as torchs_own

from benchmarks.machine import facts
from thalweg.optim import Muon, orthogonalize
from thalweg.optim.orthogonalize import JORDAN

RESULT = Path(__file__).parent / "results" / "muon.json"
# Shape, number and blocks. Torch's bfloat16 iteration takes most of a second per matrix on a CPU,
# which is why the matrices are no larger and 100 M parameters are left out.
SIZES = {"1 M": ((256, 256), 16, 4), "10 M": ((256, 256), 152, 2)}
QUICK = {"0.1 M": ((64, 64), 24, 2)}
OPTIMIZERS: dict[str, Callable[[list[nn.Parameter]], torch.optim.Optimizer]] = {
    "thalweg ns": lambda p: Muon(p),
    "thalweg ns, one at a time": lambda p: Muon(p, foreach=False),
    "thalweg polar_express": lambda p: Muon(p, backend="polar_express"),
    "torch.optim.Muon": lambda p: torch.optim.Muon(p),
    "AdamW(foreach)": lambda p: torch.optim.AdamW(p, foreach=True),
}
FACTORS: dict[str, Callable[[Tensor, int], Tensor]] = {
    "torch's, bfloat16": lambda G, steps: torchs_own(G, JORDAN, steps, 1e-7).to(G.dtype),
    "Jordan, float32": lambda G, steps: orthogonalize(G, "ns", steps=steps),
    "Polar Express, float32": lambda G, steps: orthogonalize(G, "polar_express", steps=steps),
}


def step_times(shape: tuple[int, int], count: int, blocks: int) -> dict[str, Any]:
    """Seconds a step and ratios, all optimizers in turn."""
    gradients = torch.randn(count, *shape)
    made = {}
    for name, make in OPTIMIZERS.items():
        params = [nn.Parameter(torch.randn(shape)) for _ in range(count)]
        for p, g in zip(params, gradients, strict=True):
            p.grad = g
        made[name] = make(params)
    wall: dict[str, list[float]] = {name: [] for name in made}
    for warm in (orthogonalize, lambda G: torchs_own(G, JORDAN, 1, 1e-7)):
        warm(gradients[0])
    for _ in range(blocks):
        for name, optimizer in made.items():
            start = time.perf_counter()
            optimizer.step()
            wall[name].append(time.perf_counter() - start)

    def over(name: str, peer: str) -> float:
        pairs = zip(wall[name], wall[peer], strict=True)
        return statistics.median(a / b for a, b in pairs)

    return {
        "matrices": f"{count} × {shape[0]} × {shape[1]}",
        "parameters": count * shape[0] * shape[1],
        "blocks": blocks,
        "methods": {
            name: {
                "step_s": statistics.median(wall[name]),
                "over_torch_muon": over(name, "torch.optim.Muon"),
                "over_adamw": over(name, "AdamW(foreach)"),
            }
            for name in made
        },
    }


def factor_errors(dim: int, blocks: int) -> dict[str, Any]:
    """Errors of a Gaussian matrix and of one with singular values from 1e-3 to 1, and seconds."""
    generator = torch.Generator().manual_seed(0)
    gaussian = torch.randn(dim, dim, generator=generator, dtype=torch.float64)
    U, _, Vh = torch.linalg.svd(gaussian)
    graded = (U * torch.logspace(0, -3, dim, dtype=torch.float64)) @ Vh
    out: dict[str, Any] = {}
    for steps in (3, 5, 8):
        wall: dict[str, list[float]] = {name: [] for name in FACTORS}
        for block in range(blocks + 1):
            for name, factor in FACTORS.items():
                G = gaussian.float()
                start = time.perf_counter()
                factor(G, steps)
                if block:
                    wall[name].append(time.perf_counter() - start)
        for name, factor in FACTORS.items():
            errors = {
                f"error_{kind}": float((factor(G.float(), steps).double() - U @ Vh).norm())
                / dim**0.5
                for kind, G in (("gaussian", gaussian), ("graded", graded))
            }
            row = {"matmuls": 3 * steps, **errors, "wall_s": statistics.median(wall[name])}
            out.setdefault(name, {})[str(steps)] = row
    return {"dim": dim, "methods": out}


def main(argv: list[str] | None = None) -> None:
    """Runs and writes the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small matrices, writes no file")
    quick = parser.parse_args(argv).quick
    torch.set_num_threads(1)
    torch.manual_seed(0)
    sizes, busy = (QUICK if quick else SIZES), os.getloadavg()
    result = {
        "load_average": [busy[0], os.getloadavg()[0]],
        "steps": {name: step_times(*size) for name, size in sizes.items()},
        "factors": factor_errors(64 if quick else 256, 3),
    }
    print(json.dumps(result, indent=2))
    if not quick:
        head = {"command": "python -m benchmarks.muon", **facts("torch")}
        RESULT.write_text(json.dumps({**head, **result}, indent=2) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
