"""Tiled linear attention beside torch's scaled dot-product attention, and what decoding keeps.

Four heads of width 32, float32, one thread; tiles and softmax take turns, ratios are medians of
pairs. Peak memory is that of a process of its own for each call. Decoding: bytes of state and time
per token after 1,000 and after 16,000 tokens, beside the keys and values that softmax would keep.

    python -m benchmarks.lightning_attention           # a few minutes
    python -m benchmarks.lightning_attention --quick   # short sequences, writes no file
"""

from __future__ import annotations

import argparse
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
from torch.nn.functional import scaled_dot_product_attention

from benchmarks.machine import facts
from thalweg.nn import LightningAttention, alibi_slopes, lightning_attention

RESULT = Path(__file__).parent / "results" / "lightning_attention.json"
HEADS, WIDTH = 4, 32
Inputs = tuple[Tensor, Tensor, Tensor]


def tiles(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return lightning_attention(q, k, v, alibi_slopes(HEADS))


def through_blocks(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """A slope that asks for its gradient sends autograd through every block."""
    return lightning_attention(q, k, v, alibi_slopes(HEADS).requires_grad_())


def softmax(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return scaled_dot_product_attention(q, k, v, is_causal=True)


METHODS = {"tiles": tiles, "softmax": softmax, "through blocks": through_blocks}


def inputs(n: int, grad: bool) -> Inputs:
    generator = torch.Generator().manual_seed(n)
    q, k, v = (
        torch.randn(1, HEADS, n, WIDTH, generator=generator).requires_grad_(grad) for _ in range(3)
    )
    return q, k, v


def call(method: Callable[..., Tensor], data: Inputs, train: bool) -> None:
    if train:
        torch.autograd.grad(method(*data).sum(), data)
    else:
        with torch.no_grad():
            method(*data)


def ratios(n: int, train: bool, rounds: int) -> dict[str, Any]:
    """Tiles over softmax at one length: ms each, median of paired ratios, quartiles."""
    data, taken = inputs(n, train), {"tiles": [], "softmax": []}
    inner = max(1, 4096 // n)  # short calls are timed several at a time
    for i in range(rounds + 1):
        for name, seconds in taken.items():
            start = time.perf_counter()
            for _ in range(inner):
                call(METHODS[name], data, train)
            if i:  # the first round warms up
                seconds.append((time.perf_counter() - start) / inner)
    pairs = [a / b for a, b in zip(taken["tiles"], taken["softmax"], strict=True)]
    low, _, high = statistics.quantiles(pairs, n=4)
    return {
        **{f"{name}_ms": 1e3 * statistics.median(s) for name, s in taken.items()},
        "ratio": statistics.median(pairs),
        "ratio_quartiles": [low, high],
    }


def peak_mib(method: str, n: int, train: bool) -> float:
    """What one call adds to the peak of a process of its own, MiB."""
    command = [sys.executable, "-m", "benchmarks.lightning_attention", "--peak", method, str(n)]
    done = subprocess.run(
        [*command, *(["--train"] if train else [])], capture_output=True, text=True, check=True
    )
    return float(done.stdout)


def measure_peak(method: str, n: int, train: bool) -> float:
    """Resident memory at its highest during a call, less what was resident before."""
    call(METHODS[method], inputs(64, train), train)
    data = inputs(n, train)
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts anew
    before = _resident_mib()
    call(METHODS[method], data, train)
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024 - before
    raise RuntimeError("/proc/self/status does not tell the peak: run this on Linux")


def decoding(num_tokens: int) -> dict[str, Any]:
    """State, resident memory and time per token, early and late."""
    layer = LightningAttention(HEADS * WIDTH, HEADS)
    marks, state, seen = (num_tokens // 16, num_tokens), None, {}
    generator = torch.Generator().manual_seed(0)
    taken: list[float] = []
    with torch.no_grad():
        for t in range(1, num_tokens + 1):
            x = torch.randn(1, HEADS * WIDTH, generator=generator)
            start = time.perf_counter()
            _, state = layer.step(x, state)
            taken.append(time.perf_counter() - start)
            if t in marks:
                seen[str(t)] = {
                    "state_bytes": state.untyped_storage().nbytes(),
                    "resident_mib": _resident_mib(),
                    "ms_per_token": 1e3 * statistics.median(taken[-num_tokens // 16 :]),
                    "softmax_cache_bytes": 2 * t * HEADS * WIDTH * 4,
                }
    return seen


def _resident_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def crossing(lengths: dict[str, dict[str, Any]]) -> int | None:
    """The shortest length timed from which on the tiles are faster."""
    faster = None
    for n, found in lengths.items():
        faster = (faster or int(n)) if found["ratio"] < 1 else None
    return faster


def main(argv: list[str] | None = None) -> None:
    """Runs and writes the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="short sequences, no file")
    parser.add_argument("--peak", nargs=2, metavar=("METHOD", "N"), help=argparse.SUPPRESS)
    parser.add_argument("--train", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    if args.peak:
        print(measure_peak(args.peak[0], int(args.peak[1]), args.train))
        return
    longest = 2048 if args.quick else 16384
    lengths = [n for n in (128, 256, 512, 1024, 2048, 4096, 8192, 16384) if n <= longest]
    result: dict[str, Any] = {"load_before": os.getloadavg()[0], "decoding": decoding(longest)}
    for train in (False, True):
        part = {}
        for n in lengths:
            rounds = 3 if args.quick else 15 if n <= 4096 else 5
            part[str(n)] = ratios(n, train, rounds)
            if n >= 1024:
                for method in METHODS:
                    part[str(n)][f"{method}_peak_mib"] = peak_mib(method, n, train)
        result["training" if train else "forward"] = part
        result[f"crossing_{'training' if train else 'forward'}"] = crossing(part)
    result["load_after"] = os.getloadavg()[0]
    print(json.dumps(result, indent=2))
    if not args.quick:
        head = {"command": "python -m benchmarks.lightning_attention", **facts("torch")}
        RESULT.write_text(json.dumps({**head, **result}, indent=2) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
