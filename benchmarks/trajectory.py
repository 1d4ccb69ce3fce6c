"""Reading trajectories: time beside that of reading the files once, memory, and RELEX's own script.

Synthetic checkpoints of float32 weights in four tensors are written to a temporary folder. Each
measurement runs in a process of its own, so that its peak memory is its own; cold means that the
files were dropped from the page cache before. The official procedure is followed function by
function (its script is bound to Hugging Face causal language models) on float32 deltas, which are
prepared for it and not counted.

    python -m benchmarks.trajectory                        # sizes 5, 10 and 20 M, T = 40
    python -m benchmarks.trajectory --official DIR         # beside DIR/svd_extrapolation.py
    python -m benchmarks.trajectory --quick                # small, writes no file
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from benchmarks.machine import facts

RESULT = Path(__file__).parent / "results" / "trajectory.json"
T, TENSORS, TARGET = 40, 4, 400
WIDTH = 1000
NEEDED = ("compute_svd", "fit_linear", "load_delta_row")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark.

    Args:
        argv: the command line; default: that of the process.
    """
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n", 1)[0])
    parser.add_argument("--sizes", type=float, nargs="+", default=[5e6, 10e6, 20e6])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--official", type=Path, help="folder with svd_extrapolation.py")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--task", nargs="+", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.task:
        print(json.dumps(TASKS[args.task[0]](*map(Path, args.task[1:]))))
        return 0
    sizes = [2e5, 4e5] if args.quick else args.sizes
    rows = [measured(int(size), args) for size in sizes]
    result: dict[str, Any] = {"machine": facts(), "checkpoints": T, "rows": rows}
    result["projected"] = projected(rows)
    for row in [*rows, result["projected"]]:
        print(json.dumps(row))
    if not args.quick:
        RESULT.write_text(json.dumps(result, indent=1) + "\n")
    return 0


def measured(size: int, args: argparse.Namespace) -> dict[str, Any]:
    """All measurements of one size: medians over repeats, interleaved."""
    with tempfile.TemporaryDirectory() as place:
        checkpoints, deltas = Path(place) / "checkpoints", Path(place) / "deltas"
        write(checkpoints, deltas if args.official else None, size)
        found: dict[str, list[float]] = {}
        predictions: dict[str, Path] = {}
        for _ in range(args.repeats):
            for name, call in {
                "read": ("read", checkpoints),
                "fit": ("fit", checkpoints),
                "predict": ("predict", checkpoints, Path(place) / "ours.safetensors"),
                "official": ("official", deltas, Path(place) / "official.npz", args.official),
            }.items():
                if name == "official" and not args.official:
                    continue
                for cold in (True, False) if name in ("read", "fit") else (False,):
                    if cold:
                        drop(checkpoints)
                    seconds, memory = task(*map(str, call))
                    found.setdefault(f"{name}_{'cold' if cold else 'warm'}_s", []).append(seconds)
                    found.setdefault(f"{name}_mb", []).append(memory)
                if name in ("predict", "official"):
                    predictions[name] = Path(call[2])
        row = {"weights": size, **{name: median(values) for name, values in found.items()}}
        row["fit_over_read_cold"] = median(
            f / r for f, r in zip(found["fit_cold_s"], found["read_cold_s"], strict=True)
        )
        row["fit_over_read_warm"] = median(
            f / r for f, r in zip(found["fit_warm_s"], found["read_warm_s"], strict=True)
        )
        if args.official:
            row["largest_difference"] = difference(predictions["predict"], predictions["official"])
            row["memory_ratio"] = row["predict_mb"] / max(row["official_mb"], 1.0)
            row["time_ratio"] = row["predict_warm_s"] / row["official_warm_s"]
        return row


def projected(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Ten times the largest size, along a line through all."""
    weights = np.array([row["weights"] for row in rows], float)
    target = 10 * weights[-1]
    slope = {}
    for name in ("fit_cold_s", "read_cold_s", "fit_mb"):
        a, b = np.polyfit(weights, [row[name] for row in rows], 1)
        slope[name] = float(a * target + b)
    return {"weights": int(target), "projected": True, **slope}


def write(checkpoints: Path, deltas: Path | None, size: int) -> None:
    """Checkpoints that drift along one direction with noise; float32 deltas of them."""
    g = torch.Generator().manual_seed(0)
    rows = size // TENSORS // WIDTH
    base = {f"w{i}": torch.randn(rows, WIDTH, generator=g) for i in range(TENSORS)}
    drift = {name: 1e-3 * torch.randn(w.shape, generator=g) for name, w in base.items()}
    checkpoints.mkdir()
    files = {}
    if deltas:
        deltas.mkdir()
        files = {name: (deltas / f"{name}.npy").open("wb") for name in base}
    for t in range(T + 1):
        state = {
            n: w + t * drift[n] + 1e-3 * torch.randn(w.shape, generator=g) for n, w in base.items()
        }
        save_file(state, checkpoints / f"step-{t}.safetensors")
        if t == 0:
            start = state
        for name, file in files.items():
            if t:
                (state[name] - start[name]).numpy().tofile(file)
    for file in files.values():
        file.close()
    os.sync()


def drop(folder: Path) -> None:
    """Puts the files out of the page cache."""
    for path in folder.iterdir():
        handle = os.open(path, os.O_RDONLY)
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(handle)


def task(*call: str) -> tuple[float, float]:
    """Seconds, and megabytes above what the imports take, of a task in its own process."""
    command = [sys.executable, "-m", "benchmarks.trajectory", "--task", *call]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return tuple(json.loads(done.stdout.splitlines()[-1]))


def peak_mb() -> float:
    """Peak memory of this process; ``getrusage`` would count that of the parent before it."""
    (line,) = (
        line
        for line in Path("/proc/self/status").read_text().splitlines()
        if line.startswith("VmHWM:")
    )
    return int(line.split()[1]) * 1024 / 1e6


def read(folder: Path) -> tuple[float, float]:
    """Reads every file once, into one buffer."""
    before, begun, buffer = peak_mb(), time.perf_counter(), bytearray(1 << 20)
    for path in sorted(folder.iterdir()):
        with path.open("rb", buffering=0) as file:
            while file.readinto(buffer):
                pass
    return time.perf_counter() - begun, peak_mb() - before


def fit(folder: Path) -> tuple[float, float]:
    """Gram matrices and the rank-1 fit."""
    from thalweg.trajectory import fit_rank1

    torch.mm(torch.ones(100, 100).double(), torch.eye(100).double())  # libraries are loaded
    before, begun = peak_mb(), time.perf_counter()
    fit_rank1(folder)
    return time.perf_counter() - begun, peak_mb() - before


def predict(folder: Path, out: Path) -> tuple[float, float]:
    """The fit and the predicted checkpoint, written."""
    from thalweg.trajectory import fit_rank1, write_checkpoint

    before, begun = peak_mb(), time.perf_counter()
    model = fit_rank1(folder)
    write_checkpoint(out, model.store.tensors, model.stretches(TARGET))
    return time.perf_counter() - begun, peak_mb() - before


def official(deltas: Path, out: Path, source: Path) -> tuple[float, float]:
    """The official procedure for each tensor: all deltas in memory, basis, line, prediction."""
    functions = _official_functions(source / "svd_extrapolation.py")
    before, begun = peak_mb(), time.perf_counter()
    predictions = {}
    for path in sorted(deltas.iterdir()):
        numel = path.stat().st_size // 4 // T
        M = np.zeros((T, numel), dtype=np.float32)
        for t in range(T):
            M[t] = functions["load_delta_row"](path, (numel,), t, np.float32)
        V, S, U, _ = functions["compute_svd"](M, 1)
        del M
        C = (U * S[np.newaxis, :]).astype(np.float32)
        slopes, intercepts = functions["fit_linear"](C)
        at = T - 1 + (TARGET - T)
        c = (slopes * at + intercepts).astype(np.float32)
        predictions[path.stem] = c @ V.T
    np.savez(out, **predictions)
    return time.perf_counter() - begun, peak_mb() - before


def _official_functions(path: Path) -> dict[str, Any]:
    """Its numerical functions, without its imports of Transformers and others."""
    import ast

    tree = ast.parse(path.read_text())
    kept: list[ast.stmt] = [
        n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name in NEEDED
    ]
    space: dict[str, Any] = {"np": np, "Path": Path}
    exec(compile(ast.Module(kept, []), str(path), "exec"), space)
    return space


def difference(ours: Path, theirs: Path) -> float:
    """Largest difference of the predicted changes, over the largest change."""
    from thalweg.trajectory import open_checkpoint

    start = open_checkpoint(ours.parent / "checkpoints" / "step-0.safetensors")
    predicted, worst, size = open_checkpoint(ours), 0.0, 0.0
    with np.load(theirs) as data:
        for name, info in predicted.tensors.items():
            mine = predicted.read(name, 0, info.numel).double() - start.read(name, 0, info.numel)
            other = torch.from_numpy(data[name]).double()
            worst = max(worst, float((mine - other).abs().max()))
            size = max(size, float(other.abs().max()))
    return worst / size


TASKS = {"read": read, "fit": fit, "predict": predict, "official": official}

if __name__ == "__main__":
    sys.exit(main())
