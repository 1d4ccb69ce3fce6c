"""The map of a fastfood subspace, forward and backward, beside the two public implementations.

d numbers to D and the gradient back, one map, float32, one thread. The peers are their files as
published: ``intrinsic/fastfood.py`` of jgamper/intrinsic-dimensionality (the pip package of that
name has no code in it) and ``seq2seq/projections/intrinsic.py`` of rabeehk/compacter, whose CUDA
extension is left out: on a CPU it uses its own transform. They get the factors made once, as their
wrappers do. Methods take turns in a shuffled order, ratios are medians of the ratios within blocks.

    python -m benchmarks.fastfood --jgamper FILE --compacter FILE   # a minute
    python -m benchmarks.fastfood --quick                           # small, writes no file
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
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.machine import facts
from thalweg.nn import SubspaceModule
from thalweg.numerics import fastfood_factors

RESULT = Path(__file__).parent / "results" / "fastfood.json"
SIZES = ((100_000, 1000, 60), (1_000_000, 1000, 30), (1_000_000, 100_000, 30))
QUICK = ((1000, 10, 3),)
OURS = "thalweg SubspaceModule"
Map = Callable[[Tensor], Tensor]


def load(path: str, name: str) -> Any:
    """A file of a peer as a module; the extension that it imports is replaced by nothing."""
    extension: Any = types.ModuleType("seq2seq.projections.fwh_cuda")
    extension.fast_walsh_hadamard_transform = None  # only called for CUDA tensors
    for part in ("seq2seq", "seq2seq.projections"):
        sys.modules[part] = types.ModuleType(part)
    sys.modules["seq2seq.projections.fwh_cuda"] = extension
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def maps(D: int, d: int, files: dict[str, str]) -> dict[str, Map]:
    """Ours as the module calls it, and theirs on the same factors."""
    inside = SubspaceModule(nn.ParameterList([nn.Parameter(torch.zeros(D))]), d)
    found: dict[str, Map] = {OURS: inside.maps[0]}
    B, Pi, G, _ = fastfood_factors(D, 0)
    factors = [B, Pi, G, torch.sqrt(len(G) * G.square().sum()), len(G)]
    for name, path in files.items():
        theirs = load(path, name)
        found[name] = lambda x, theirs=theirs: theirs.fastfood_torched(x, D, factors)
    return found


def differences(D: int, d: int, files: dict[str, str]) -> dict[str, dict[str, float]]:
    """Largest relative difference of value and gradient to ours, whose gradient is checked."""
    found, results = {}, {}
    for name, project in maps(D, d, files).items():
        x = torch.linspace(-1, 1, d).requires_grad_()
        y = project(x)
        results[name] = (y.detach(), torch.autograd.grad(y.square().sum(), x)[0])
    for name, (y, g) in results.items():
        y0, g0 = results[OURS]
        found[name] = {
            "value": float((y - y0).abs().max() / y0.abs().max()),
            "gradient_over_ours": float((g @ g0) / (g0 @ g0)),
        }
    return found


def timed(D: int, d: int, blocks: int, files: dict[str, str]) -> dict[str, Any]:
    """Seconds forward and backward, and ratios to ours."""
    methods, chance = maps(D, d, files), random.Random(0)
    x, g = torch.randn(d, requires_grad=True), torch.randn(D)
    wall: dict[str, list[float]] = {name: [] for name in methods}
    order = list(methods)
    for block in range(blocks + 2):
        chance.shuffle(order)
        for name in order:
            start = time.perf_counter()
            torch.autograd.grad(methods[name](x), x, g)
            if block >= 2:
                wall[name].append(time.perf_counter() - start)
    found = {}
    for name, seconds in wall.items():
        pairs = [s / o for s, o in zip(seconds, wall[OURS], strict=True)]
        low, _, high = statistics.quantiles(pairs, n=4)
        found[name] = {
            "step_s": statistics.median(seconds),
            "ratio": statistics.median(pairs),
            "ratio_quartiles": [low, high],
        }
    return {"D": D, "d": d, "blocks": blocks, "methods": found}


def main(argv: list[str] | None = None) -> None:
    """Runs and writes the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small, writes no file")
    parser.add_argument("--jgamper", metavar="FILE", help="their intrinsic/fastfood.py")
    parser.add_argument("--compacter", metavar="FILE", help="their projections/intrinsic.py")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    files = {
        name: path
        for name, path in (
            ("jgamper/intrinsic-dimensionality 1872b8f", args.jgamper),
            ("rabeehk/compacter e123daa, CPU transform", args.compacter),
        )
        if path
    }
    result: dict[str, Any] = {
        "load_before": os.getloadavg()[0],
        "differences": differences(1000, 16, files),
        "sizes": [timed(D, d, n, files) for D, d, n in (QUICK if args.quick else SIZES)],
        "load_after": os.getloadavg()[0],
    }
    print(json.dumps(result, indent=2))
    if not args.quick:
        head = {
            "command": "python -m benchmarks.fastfood --jgamper FILE --compacter FILE",
            **facts("torch"),
        }
        RESULT.write_text(json.dumps({**head, **result}, indent=2) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
