"""Does round-off explain what the prediction of laws leaves, and what does following them cost?

A character transformer trains in float32 by SGD with momentum and weight decay, and all its laws
are followed: (a) what the prediction leaves of each beside the round-off that rounding the weights
explains; (b) for ten million parameters the time of ``LawMonitor.step`` beside that of forward,
backward and SGD, in turns within the same steps, for two sizes of the batch. One thread.

    python -m benchmarks.law_monitor           # about five minutes
    python -m benchmarks.law_monitor --quick   # small, writes no file
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.machine import facts
from thalweg.laws import LawMonitor, known_laws

RESULT = Path(__file__).parent / "results" / "law_monitor.json"
SGD: dict[str, Any] = {"lr": 0.05, "momentum": 0.9, "weight_decay": 1e-3}


def transformer(context: int, dim: int, depth: int) -> tuple[torch.nn.Module, Tensor]:
    """The example's character transformer, untied, and the text that it learns."""
    sys.path.insert(0, str(Path(__file__).parent.parent))
    example = import_module("examples.char_transformer")
    text = example.docstrings(200_000)
    code = {c: i for i, c in enumerate(sorted(set(text)))}
    model = example.CharTransformer(len(code), context, dim, depth, 4)
    model.head = torch.nn.Linear(dim, len(code), bias=False)
    return model, torch.tensor([code[c] for c in text])


def batches(tokens: Tensor, batch: int, context: int, number: int) -> list[Tensor]:
    """Windows of the text, (batch, context + 1) each."""
    generator = torch.Generator().manual_seed(0)
    starts = torch.randint(len(tokens) - context - 1, (number, batch), generator=generator)
    return [tokens[s[:, None] + torch.arange(context + 1)] for s in starts]


def roundoff(*, batch: int, context: int, dim: int, depth: int, steps: int) -> dict[str, Any]:
    """Residual ÷ round-off of every law, by family."""
    model, tokens = transformer(context, dim, depth)
    data = batches(tokens, batch, context, steps)
    laws = known_laws(model, data[0][:, :-1], loss="cross-entropy")
    optimizer = torch.optim.SGD(model.parameters(), **SGD)
    losses = []
    with LawMonitor(model, laws, optimizer) as monitor:
        for rows in data:
            loss = F.cross_entropy(model(rows[:, :-1]).flatten(0, 1), rows[:, 1:].flatten())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    exact: list[np.ndarray] = []
    kinds: dict[str, dict[str, list[np.ndarray]]] = {}
    for reading in monitor.readings():
        law = reading.law
        ratio = abs(reading.residual) / np.maximum(reading.roundoff, np.finfo(float).tiny)
        kind = law.name.partition(":")[0] + (", but for ε" if "eps" in law.note else "")
        row = kinds.setdefault(kind, {"ratio": [], "residual": [], "drift": []})
        row["ratio"].append(ratio)
        row["residual"].append(abs(reading.residual) / reading.scale)
        row["drift"].append(abs(reading.drift) / reading.scale)
        if "eps" not in law.note:
            exact.append(ratio)
    return {
        "parameters": sum(p.numel() for p in model.parameters()),
        "steps": steps,
        "sgd": SGD,
        "first_loss": round(losses[0], 3),
        "last_loss": round(losses[-1], 3),
        "families": len(laws),
        "exact_laws": _spread(np.concatenate(exact)),
        "kinds": {
            kind: {
                **_spread(np.concatenate(row["ratio"])),
                "max_relative_residual": float(np.concatenate(row["residual"]).max()),
                "max_relative_drift": float(np.concatenate(row["drift"]).max()),
            }
            for kind, row in kinds.items()
        },
    }


def _spread(ratio: np.ndarray) -> dict[str, float]:
    return {
        "laws": len(ratio),
        "median_over_roundoff": round(float(np.median(ratio)), 3),
        "max_over_roundoff": round(float(ratio.max()), 3),
    }


def cost(*, batch: int, context: int, dim: int, depth: int, steps: int) -> dict[str, Any]:
    """Seconds of following all laws beside those of a training step."""
    model, tokens = transformer(context, dim, depth)
    data = batches(tokens, batch, context, steps)
    laws = known_laws(model, data[0][:, :-1], loss="cross-entropy")
    params = dict(model.named_parameters())
    optimizer = torch.optim.SGD(model.parameters(), **SGD)
    begun = time.perf_counter()
    monitor = LawMonitor(model, laws, optimizer, hooks=False)
    made = time.perf_counter() - begun
    trained, followed = [], []
    for rows in data:
        start = time.perf_counter()
        loss = F.cross_entropy(model(rows[:, :-1]).flatten(0, 1), rows[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        middle = time.perf_counter()
        monitor.step()
        trained.append(middle - start)
        followed.append(time.perf_counter() - middle)
    start = time.perf_counter()
    monitor.readings()
    read = time.perf_counter() - start
    ratio = np.array(followed[2:]) / np.array(trained[2:])
    return {
        "parameters": sum(p.numel() for p in model.parameters()),
        "batch": batch,
        "context": context,
        "laws": sum(law.count(params) for law in laws),
        "families": len(laws),
        "steps": steps,
        "step_ms": round(1e3 * float(np.median(trained[2:])), 2),
        "follow_ms": round(1e3 * float(np.median(followed[2:])), 3),
        "share": round(float(np.median(ratio)), 5),
        "share_quartiles": [round(float(q), 5) for q in np.quantile(ratio, [0.25, 0.75])],
        "start_ms": round(1e3 * made, 1),
        "read_ms": round(1e3 * read, 1),
    }


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Runs and writes the result."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.law_monitor", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small, no file")
    quick = parser.parse_args(argv).quick
    torch.set_num_threads(1)
    torch.manual_seed(0)
    size = {"context": 32, "dim": 32, "depth": 1} if quick else {"context": 64, "depth": 4}
    large = {**size} if quick else {"context": 128, "dim": 448, "depth": 4}
    result = {
        "command": "python -m benchmarks.law_monitor",
        **facts("torch"),
        "roundoff": roundoff(batch=8, steps=20 if quick else 200, **{"dim": 224, **size}),
        "cost": [
            cost(batch=batch, steps=8 if quick else steps, **large)
            for batch, steps in ((8, 24), (32, 12))
        ],
    }
    text = json.dumps(result, indent=2)
    print(text)
    if not quick:
        RESULT.write_text(text + "\n")
    return result


if __name__ == "__main__":
    main(sys.argv[1:])
