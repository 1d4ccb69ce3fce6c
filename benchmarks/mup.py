"""muP beside microsoft/mup: the same numbers, and what a step costs.

Nets of equal weights are parametrised by both libraries and compared: weights after
``set_base_shapes``, outputs, learning rate and decay of every parameter, and the weights after 20
steps of Adam. Then steps with given gradients, ours, theirs and plain Adam in turn, block after
block; ratios are medians of the ratios within blocks. One process, one thread. Needs microsoft/mup:

    pip install --no-deps --target PEERS mup
    PYTHONPATH=PEERS python -m benchmarks.mup           # about a minute
    PYTHONPATH=PEERS python -m benchmarks.mup --quick   # small, writes no file
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.machine import facts
from thalweg.nn import MuReadout, set_base_shapes
from thalweg.optim import MuAdam, MuAdamW, MuSGD

RESULT = Path(__file__).parent / "results" / "mup.json"
BASE = 32
KINDS = {
    "MuAdam": (MuAdam, {"weight_decay": 0.0}),
    "MuAdamW": (MuAdamW, {"weight_decay": 0.01}),
    "MuSGD": (MuSGD, {"weight_decay": 0.01, "momentum": 0.9}),
}


class Net(nn.Module):
    """Embedding, convolution, normalisation and layers of two widths; any readout."""

    def __init__(self, width: int, readout: Callable[[int, int], nn.Module]) -> None:
        super().__init__()
        self.embed = nn.Embedding(50, width)
        self.conv = nn.Conv1d(width, width, 3, padding=1)
        self.norm = nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.out = readout(width, 10)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, T) tokens to (B, T, 10)."""
        h = self.embed(tokens)
        h = self.norm(h + self.conv(h.mT).mT)
        return self.out(h + self.down(torch.relu(self.up(h))))


def pair(width: int, theirs: Any) -> tuple[nn.Module, nn.Module]:
    """The same net in both libraries."""
    torch.manual_seed(0)
    ours, peer = Net(width, MuReadout).double(), Net(width, theirs.MuReadout).double()
    peer.load_state_dict(ours.state_dict())
    set_base_shapes(ours, Net(BASE, MuReadout), Net(2 * BASE, MuReadout))
    theirs.set_base_shapes(peer, Net(BASE, theirs.MuReadout), delta=Net(2 * BASE, theirs.MuReadout))
    return ours, peer


def by_parameter(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, list[float]]:
    """Rate and decay of every parameter."""
    found = {
        id(p): [g["lr"], g["weight_decay"]] for g in optimizer.param_groups for p in g["params"]
    }
    return {name: found[id(p)] for name, p in model.named_parameters()}


def equality(widths: list[int], theirs: Any) -> dict[str, Any]:
    """Largest relative differences over widths, of every kind."""
    out: dict[str, Any] = {}
    for width in widths:
        worst = dict.fromkeys(("weights", "outputs", "rates and decays"), 0.0)
        row: dict[str, Any] = {"parameters": 0}
        for kind, (ours_kind, options) in KINDS.items():
            ours, peer = pair(width, theirs)
            row["parameters"] = sum(p.numel() for p in ours.parameters())
            tokens = torch.randint(50, (8, 16), generator=torch.Generator().manual_seed(1))
            weights = zip(ours.parameters(), peer.parameters(), strict=True)
            worst["weights"] = max(worst["weights"], *(_off(a, b) for a, b in weights))
            worst["outputs"] = max(worst["outputs"], _off(ours(tokens), peer(tokens)))
            first = ours_kind(ours.parameters(), lr=0.01, **options)
            second = getattr(theirs, kind)(peer.parameters(), lr=0.01, **options)
            a, b = by_parameter(ours, first), by_parameter(peer, second)
            rates = (abs(x - y) / y for n in a for x, y in zip(a[n], b[n], strict=True) if y)
            worst["rates and decays"] = max(worst["rates and decays"], *rates)
            for _ in range(20):
                for model, optimizer in ((ours, first), (peer, second)):
                    optimizer.zero_grad()
                    model(tokens).square().mean().backward()
                    optimizer.step()
            weights = zip(ours.parameters(), peer.parameters(), strict=True)
            row[f"weights after 20 steps of {kind}"] = max(_off(a, b) for a, b in weights)
        out[str(width)] = {**row, **worst}
    return out


def _off(a: Tensor, b: Tensor) -> float:
    a, b = a.detach(), b.detach()
    return float((a - b).abs().max() / b.abs().max())


def step_times(width: int, blocks: int, repeat: int, theirs: Any) -> dict[str, Any]:
    """Milliseconds a step and ratios, in float32."""
    ours, peer = (m.float() for m in pair(width, theirs))
    plain = copy.deepcopy(ours)
    methods = {
        "thalweg": MuAdam(ours.parameters(), lr=1e-3),
        "microsoft/mup": theirs.MuAdam(peer.parameters(), lr=1e-3),
        "torch.optim.Adam": torch.optim.Adam(plain.parameters(), lr=1e-3),
    }
    for model in (ours, peer, plain):
        for p in model.parameters():
            p.grad = torch.ones_like(p)
    wall: dict[str, list[float]] = {name: [] for name in methods}
    for block in range(blocks + 1):
        for name, optimizer in methods.items():
            start = time.perf_counter()
            for _ in range(repeat):
                optimizer.step()
            if block:
                wall[name].append((time.perf_counter() - start) / repeat)

    def over(name: str, other: str) -> list[float]:
        ratios = [a / b for a, b in zip(wall[name], wall[other], strict=True)]
        return statistics.quantiles(ratios, n=4)

    return {
        "parameters": sum(p.numel() for p in ours.parameters()),
        "blocks": blocks,
        "steps_a_block": repeat,
        "step_ms": {name: 1e3 * statistics.median(times) for name, times in wall.items()},
        "over_mup_quartiles": over("thalweg", "microsoft/mup"),
        "over_adam_quartiles": over("thalweg", "torch.optim.Adam"),
    }


def main(argv: list[str] | None = None) -> None:
    """Runs and writes the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small nets, writes no file")
    quick = parser.parse_args(argv).quick
    torch.set_num_threads(1)
    try:
        theirs = import_module("mup")
    except ImportError:
        print("skipped: needs microsoft/mup, see the top of benchmarks/mup.py")
        return
    busy = os.getloadavg()[0]
    same = equality([32, 64] if quick else [32, 64, 96, 256], theirs)
    sizes = {64: 2} if quick else {64: 40, 256: 5, 768: 1}
    blocks = 3 if quick else 61
    times = {str(w): step_times(w, blocks, repeat, theirs) for w, repeat in sizes.items()}
    result = {"load_average": [busy, os.getloadavg()[0]], "equality": same, "steps": times}
    print(json.dumps(result, indent=2))
    if not quick:
        head = {"command": "python -m benchmarks.mup", "mup": "1.0.0", **facts("torch")}
        RESULT.write_text(json.dumps({**head, **result}, indent=2) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
