"""What GrokAlign's penalty adds to a training step, beside the public codes.

Forward, backward and step of SGD with the penalty on the whole batch. Methods take turns, block
after block, in an order that is shuffled; ratios are medians of the ratios within blocks. Beside it
stand ``jacobian_regularizer`` (facebookresearch; half the squared norm, from outputs that the step
has anyway) and the authors' class of today, which also penalises the offset f(x) − J_x x, whole and
with its Jacobian term alone. One process, one thread.

    python -m benchmarks.grokalign                # ours only; writes no file
    python -m benchmarks.grokalign --peers DIR    # with both codes in DIR: about two minutes
    python -m benchmarks.grokalign --quick        # small, writes no file

DIR holds the package ``jacobian`` of facebookresearch/jacobian_regularizer, and
``official_grokalign.py``, the file regularization/grokalign.py of ThomasWalker1/GrokAlign.
"""

from __future__ import annotations

import argparse
import itertools
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
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.machine import facts
from thalweg.losses import GrokAlign, jacobian_norm

RESULT = Path(__file__).parent / "results" / "grokalign.json"
WEIGHT, BLOCKS = 1e-3, 60
#: Widths of a ReLU net, and its batch.
CASES: dict[str, tuple[tuple[int, ...], int]] = {
    "XOR net 2000-64-1, batch 200": ((2000, 64, 1), 200),
    "MLP 784-256-256-10, batch 128": ((784, 256, 256, 10), 128),
    "MLP 784-1024-1024-10, batch 128": ((784, 1024, 1024, 10), 128),
}
#: The loss of a batch (x, y) with its penalty.
Loss = Callable[[Tensor, Tensor], Tensor]


def task(out: Tensor, y: Tensor) -> Tensor:
    """Squared error of one output, cross-entropy of several."""
    return F.mse_loss(out.squeeze(1), y.to(out)) if out.shape[1] == 1 else F.cross_entropy(out, y)


def methods(model: nn.Module, peers: str | None) -> dict[str, Loss]:
    """Losses of the model by name."""

    def ours(**options: Any) -> Loss:
        penalty = GrokAlign(model, weight=WEIGHT, **options)
        return lambda x, y: task(model(x), y) + penalty(x)

    def shared(**options: Any) -> Loss:
        penalty = GrokAlign(model, weight=WEIGHT, **options)

        def loss(x: Tensor, y: Tensor) -> Tensor:
            x = x.detach().requires_grad_()
            out = model(x)
            return task(out, y) + penalty(x, out=out)

        return loss

    found: dict[str, Loss] = {
        "no penalty": lambda x, y: task(model(x), y),
        "thalweg GrokAlign, 1 projection": ours(),
        "thalweg GrokAlign, 1 projection, 32 samples": ours(max_samples=32),
        "thalweg GrokAlign, exact": ours(exact=True),
        "thalweg GrokAlign, 1 projection, out given": shared(),
        "thalweg GrokAlign, exact, out given": shared(exact=True),
    }
    if peers is None:
        return found
    sys.path.insert(0, peers)
    regularizer: Any = import_module("jacobian").JacobianReg
    official: Any = import_module("official_grokalign").GrokAlign

    def regularized(projections: int) -> Loss:
        penalty = regularizer(projections)

        def loss(x: Tensor, y: Tensor) -> Tensor:
            x = x.detach().requires_grad_()
            out = model(x)
            return task(out, y) + WEIGHT * penalty(x, out)

        return loss

    def jacobian_term(x: Tensor, y: Tensor) -> Tensor:
        x = x.detach().requires_grad_()
        out = model(x)
        term = official(model, None, WEIGHT).compute_jacobian_norm(x, out)
        return task(out, y) + WEIGHT * term

    return found | {
        "jacobian_regularizer, 1 projection": regularized(1),
        "jacobian_regularizer, exact": regularized(-1),
        "official GrokAlign, with its offset term": lambda x, y: official(
            model, lambda out: task(out, y), WEIGHT
        )(x.detach().clone()),
        "official GrokAlign, its Jacobian term alone": jacobian_term,
    }


def agreement(model: nn.Module, x: Tensor, peers: str) -> float:
    """Largest relative difference from jacobian_regularizer of half the mean squared norm."""
    sys.path.insert(0, peers)
    x = x.detach().requires_grad_()
    theirs = import_module("jacobian").JacobianReg(-1)(x, model(x))
    mine = 0.5 * jacobian_norm(model, x, exact=True).square().mean()
    return float(((mine - theirs) / theirs).detach().abs())


def timed(widths: tuple[int, ...], batch: int, blocks: int, peers: str | None) -> dict[str, Any]:
    """Seconds of a training step and ratios to the step without penalty, all in turn."""
    model = nn.Sequential()
    for into, out in itertools.pairwise(widths):
        model += nn.Sequential(nn.Linear(into, out, bias=False), nn.ReLU())
    model.pop(-1)
    x, y = torch.randn(batch, widths[0]), torch.randint(widths[-1], (batch,))
    optimizer = torch.optim.SGD(model.parameters(), 1e-3)
    losses = methods(model, peers)
    wall: dict[str, list[float]] = {name: [] for name in losses}
    order, chance = list(losses), random.Random(0)
    for block in range(blocks + 3):
        chance.shuffle(order)
        for name in order:
            start = time.perf_counter()
            optimizer.zero_grad()
            losses[name](x, y).backward()
            optimizer.step()
            if block >= 3:
                wall[name].append(time.perf_counter() - start)
    rows: dict[str, Any] = {}
    for name in losses:
        ratios = [a / b for a, b in zip(wall[name], wall["no penalty"], strict=True)]
        low, _, high = statistics.quantiles(ratios, n=4)
        rows[name] = {
            "wall_s": statistics.median(wall[name]),
            "ratio": statistics.median(ratios),
            "ratio_quartiles": [low, high],
        }
    found: dict[str, Any] = {"methods": rows}
    if peers is not None:
        found["relative_difference"] = agreement(model, x, peers)
    return found


def main(argv: list[str] | None = None) -> None:
    """Runs and, with the peers, writes the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peers", help="folder with both public codes")
    parser.add_argument("--quick", action="store_true", help="small, writes no file")
    asked = parser.parse_args(argv)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    busy, blocks = os.getloadavg(), 3 if asked.quick else BLOCKS
    found = {
        name: timed(widths, batch, blocks, asked.peers) for name, (widths, batch) in CASES.items()
    }
    result = {"blocks": blocks, "load_average": [busy[0], os.getloadavg()[0]], "found": found}
    print(json.dumps(result, indent=2))
    if asked.peers is not None and not asked.quick:
        head = {"command": "python -m benchmarks.grokalign --peers DIR", **facts("torch")}
        RESULT.write_text(json.dumps({**head, **result}, indent=2) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
