"""Training steps with continual backprop and with ReDo, beside bare Adam and the public code.

A ReLU network of two hidden layers on random inputs and labels; methods take turns in blocks of
training steps, in an order that is shuffled, and ratios are medians of the ratios to bare Adam
within blocks. The public code is that of Dohare et al.: its continual backprop comes with an Adam
of its own that counts steps entry by entry, its ReDo leaves the optimizer's state alone. One
process, one thread.

    python -m benchmarks.unit_replacement                     # a minute
    python -m benchmarks.unit_replacement --quick             # small, writes no file
    python -m benchmarks.unit_replacement --official FOLDER   # with a checkout of
                                        # github.com/shibhansh/loss-of-plasticity
"""

from __future__ import annotations

import argparse
import json
import os
import random
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
from thalweg.optim import ContinualBackprop, ReDo

RESULT = Path(__file__).parent / "results" / "unit_replacement.json"
# Width, blocks, steps in a block.
SIZES = {"width 256": (256, 40, 20), "width 1024": (1024, 20, 10)}
QUICK = {"width 32": (32, 3, 5)}
EVERY = 100  # steps between two looks of ReDo
Step = Callable[[Tensor, Tensor], Any]


def network(width: int) -> nn.Module:
    return nn.Sequential(
        *(nn.Linear(64, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU()),
        nn.Linear(width, 10),
    )


def ours(width: int) -> dict[str, Step]:
    """Bare Adam, and the two of this package beside it."""

    def step_of(treatment: Callable[..., Any] | None) -> Step:
        model = network(width)
        adam = torch.optim.Adam(model.parameters(), foreach=True)
        treated = treatment(model, adam) if treatment is not None else None

        def step(x: Tensor, y: Tensor) -> None:
            adam.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            adam.step()
            if treated is not None:
                treated.after_step()

        return step

    def cbp(model: nn.Module, adam: torch.optim.Optimizer) -> Any:
        return ContinualBackprop(model, adam, replacement_rate=1e-3)

    def redo(model: nn.Module, adam: torch.optim.Optimizer) -> Any:
        return ReDo(model, adam, tau=0.01, every=EVERY)

    return {
        "Adam": step_of(None),
        "thalweg ContinualBackprop": step_of(cbp),
        "thalweg ReDo": step_of(redo),
    }


def official(folder: str, width: int) -> dict[str, Step]:
    """Theirs, as their experiments call it."""
    sys.path.insert(0, folder)
    net: Any = import_module("lop.nets.deep_ffnn").DeepFFNN
    learner: Any = import_module("lop.algos.cbp").ContinualBackprop
    redo: Any = import_module("lop.algos.gntRedo").GnTredo

    def model() -> Any:
        return net(64, num_features=width, num_outputs=10, num_hidden_layers=2)

    cbp = learner(
        model(),
        loss="nll",
        opt="adam",
        replacement_rate=1e-3,
        decay_rate=0.99,
        util_type="adaptable_contribution",
        accumulate=True,
    )
    recycled = model()
    adam = torch.optim.Adam(recycled.parameters(), foreach=True)
    test = redo(net=recycled.layers, hidden_activation="relu", reset_period=EVERY)

    def step(x: Tensor, y: Tensor) -> None:
        adam.zero_grad()
        out, features = recycled.predict(x)
        nn.functional.cross_entropy(out, y).backward()
        adam.step()
        with torch.no_grad():
            test.gen_and_test(torch.stack(features, 1))

    return {"official continual backprop": cbp.learn, "official ReDo": step}


def step_times(width: int, blocks: int, steps: int, folder: str | None) -> dict[str, Any]:
    """Seconds a training step and ratios to bare Adam, all in turn."""
    methods = ours(width) | ({} if folder is None else official(folder, width))
    wall: dict[str, list[float]] = {name: [] for name in methods}
    order, chance = list(methods), random.Random(0)
    for block in range(blocks + 1):
        chance.shuffle(order)
        batches = [(torch.randn(32, 64), torch.randint(10, (32,))) for _ in range(steps)]
        for name in order:
            start = time.perf_counter()
            for x, y in batches:
                methods[name](x, y)
            if block:  # the first makes the state
                wall[name].append((time.perf_counter() - start) / steps)
    rows = {}
    for name, w in wall.items():
        ratios = [a / b for a, b in zip(w, wall["Adam"], strict=True)]
        low, _, high = statistics.quantiles(ratios, n=4)
        rows[name] = {
            "step_s": statistics.median(w),
            "ratio": statistics.median(ratios),
            "ratio_quartiles": [low, high],
        }
    return {"width": width, "blocks": blocks, "steps_per_block": steps, "methods": rows}


def main(argv: list[str] | None = None) -> None:
    """Runs and writes the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small, writes no file")
    parser.add_argument("--official", help="checkout of the authors' code")
    asked = parser.parse_args(argv)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    sizes, busy = (QUICK if asked.quick else SIZES), os.getloadavg()
    found = {name: step_times(*size, asked.official) for name, size in sizes.items()}
    result = {"load_average": [busy[0], os.getloadavg()[0]], "redo_every": EVERY, "sizes": found}
    print(json.dumps(result, indent=2))
    if not asked.quick:
        head = {"command": "python -m benchmarks.unit_replacement", **facts("torch")}
        RESULT.write_text(json.dumps({**head, **result}, indent=2) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
