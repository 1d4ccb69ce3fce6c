"""Two checkpoints of 110 million parameters compared: how long, how much memory, the same figures?

A decoder of 12 layers, width 768, 32,000 tokens, in bfloat16 and two shards, and the same with a
change of every matrix. ``thalweg diff`` with exact spectra and noise beside every figure, on one
thread and on two; and, if it is there, the script of SydCS/OPD-Param-Analysis, which takes single
precision decompositions and has no noise to compare with. Each in a process of its own.

    python -m benchmarks.checkpoint_diff                   # thalweg alone, some minutes
    python -m benchmarks.checkpoint_diff --peers DIR       # and DIR/analyze_opd_delta.py
    python -m benchmarks.checkpoint_diff --quick           # a small pair, writes no file
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from benchmarks.machine import facts

RESULT = Path(__file__).parent / "results" / "checkpoint_diff.json"
PEER = "analyze_opd_delta.py"


def decoder(
    dim: int, hidden: int, layers: int, vocab: int
) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and shapes, the head tied to the embedding."""
    yield "model.embed_tokens.weight", (vocab, dim)
    for i in range(layers):
        at = f"model.layers.{i}."
        for part in "qkvo":
            yield f"{at}self_attn.{part}_proj.weight", (dim, dim)
        for part in ("gate", "up"):
            yield f"{at}mlp.{part}_proj.weight", (hidden, dim)
        yield f"{at}mlp.down_proj.weight", (dim, hidden)
        yield f"{at}input_layernorm.weight", (dim,)
    yield "model.norm.weight", (dim,)


def write(folder: Path, shapes: dict[str, tuple[int, ...]], move: float) -> int:
    """One checkpoint in two shards; its parameters."""
    weights, change = (torch.Generator().manual_seed(seed) for seed in (0, 1))
    state: dict[str, Tensor] = {}
    for name, shape in shapes.items():
        w = torch.ones(shape)
        if len(shape) == 2:
            # A few strong directions on a broad spectrum, as trained weights have.
            w = 0.02 * torch.randn(shape, generator=weights)
            strong = torch.randn(shape[0], 8, generator=weights)
            w += 0.01 * strong @ torch.randn(8, shape[1], generator=weights)
            w = w.bfloat16().float()
            if move:
                w += move * torch.randn(shape, generator=change)
        state[name] = w.bfloat16()
    folder.mkdir(parents=True)
    names, where = list(state), {}
    for i, part in enumerate((names[: len(names) // 2], names[len(names) // 2 :])):
        file = f"model-0000{i + 1}-of-00002.safetensors"
        save_file({n: state[n] for n in part}, folder / file)
        where |= dict.fromkeys(part, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    return sum(t.numel() for t in state.values())


def timed(command: list[str], threads: int, log: Path, path: str = "") -> dict[str, float]:
    """Wall time, processor time and largest memory of a process."""
    paths = os.pathsep.join(p for p in (path, os.environ.get("PYTHONPATH", "")) if p)
    env = {**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONPATH": paths}
    start = time.perf_counter()
    with log.open("w") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.DEVNULL, env=env)
        _, status, used = os.wait4(process.pid, 0)
    if status:
        raise RuntimeError(f"{' '.join(command)} ended with {status}")
    return {
        "wall_s": round(time.perf_counter() - start, 1),
        "cpu_s": round(used.ru_utime + used.ru_stime, 1),
        "peak_mb": round(used.ru_maxrss / 1024),
        "load_before": round(os.getloadavg()[0], 2),
    }


def agreement(ours: Path, theirs: Path) -> dict[str, float]:
    """Largest differences of what both give, over the tensors."""
    rows = {t["name"]: t for t in json.loads(ours.read_text())["data"]["tensors"]}
    drift, equal = 0.0, 0.0
    with (theirs / "base_geometry_metrics.csv").open() as file:
        for row in csv.DictReader(file):
            mine, other = rows[row["name"]]["drift"], row["spectral_drift_l2_ratio"]
            if other:
                drift = max(drift, abs(mine / float(other) - 1))
    with (theirs / "tensor_metrics.csv").open() as file:
        for row in csv.DictReader(file):
            mine = rows[row["name"]]["sparsity"]
            equal = max(equal, abs(mine - float(row["frac_delta_eq_0"])))
    return {"drift_relative": drift, "share_equal": equal}


def run(
    quick: bool, peers: Path | None, rounds: int, done: Callable[[dict[str, object]], None]
) -> dict[str, object]:
    """Every process in turn, ``rounds`` times; the medians, told after each."""
    shape = (64, 128, 2, 500) if quick else (768, 2048, 12, 32_000)
    shapes = dict(decoder(*shape))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        base, tuned = folder / "base", folder / "tuned"
        parameters = write(base, shapes, 0.0)
        write(tuned, shapes, 3e-5)
        own = [sys.executable, "-m", "thalweg", "diff", str(base), str(tuned), "--json"]
        tasks: dict[str, tuple[list[str], int]] = {"thalweg diff, 2 threads": (own, 2)}
        if peers is not None:
            files = ["--src_model", str(base), "--opd_model", str(tuned), "--device", "cpu"]
            script = [sys.executable, str(peers / PEER), *files, "--out_dir", str(folder / "peer")]
            tasks["OPD-Param-Analysis, 1 thread"] = (script, 1)
        tasks["thalweg diff, 1 thread"] = (own, 1)
        tasks["thalweg diff --control none, 1 thread"] = ([*own, "--control", "none"], 1)
        measured: dict[str, list[dict[str, float]]] = {}
        result: dict[str, object] = {"parameters": parameters}
        for i in range(rounds):
            for task, (command, threads) in tasks.items():
                is_peer = command[1] != "-m"
                if i and is_peer:
                    continue  # it takes many minutes; once will do
                log = folder / f"{list(tasks).index(task)}.json"
                found = timed(command, threads, log, str(peers) if is_peer else "")
                measured.setdefault(task, []).append(found)
                if is_peer:
                    result["agreement"] = agreement(folder / "0.json", folder / "peer")
                print(task, found, flush=True)
                result["tasks"] = {name: _medians(rows) for name, rows in measured.items()}
                done(result)
    return result


def _medians(rows: list[dict[str, float]]) -> dict[str, float]:
    found = {key: sorted(row[key] for row in rows)[len(rows) // 2] for key in rows[0]}
    return found | {"rounds": len(rows)}


def main(argv: list[str] | None = None) -> None:
    """Runs and writes the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a small pair, no file")
    parser.add_argument("--peers", type=Path, help=f"folder with {PEER} and pandas")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args(argv)
    command = "python -m benchmarks.checkpoint_diff --peers DIR"
    head = {"command": command, **facts("torch")}

    def keep(result: dict[str, object]) -> None:
        if not options.quick:
            RESULT.write_text(json.dumps({**head, **result}, indent=2) + "\n")

    rounds = 1 if options.quick else options.rounds
    print(json.dumps(run(options.quick, options.peers, rounds, keep), indent=2))


if __name__ == "__main__":
    main(sys.argv[1:])
