"""What recording costs: recorded over bare time, beside Cockpit, and how it grows with the model.

Each training runs in blocks, recorded and bare by turns in one process: one run at default settings
whose recorder is taken off for every other block. A ratio is the median over pairs of neighbouring
blocks after a warm-up, beside the ratio of all recorded to all bare seconds. Beside it stands a
short run of its own, about four seconds of training with opening, first times and closing.

    python -m benchmarks.overhead                   # about 6 minutes
    python -m benchmarks.overhead --peers DIR       # and Cockpit, installed with --target DIR
    python -m benchmarks.overhead --quick           # small, writes no file

Cockpit is unmaintained and wants old dependencies; it runs when put in a folder of its own:
    pip install --no-deps --target DIR cockpit-for-pytorch==1.0.2 backpack-for-pytorch einops \
        unfoldNd json-tricks pandas seaborn pytz python-dateutil six "setuptools<80"
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

import thalweg
from benchmarks.machine import facts

RESULT = Path(__file__).parent / "results" / "overhead.json"
Step = Callable[[], None]


def mlp(width: int = 256, batch: int = 128) -> tuple[nn.Module, torch.optim.Optimizer, Step]:
    """64-width-width-10, Adam: about a millisecond a step at width 256."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(64, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 10)
    )
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    x, y = torch.randn(2048, 64), torch.randint(0, 10, (2048,))

    def step() -> None:
        chosen = torch.randint(0, len(x), (batch,))
        optimizer.zero_grad()
        F.cross_entropy(model(x[chosen]), y[chosen]).backward()
        optimizer.step()

    return model, optimizer, step


def digits_cnn() -> tuple[nn.Module, torch.optim.Optimizer, Step]:
    """The step of examples/digits_cnn.py at its defaults."""
    example = import_module("examples.digits_cnn")
    torch.manual_seed(0)
    net = example.Net(32)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-4)
    images, labels = example.load_digits(return_X_y=True)
    x = torch.tensor(images, dtype=torch.float32).view(-1, 1, 8, 8) / 16
    y = torch.tensor(labels)

    def step() -> None:
        chosen = torch.randint(0, len(x), (64,))
        optimizer.zero_grad()
        F.cross_entropy(net(x[chosen]), y[chosen]).backward()
        optimizer.step()

    return net, optimizer, step


def char_transformer() -> tuple[nn.Module, torch.optim.Optimizer, Step]:
    """The step of examples/char_transformer.py: 2.5 M parameters, two micro-batches, clipping."""
    example = import_module("examples.char_transformer")
    torch.manual_seed(0)
    model = example.CharTransformer(96, 64, 224, 4, 4)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.1)
    tokens = torch.randint(0, 96, (100_000,))

    def step() -> None:
        for _ in range(2):
            start = torch.randint(0, len(tokens) - 65, (8,))
            rows = torch.stack([tokens[int(s) : int(s) + 65] for s in start])
            loss = F.cross_entropy(model(rows[:, :-1]).flatten(0, 1), rows[:, 1:].flatten())
            (loss / 2).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return model, optimizer, step


def timed(step: Step, steps: int) -> float:
    """Seconds for so many steps."""
    start = time.perf_counter()
    for _ in range(steps):
        step()
    return time.perf_counter() - start


def compare(build: Callable[[], Any], *, block_s: float, pairs: int) -> dict[str, Any]:
    """Recorded over bare time: a run whose recorder is paused for every other block."""
    model, optimizer, step = build()
    timed(step, 5)
    pace = timed(step, 10) / 10
    steps = max(3, round(block_s / pace))
    ratios, bare_s, recorded_s = [], 0.0, 0.0
    with tempfile.TemporaryDirectory() as folder:
        with thalweg.record(model, optimizer, f"{folder}/run") as run:
            timed(step, max(60, steps))  # first times of everything
            for _ in range(pairs):
                gc.collect()
                recorded = timed(step, steps)
                with run.paused():
                    bare = timed(step, steps)
                ratios.append(recorded / bare)
                bare_s += bare
                recorded_s += recorded
        read = thalweg.Run(run.path)
        said, records = read.header["overhead"], len(read.series("grad_norm")[0])
        short = short_run(model, optimizer, step, max(60, round(4.0 / pace)))
    return {
        "parameters": sum(p.numel() for p in model.parameters()),
        "pairs": pairs,
        "steps_per_block": steps,
        "bare_ms_per_step": 1e3 * bare_s / (pairs * steps),
        "ratio": statistics.median(ratios),
        "ratio_quartiles": _quartiles(ratios),
        "ratio_of_sums": recorded_s / bare_s,
        "overhead_said_by_the_run": said["achieved"],
        "steps_per_full_record": pairs * steps / max(1, records),
        **short,
    }


def short_run(
    model: nn.Module, optimizer: torch.optim.Optimizer, step: Step, steps: int
) -> dict[str, Any]:
    """A whole run of its own, opening and closing included, between two bare stretches."""
    ratios = []
    for _ in range(3):
        bare = timed(step, steps)
        with tempfile.TemporaryDirectory() as folder:
            opening = time.perf_counter()
            with thalweg.record(model, optimizer, f"{folder}/run"):
                timed(step, steps)
            whole = time.perf_counter() - opening
        bare = 0.5 * (bare + timed(step, steps))
        ratios.append(whole / bare)
    return {"short_run_steps": steps, "short_run_ratio": statistics.median(ratios)}


def held_bytes(build: Callable[[], Any]) -> dict[str, Any]:
    """Tensor memory that recording holds beyond the training's own, in units of the parameters."""
    model, optimizer, step = build()
    timed(step, 3)
    sizes = []
    for record in (False, True):
        with tempfile.TemporaryDirectory() as folder:
            context = thalweg.record(model, optimizer, f"{folder}/run", overhead=10.0)
            with context if record else nullcontext():
                timed(step, 5)
                gc.collect()
                sizes.append(_tensor_bytes())
    parameters = sum(p.numel() * p.element_size() for p in model.parameters())
    return {"extra_bytes": sizes[1] - sizes[0], "per_parameter_byte": _ratio(sizes, parameters)}


def _ratio(sizes: list[int], parameters: int) -> float:
    return (sizes[1] - sizes[0]) / parameters


def _tensor_bytes() -> int:
    storages = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # lazily deprecated attributes of whatever gc finds
        for thing in gc.get_objects():
            if isinstance(thing, torch.Tensor):
                storage = thing.untyped_storage()
                storages[storage.data_ptr()] = storage.nbytes()
    return sum(storages.values())


def cockpit(preset: str, interval: int, *, pairs: int, steps: int) -> dict[str, Any]:
    """One of Cockpit's presets, tracking every so many steps, on the same MLP."""
    from backpack import extend  # pyright: ignore[reportMissingImports]
    from cockpit import Cockpit  # pyright: ignore[reportMissingImports]
    from cockpit.utils import schedules  # pyright: ignore[reportMissingImports]
    from cockpit.utils.configuration import configuration  # pyright: ignore[reportMissingImports]

    model, optimizer, _ = mlp()
    x, y = torch.randn(2048, 64), torch.randint(0, 10, (2048,))
    model, loss_fn = extend(model), extend(nn.CrossEntropyLoss())
    each = nn.CrossEntropyLoss(reduction="none")
    quantities = configuration(preset, track_schedule=schedules.linear(interval))
    watch = Cockpit(model.parameters(), quantities=quantities)
    count = 0

    def step() -> None:
        nonlocal count
        chosen = torch.randint(0, len(x), (128,))
        optimizer.zero_grad()
        prediction = model(x[chosen])
        loss, losses = loss_fn(prediction, y[chosen]), each(prediction, y[chosen])
        info = {
            "batch_size": 128,
            "individual_losses": losses,
            "loss": loss,
            "optimizer": optimizer,
        }
        with watch(count, info=info):
            loss.backward(create_graph=watch.create_graph(count))
        optimizer.step()
        count += 1

    _, _, bare = mlp()
    ratios = []
    for pair in range(-1, pairs):  # the first pair warms up
        bare_s, watched_s = timed(bare, steps), timed(step, steps)
        if pair >= 0:
            ratios.append(watched_s / bare_s)
    return {
        "ratio": statistics.median(ratios),
        "ratio_quartiles": _quartiles(ratios),
        "pairs": pairs,
        "steps_per_block": steps,
    }


def _quartiles(values: list[float]) -> list[float]:
    return [float(q) for q in statistics.quantiles(values, n=4)[::2]]


def main(arguments: list[str] | None = None) -> None:
    """Runs the benchmark and writes its result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--peers", help="folder that holds Cockpit and what it needs")
    parser.add_argument("--pairs", type=int, default=50)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    sys.path.insert(0, str(Path(__file__).parent.parent))
    pairs, block_s = (4, 0.3) if options.quick else (options.pairs, 0.6)

    result: dict[str, Any] = {
        "command": "python -m benchmarks.overhead",
        **facts("torch", "pyarrow"),
    }
    result["trainings"] = {}
    for name, build in (
        ("mlp 64-256-256-10", mlp),
        ("digits_cnn", digits_cnn),
        ("char_transformer", char_transformer),
    ):
        row = compare(build, block_s=block_s, pairs=pairs)
        result["trainings"][name] = row
        low, high = row["ratio_quartiles"]
        print(
            f"{name:20} {row['bare_ms_per_step']:8.2f} ms/step   recorded / bare "
            f"{row['ratio']:.3f} [{low:.3f}, {high:.3f}], of sums {row['ratio_of_sums']:.3f}   "
            f"short run {row['short_run_ratio']:.3f}",
            flush=True,
        )
    result["growth"] = {}
    for factor, width in ((1, 256), (4, 544), (16, 1120)):
        row = compare(lambda w=width: mlp(w), block_s=block_s, pairs=max(4, pairs // 2))
        row |= held_bytes(lambda w=width: mlp(w))
        result["growth"][f"{factor}x"] = row
        print(
            f"{factor:3}x parameters ({row['parameters']:9,})  recorded / bare {row['ratio']:.3f}  "
            f"memory held {row['per_parameter_byte']:.2f} x parameter bytes",
            flush=True,
        )
    if options.peers:
        sys.path.append(options.peers)
        warnings.simplefilter("ignore")
        peer = result["cockpit-for-pytorch 1.0.2, mlp 64-256-256-10"] = {}
        for preset, interval in (("economy", 16), ("full", 64)):
            row = cockpit(preset, interval, pairs=5, steps=64 if options.quick else 512)
            peer[f"{preset}, every {interval} steps"] = row
            print(f"Cockpit {preset}, every {interval} steps: {row['ratio']:.2f}", flush=True)
    if not options.quick:
        RESULT.write_text(json.dumps(result, indent=1) + "\n")
        print(f"wrote {RESULT.name}")


if __name__ == "__main__":
    main()
