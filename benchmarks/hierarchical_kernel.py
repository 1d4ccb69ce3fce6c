"""Kernels of wide CNNs beside the authors' code, and beside empirical kernels of finite networks.

The tangent kernel of 1,024 inputs with 1,024 others, in float64: the authors' functions with all
leaves at once, ours in blocks, and ours where both inputs are the same. Methods take turns, block
after block; ratios are medians of the ratios within blocks. Memory is what one call adds to the
peak of a process of its own. Then the empirical kernel of one network of width 400, by
``torch.func``. One process, one thread.

    python -m benchmarks.hierarchical_kernel --official FOLDER   # a few minutes
    python -m benchmarks.hierarchical_kernel --quick             # small, writes no file

FOLDER holds ``kernel_functions.py`` of github.com/pcsl-epfl/convolutional_neural_kernels; without
it the peer is left out.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.machine import facts
from thalweg.nn import HierarchicalCNN
from thalweg.theory import HierarchicalKernel, multisphere

RESULT = Path(__file__).parent / "results" / "hierarchical_kernel.json"
TREES = {"d = 8, filters 2, 2, 2": (2, 2, 2), "d = 32, filters 2, 2, 2, 2, 2": (2, 2, 2, 2, 2)}
PEER = "authors' code"


def methods(
    filters: tuple[int, ...], official: str
) -> dict[str, Callable[[Tensor, Tensor], Tensor]]:
    """Name to a function of two sets of inputs; ``official`` is a folder or empty."""
    kernel = HierarchicalKernel(filters)
    made: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
        "thalweg": kernel,
        "thalweg, x with itself": lambda x, _: kernel(x),
    }
    if official:
        sys.path.insert(0, official)
        dcntk = importlib.import_module("kernel_functions").dcntk
        made[PEER] = lambda x, y: dcntk(x, y, list(filters))
    return made


def times(filters: tuple[int, ...], n: int, blocks: int, official: str) -> dict[str, Any]:
    """Seconds, ratios and the largest difference of the results."""
    x, y = inputs(filters, n), inputs(filters, n, seed=1)
    made = methods(filters, official)
    results = {name: call(x, y) for name, call in made.items()}
    wall: dict[str, list[float]] = {name: [] for name in made}
    for _ in range(blocks):
        for name, call in made.items():
            start = time.perf_counter()
            call(x, y)
            wall[name].append(time.perf_counter() - start)
    pairs = {
        name: [t / o for t, o in zip(w, wall["thalweg"], strict=True)] for name, w in wall.items()
    }
    found: dict[str, Any] = {"inputs": n, "blocks": blocks, "methods": {}}
    for name in made:
        low, _, high = statistics.quantiles(pairs[name], n=4)
        found["methods"][name] = {
            "wall_s": statistics.median(wall[name]),
            "ratio": statistics.median(pairs[name]),
            "ratio_quartiles": [low, high],
            "peak_mib": peak_mib(name, filters, n, official),
        }
    if PEER in results:
        found["largest_difference"] = (results[PEER] - results["thalweg"]).abs().max().item()
    return found


def empirical(n: int, width: int) -> dict[str, Any]:
    """The kernel of one finite network by torch.func beside that of the limit."""
    filters = (2, 2, 2)
    x = inputs(filters, n)
    limit = HierarchicalKernel(filters)
    net = HierarchicalCNN(filters, width, dtype=torch.float64)
    params = {k: p.detach() for k, p in net.named_parameters()}

    def one(weights: dict[str, Tensor], sample: Tensor) -> Tensor:
        return torch.func.functional_call(net, weights, (sample[None],))[0]

    def jacobian() -> Tensor:
        rows = torch.func.vmap(torch.func.grad(one), in_dims=(None, 0))(params, x)
        J = torch.cat([r.flatten(1) for r in rows.values()], 1)
        return J @ J.T

    seen: dict[str, list[float]] = {"limit": [], "torch.func": []}
    K, exact = jacobian(), limit(x)
    for _ in range(5):
        for name, call in (("limit", lambda: limit(x)), ("torch.func", jacobian)):
            start = time.perf_counter()
            call()
            seen[name].append(time.perf_counter() - start)
    ratios = [a / b for a, b in zip(seen["torch.func"], seen["limit"], strict=True)]
    return {
        "inputs": n,
        "width": width,
        "limit_s": statistics.median(seen["limit"]),
        "torch_func_s": statistics.median(seen["torch.func"]),
        "ratio": statistics.median(ratios),
        "relative_error": (torch.linalg.norm(K - exact) / torch.linalg.norm(exact)).item(),
    }


def inputs(filters: tuple[int, ...], n: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return multisphere(n, 2 ** len(filters), 2, generator=generator)


def peak_mib(name: str, filters: tuple[int, ...], n: int, official: str) -> float:
    """What one call adds to the peak of a process of its own, the result included, MiB."""
    command = [sys.executable, "-m", "benchmarks.hierarchical_kernel", "--official", official]
    command += ["--peak", name, str(len(filters)), str(n)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def measure_peak(name: str, filters: tuple[int, ...], n: int, official: str) -> float:
    """Resident memory at its highest during a call, less what was resident before."""
    call = methods(filters, official)[name]
    call(inputs(filters, 8), inputs(filters, 8, seed=1))
    x, y = inputs(filters, n), inputs(filters, n, seed=1)
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts anew
    before = _status_mib("VmRSS")
    call(x, y)
    return _status_mib("VmHWM") - before


def _status_mib(key: str) -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key):
            return int(line.split()[1]) / 1024
    raise RuntimeError("/proc/self/status does not tell the peak: run this on Linux")


def main(argv: list[str] | None = None) -> None:
    """Runs and writes the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few inputs, no file")
    parser.add_argument("--official", default="", help="folder with kernel_functions.py")
    parser.add_argument("--peak", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    if args.peak:
        name, layers, n = args.peak
        print(measure_peak(name, (2,) * int(layers), int(n), args.official))
        return
    n, blocks = (128, 3) if args.quick else (1024, 7)
    result: dict[str, Any] = {"load_before": os.getloadavg()[0]}
    result["kernels"] = {
        name: times(filters, n, blocks, args.official) for name, filters in TREES.items()
    }
    result["empirical"] = empirical(16 if args.quick else 64, 50 if args.quick else 400)
    result["load_after"] = os.getloadavg()[0]
    print(json.dumps(result, indent=2))
    if not args.quick:
        command = "python -m benchmarks.hierarchical_kernel --official FOLDER"
        peer = {"peer": "pcsl-epfl/convolutional_neural_kernels, commit 9c6e9a7"}
        head = {"command": command, **facts("torch"), **peer}
        RESULT.write_text(json.dumps({**head, **result}, indent=2) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
