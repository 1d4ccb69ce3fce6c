"""Muon beside torch's Muon and AdamW, and what the polar factor is worth per matrix product.

A step with given gradients at about 1, 10 and 100 million parameters; methods take turns, block
after block, and ratios are medians of the ratios within blocks. At 100 million, torch's Muon, which
takes one matrix after the other, steps one of the 14 layers, and its seconds are multiplied. The
error of a polar factor is ‖X − UVᵀ‖_F / √k. One process, one thread.

    python -m benchmarks.muon           # about 15 minutes
    python -m benchmarks.muon --quick   # small, writes no file
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim._muon import _zeropower_via_newtonschulz as torchs_own

from benchmarks.machine import facts
from thalweg.optim import Muon, orthogonalize
from thalweg.optim.orthogonalize import JORDAN

RESULT = Path(__file__).parent / "results" / "muon.json"
Shape = tuple[int, int]


@dataclass(frozen=True)
class Size:
    """What is stepped.

    Attributes:
        layer: shapes of the matrices of one layer.
        layers: how many there are.
        blocks: in which each method steps once.
        torch_layers: how many of them torch's Muon steps, in whose stead the rest would take as
            long; its bfloat16 iteration takes seconds per matrix on a CPU. Default all.
    """

    layer: tuple[Shape, ...]
    layers: int
    blocks: int
    torch_layers: int | None = None


# A transformer of width 768: query, key, value and output, and a block four times as wide.
BLOCK = (*[(768, 768)] * 4, (3072, 768), (768, 3072))
SIZES = {
    "1 M": Size(((256, 256),), 16, 4),
    "10 M": Size(((256, 256),), 152, 2),
    "100 M": Size(BLOCK, 14, 2, torch_layers=1),
}
QUICK = {"0.1 M": Size(((64, 64),), 24, 2), "layers": Size(((64, 64), (64, 32)), 6, 2, 2)}
TORCHS = "torch.optim.Muon"
OPTIMIZERS: dict[str, Callable[[list[nn.Parameter]], torch.optim.Optimizer]] = {
    "thalweg ns": lambda p: Muon(p),
    "thalweg ns, one at a time": lambda p: Muon(p, foreach=False),
    "thalweg polar_express": lambda p: Muon(p, backend="polar_express"),
    TORCHS: lambda p: torch.optim.Muon(p),
    "AdamW(foreach)": lambda p: torch.optim.AdamW(p, foreach=True),
}
FACTORS: dict[str, Callable[[Tensor, int], Tensor]] = {
    "torch's, bfloat16": lambda G, steps: torchs_own(G, JORDAN, steps, 1e-7).to(G.dtype),
    "Jordan, float32": lambda G, steps: orthogonalize(G, "ns", steps=steps),
    "Polar Express, float32": lambda G, steps: orthogonalize(G, "polar_express", steps=steps),
}


def step_times(size: Size) -> dict[str, Any]:
    """Seconds a step and ratios, all optimizers in turn."""
    gradients = [torch.randn(shape) for shape in size.layer * size.layers]
    made, share = {}, {}
    for name, make in OPTIMIZERS.items():
        fewer = size.torch_layers if name == TORCHS else None
        layers = size.layers if fewer is None else fewer
        share[name] = size.layers / layers
        chosen = gradients[: layers * len(size.layer)]
        params = [nn.Parameter(torch.randn(g.shape)) for g in chosen]
        for p, g in zip(params, chosen, strict=True):
            p.grad = g
        made[name] = make(params)
    wall: dict[str, list[float]] = {name: [] for name in made}
    for warm in (orthogonalize, lambda G: torchs_own(G, JORDAN, 1, 1e-7)):
        warm(gradients[0][:64, :64])
    for _ in range(size.blocks):
        for name, optimizer in made.items():
            start = time.perf_counter()
            optimizer.step()
            wall[name].append(share[name] * (time.perf_counter() - start))

    def over(name: str, peer: str) -> float:
        pairs = zip(wall[name], wall[peer], strict=True)
        return statistics.median(a / b for a, b in pairs)

    kinds = Counter(size.layer)
    each = [f"{n * size.layers} × {rows} × {columns}" for (rows, columns), n in kinds.items()]
    return {
        "matrices": ", ".join(each),
        "parameters": sum(g.numel() for g in gradients),
        "blocks": size.blocks,
        "torch_layers": size.torch_layers,
        "methods": {
            name: {
                "step_s": statistics.median(wall[name]),
                "over_torch_muon": over(name, TORCHS),
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
        "steps": {name: step_times(size) for name, size in sizes.items()},
        "factors": factor_errors(64 if quick else 256, 3),
    }
    print(json.dumps(result, indent=2))
    if not quick:
        head = {"command": "python -m benchmarks.muon", **facts("torch")}
        RESULT.write_text(json.dumps({**head, **result}, indent=2) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
