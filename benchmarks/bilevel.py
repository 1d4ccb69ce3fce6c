"""What a hypergradient costs, in gradients of the lower loss, beside betty and TorchOpt.

The problem is the weighting of training images: softmax regression below, one weight an image
above. Every method may take ten products with the lower Hessian (a series of ten terms takes nine,
in each package), or ten unrolled steps; how far it then is from the exact hypergradient is given
beside its time. Of betty its functions ``neumann`` and ``cg`` are called with stand-ins for its
problems, without its engine; of TorchOpt ``custom_root`` with ``solve_cg``. Interleaved blocks,
ratios within blocks. One process, one thread.

    python -m benchmarks.bilevel           # about two minutes
    python -m benchmarks.bilevel --quick   # small, writes no file

Packages that cannot be imported are left out.
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
from importlib import import_module, metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from benchmarks.machine import facts
from thalweg.numerics import eigsh, hessian_operator
from thalweg.optim import BilevelProblem, hypergradient, implicit_diff

RESULT = Path(__file__).parent / "results" / "bilevel.json"
BLOCKS, TERMS = 60, 10
#: Images, features; ten classes.
CASES = {"600 images, 650 numbers below": (600, 64), "2000 images, 5130 below": (2000, 512)}
Pair = tuple[Tensor, Tensor]


class Cleaning:
    """Softmax regression on random images whose labels are partly wrong, near its solution."""

    def __init__(self, images: int, features: int) -> None:
        teacher = torch.randn(features, 10)
        self.x = torch.randn(images + 200, features) / features**0.5 * 8
        self.labels = (self.x @ teacher).argmax(1)
        wrong = torch.rand(images) < 0.4
        self.noisy = torch.where(wrong, torch.randint(10, (images,)), self.labels[:images])
        self.weights = torch.ones(images)
        self.problem = BilevelProblem(
            lambda w, y, batch: self.upper(y), lambda w, y, batch: self.lower(w, y)
        )
        self.y: Pair = (torch.zeros(features, 10), torch.zeros(10))
        params = [t.requires_grad_() for t in self.y]
        optimizer = torch.optim.LBFGS(params, max_iter=60, line_search_fn="strong_wolfe")

        def closure() -> Tensor:
            optimizer.zero_grad()
            loss = self.lower(self.weights, self.y)
            loss.backward()
            return loss

        optimizer.step(closure)
        self.y = (self.y[0].detach(), self.y[1].detach())

    def losses(self, y: Pair, x: Tensor, labels: Tensor) -> Tensor:
        return torch.nn.functional.cross_entropy(x @ y[0] + y[1], labels, reduction="none")

    def lower(self, w: Tensor, y: Pair) -> Tensor:
        n = len(self.noisy)
        fit = (w.sigmoid() * self.losses(y, self.x[:n], self.noisy)).mean()
        return fit + 1e-2 * (y[0].square().sum() + y[1].square().sum())

    def upper(self, y: Pair) -> Tensor:
        n = len(self.noisy)
        return self.losses(y, self.x[n:], self.labels[n:]).mean()


def methods(case: Cleaning, lr: float) -> dict[str, Callable[[], Tensor]]:
    """Name to what gives a hypergradient."""

    def ours(method: Any) -> Callable[[], Tensor]:
        return lambda: hypergradient(
            case.problem, case.weights, case.y, method=method, num_terms=TERMS, lr=lr
        )

    def through(solver: Callable[..., Pair]) -> Callable[[], Tensor]:
        def gradient() -> Tensor:
            w = case.weights.clone().requires_grad_()
            return torch.autograd.grad(case.upper(solver(w)), w)[0]

        return gradient

    implicit = implicit_diff(
        lambda w, batch: case.y, lower_loss=case.problem.lower_loss, num_terms=TERMS
    )
    found = {f"thalweg {m}": ours(m) for m in ("neumann", "cg", "lsgd", "unroll")}
    found["thalweg implicit_diff, cg"] = through(implicit)
    try:
        for name in ("neumann", "cg"):
            function = getattr(import_module(f"betty.hypergradient.{name}"), name)
            found[f"betty {metadata.version('betty-ml')} {name}"] = _betty(case, function, lr)
    except ImportError:
        print("betty cannot be imported and is left out", file=sys.stderr)
    try:
        torchopt: Any = import_module("torchopt")
        found[f"TorchOpt {torchopt.__version__} cg"] = through(_torchopt(case, torchopt))
    except ImportError:
        print("torchopt cannot be imported and is left out", file=sys.stderr)
    return found


def _betty(case: Cleaning, function: Callable[..., Any], lr: float) -> Callable[[], Tensor]:
    config = SimpleNamespace(
        neumann_iterations=TERMS - 1, neumann_alpha=lr, cg_iterations=TERMS, cg_alpha=1.0
    )

    def gradient() -> Tensor:
        w = case.weights.clone().requires_grad_()
        y = tuple(t.detach().requires_grad_() for t in case.y)
        slopes = torch.autograd.grad(case.upper((y[0], y[1])), y)
        below = SimpleNamespace(
            paths=[],
            config=config,
            cur_batch=None,
            training_step_exec=lambda batch: case.lower(w, (y[0], y[1])),
            trainable_parameters=lambda: y,
            parameters=lambda: y,
        )
        above = SimpleNamespace(trainable_parameters=lambda: (w,))
        return function(slopes, below, above)[0]

    return gradient


def _torchopt(case: Cleaning, torchopt: Any) -> Callable[..., Pair]:
    implicit = import_module("torchopt.diff.implicit")
    solve = torchopt.linear_solve.solve_cg(maxiter=TERMS, rtol=0.0, atol=0.0)
    slope = torch.func.grad(lambda y, w: case.lower(w, y), argnums=0)

    @implicit.custom_root(slope, argnums=1, solve=solve)
    def solution(start: Pair, w: Tensor) -> Pair:
        return case.y

    return lambda w: solution(case.y, w)


def timed(images: int, features: int, blocks: int) -> dict[str, Any]:
    """Seconds of each method and of one lower gradient, all in turn."""
    case = Cleaning(images, features)
    top = _top(case)
    calls = methods(case, 1 / top)
    params = [t.clone().requires_grad_() for t in case.y]

    def gradient() -> Any:
        return torch.autograd.grad(case.lower(case.weights, (params[0], params[1])), params)

    exact = hypergradient(case.problem, case.weights, case.y, method="cg", num_terms=1000)
    errors = {n: float((call() - exact).norm() / exact.norm()) for n, call in calls.items()}
    wall: dict[str, list[float]] = {name: [] for name in ("gradient", *calls)}
    order, chance = list(wall), random.Random(0)
    for block in range(blocks + 2):
        chance.shuffle(order)
        for name in order:
            call: Callable[[], Any] = gradient if name == "gradient" else calls[name]
            start = time.perf_counter()
            call()
            if block >= 2:
                wall[name].append(time.perf_counter() - start)
    return {
        name: {
            "wall_s": statistics.median(wall[name]),
            "in_gradients": _ratios(wall[name], wall["gradient"]),
            "over_thalweg": _ratios(
                wall[name], wall["thalweg neumann" if "neumann" in name else "thalweg cg"]
            ),
            "relative_error": errors[name],
        }
        for name in calls
    }


def _top(case: Cleaning) -> float:
    params = [t.clone().requires_grad_() for t in case.y]
    with hessian_operator(lambda: case.lower(case.weights, (params[0], params[1])), params) as H:
        return float(eigsh(H).values[0])


def _ratios(a: list[float], b: list[float]) -> list[float]:
    """Median and quartiles of the ratios within blocks."""
    ratios = [x / y for x, y in zip(a, b, strict=True)]
    low, _, high = statistics.quantiles(ratios, n=4)
    return [statistics.median(ratios), low, high]


def main(argv: list[str] | None = None) -> None:
    """Runs and writes the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small, writes no file")
    quick = parser.parse_args(argv).quick
    torch.set_num_threads(1)
    torch.manual_seed(0)
    busy, blocks = os.getloadavg(), 3 if quick else BLOCKS
    cases = dict(list(CASES.items())[: 1 if quick else None])
    found = {name: timed(*size, blocks) for name, size in cases.items()}
    result = {"blocks": blocks, "load_average": [busy[0], os.getloadavg()[0]], "found": found}
    print(json.dumps(result, indent=2))
    if not quick:
        head = {"command": "python -m benchmarks.bilevel", **facts("torch")}
        RESULT.write_text(json.dumps({**head, **result}, indent=2) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
