"""Curvature: what products, λ_max, traces and kernels cost, beside the peers on the same matrix.

    python -m benchmarks.curvature [--peers PEERS_DIR] [--parts lambda_max traces ...]

PEERS_DIR holds curvlinops, pyhessian and hessian_eigenthings, installed with
``pip install --no-deps --target PEERS_DIR curvlinops-for-pytorch==3.0.1 pyhessian
hessian-eigenthings einops einconv backpack-for-pytorch unfoldNd
linear-operator jaxtyping wadler-lindig typeguard``; a peer that can't be imported is
left out and named. Methods are timed in turn, block after block; ratios are medians of the ratios
within blocks. Each method's time includes building its operator.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, jvp

from benchmarks.curvature_cases import Batch, conv_case, loss_fn, mlp_case, transformer_case
from benchmarks.curvature_peers import Found, pyhessian_trace_samples, top_eigenvalue_routines
from benchmarks.machine import facts
from thalweg.numerics import eigsh, entk_gram, hessian_operator, hvp, trace

RESULTS = Path(__file__).parent / "results" / "curvature.json"
TOL = 1e-3
WIDTHS = (256, 512, 1024, 2048)
CASES = {"mlp": mlp_case, "conv": conv_case, "transformer": transformer_case}
PARTS = ("lambda_max", "products", "kernels", "growth", "traces")
STDERRS = (0.05, 0.02, 0.01)


def interleaved(methods: dict[str, Callable[[], Any]], blocks: int) -> dict[str, list[float]]:
    """Seconds of each method in each block, after one warm-up of each."""
    wall: dict[str, list[float]] = {name: [] for name in methods}
    for block in range(blocks + 1):
        for name, method in methods.items():
            begin = time.perf_counter()
            method()
            if block:
                wall[name].append(time.perf_counter() - begin)
    return wall


def summary(wall: dict[str, list[float]], reference: str) -> dict[str, dict[str, float]]:
    return {
        name: {
            "wall_s": statistics.median(times),
            f"over_{reference}": statistics.median(
                a / b for a, b in zip(times, wall[reference], strict=True)
            ),
        }
        for name, times in wall.items()
    }


def products(model: nn.Module, batch: Batch, blocks: int) -> dict[str, Any]:
    """One Hessian-vector product against the floor of two gradients.

    The third way, forward mode over reverse, is what ``torch.func`` offers; it is not used here.
    """
    params = list(model.parameters())
    weights = {name: p.detach() for name, p in model.named_parameters()}
    v = torch.randn(sum(p.numel() for p in params))
    pieces = v.split([p.numel() for p in params])
    tangent = {n: t.view_as(w) for (n, w), t in zip(weights.items(), pieces, strict=True)}

    def two_gradients() -> None:
        for _ in range(2):
            torch.autograd.grad(loss_fn(model, batch), params)

    def loss_of(w: dict[str, Tensor]) -> Tensor:
        return nn.functional.cross_entropy(functional_call(model, w, (batch[0],)), batch[1])

    with hessian_operator(lambda: loss_fn(model, batch), params) as H:
        fresh = hessian_operator(lambda: loss_fn(model, batch), params, retain=False)
        wall = interleaved(
            {
                "two_gradients": two_gradients,
                "retained": lambda: H.matvec(v),
                "not_retained": lambda: fresh.matvec(v),
                "forward_over_reverse": lambda: jvp(grad(loss_of), (weights,), (tangent,)),
            },
            blocks,
        )
    return summary(wall, "two_gradients")


def growth(blocks: int) -> list[dict[str, float]]:
    """λ_max and one product as the MLP is widened, on the same 256 digits."""
    rows = []
    for width in WIDTHS:
        torch.manual_seed(0)
        model, batch = mlp_case(width)
        products_spent: list[int] = []

        def top(model: nn.Module = model, batch: Batch = batch) -> None:
            with hvp(model, loss_fn, batch) as H:
                products_spent.append(eigsh(H, tol=TOL).num_matvecs)  # noqa: B023

        with hvp(model, loss_fn, batch) as H:
            v = torch.randn(H.dim)
            wall = interleaved({"product": partial(H.matvec, v), "lambda_max": top}, blocks)
            size = H.dim
        medians = {name: statistics.median(times) for name, times in wall.items()}
        rows.append(
            {
                "parameters": size,
                "matvecs": products_spent[-1],
                **{f"{name}_s": t for name, t in medians.items()},
                **{f"{name}_ns_per_parameter": 1e9 * t / size for name, t in medians.items()},
            }
        )
    return rows


def top_eigenvalue(
    model: nn.Module, batch: Batch, blocks: int, missing: dict[str, str]
) -> dict[str, Any]:
    """λ_max to a relative residual of 1e-3, which is checked here and not taken on trust.

    Each peer runs at the loosest of its settings that reaches it. Only ours also bounds the
    probability that a larger eigenvalue was missed. Attention takes its plain kernel for all.
    """
    exact = hvp(model, loss_fn, batch)

    def residual(value: float, vector: Tensor) -> float:
        unit = vector / vector.norm()
        return (exact.matvec(unit) - value * unit).norm().item() / abs(value)

    def ours(tol: float) -> Found:
        with hvp(model, loss_fn, batch) as H:
            top = eigsh(H, tol=tol)
        probability.append(top.probability)
        return top.values[0].item(), top.vectors[:, 0], top.num_matvecs

    probability: list[float] = []
    methods: dict[str, tuple[Callable[[float], Found], list[float]]] = {"thalweg": (ours, [TOL])}
    methods |= top_eigenvalue_routines(model, batch, missing)
    chosen: dict[str, Callable[[], Found]] = {}
    figures: dict[str, dict[str, Any]] = {}
    for name, (method, settings) in methods.items():
        for setting in settings:
            try:
                value, vector, matvecs = method(setting)
            except Exception as error:  # a peer that breaks here is left out, and named
                missing[f"{name}, λ_max"] = f"{type(error).__name__}: {error}"[:200]
                break
            error = residual(value, vector)
            figures[name] = {
                "setting": setting,
                "value": value,
                "relative_residual": error,
                "matvecs": matvecs,
            }
            chosen[name] = lambda method=method, setting=setting: method(setting)
            if error <= TOL:
                break
    wall = interleaved(chosen, blocks)
    for name, timing in summary(wall, "thalweg").items():
        figures[name] |= timing
    figures["thalweg"]["probability"] = probability[-1]
    return figures


def traces(model: nn.Module, batch: Batch, seeds: int, missing: dict[str, str]) -> dict[str, Any]:
    """Products until the standard error is 5, 2 and 1 % of the trace, and how far off that is.

    The peer has no such rule: its samples are stopped where theirs first is, from 8 on as ours.
    """
    figures: dict[str, Any] = {}
    with hvp(model, loss_fn, batch) as H:
        true = trace(H, "xtrace", 400, torch.Generator().manual_seed(12345))
        figures["trace"], figures["trace_stderr"] = true
        for method in ("xtrace", "hutch++", "hutchinson"):
            for goal in STDERRS:
                runs = []
                for seed in range(seeds):
                    before = H.num_matvecs
                    g = torch.Generator().manual_seed(seed)
                    found = trace(H, method, None, g, rel_stderr=goal, max_matvecs=900)
                    runs.append((H.num_matvecs - before, *found))
                figures.setdefault(f"thalweg {method}", {})[f"{goal:.0%}"] = _spent(runs, true[0])
    try:
        samples = [pyhessian_trace_samples(model, batch, seed, 900) for seed in range(seeds)]
    except Exception as error:
        missing["pyhessian, trace"] = f"{type(error).__name__}: {error}"[:200]
        return figures
    for goal in STDERRS:
        runs = []
        for x in samples:
            n = np.arange(1, len(x) + 1)
            mean = np.cumsum(x) / n
            spread = np.maximum(np.cumsum(x**2) / n - mean**2, 0) * n / np.maximum(n - 1, 1)
            error = np.sqrt(spread / n)
            met = np.flatnonzero((error <= goal * np.abs(mean)) & (n >= 8))
            if len(met):
                runs.append((int(n[met[0]]), float(mean[met[0]]), float(error[met[0]])))
        figures.setdefault("pyhessian", {})[f"{goal:.0%}"] = _spent(runs, true[0])
    return figures


def _spent(runs: list[tuple[int, float, float]], true: float) -> dict[str, float]:
    """Products, stated and true error of runs (products, value, standard error)."""
    count = len(runs)
    return {
        "runs": count,
        "matvecs": statistics.median(m for m, _, _ in runs),
        "stated_rms_error": (sum(e * e for _, _, e in runs) / count) ** 0.5 / abs(true),
        "true_rms_error": (sum((v - true) ** 2 for _, v, _ in runs) / count) ** 0.5 / abs(true),
    }


def kernels(model: nn.Module, x: Tensor, blocks: int) -> dict[str, Any]:
    """The kernel of 100 inputs and 10 outputs against the gradient of each of the 1000 in turn.

    The loop goes forward once for each sample, and backward through that sample alone.
    """
    params = list(model.parameters())

    def loop() -> Tensor:
        rows = []
        for out in (out for sample in x for out in model(sample[None]).reshape(-1)):
            grads = torch.autograd.grad(out, params, retain_graph=True)
            rows.append(torch.cat([g.reshape(-1) for g in grads]))
        J = torch.stack(rows)
        return J @ J.T

    torch.testing.assert_close(entk_gram(model, x), loop(), rtol=1e-3, atol=1e-3)
    wall = interleaved({"thalweg": lambda: entk_gram(model, x), "loop": loop}, blocks)
    return summary(wall, "thalweg")


def main(arguments: list[str] | None = None) -> None:
    """Measures the parts asked for, each written as soon as it is done."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.curvature")
    parser.add_argument("--peers", help="folder that holds the peers")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    options = parser.parse_args(arguments)
    if options.peers:
        sys.path.append(options.peers)
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    results: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    results["command"] = "OMP_NUM_THREADS=1 python -m benchmarks.curvature --peers PEERS_DIR"
    results |= facts("torch", "scipy")
    missing: dict[str, str] = {}
    for part in options.parts:
        torch.manual_seed(0)
        if part == "growth":
            results[part] = growth(3)
        elif part == "traces":
            results[part] = traces(*mlp_case(), 20, missing)
        else:
            results[part] = {}
            for name in ("mlp", "conv") if part == "kernels" else ("mlp", "transformer"):
                model, batch = CASES[name]()
                blocks = 5 if name == "transformer" else 15
                if part == "products":
                    found = products(model, batch, blocks)
                elif part == "lambda_max":
                    found = top_eigenvalue(model, batch, blocks, missing)
                else:
                    found = kernels(model, batch[0][:100], 3)
                size = sum(p.numel() for p in model.parameters())
                results[part][name] = {"parameters": size, "methods": found}
        results.setdefault("missing", {})[part] = dict(missing)
        RESULTS.write_text(json.dumps(results, indent=1) + "\n")
        print(part, json.dumps(results[part], indent=1), flush=True)
    print(f"wrote {RESULTS.name}; peers that could not be imported: {missing}")


if __name__ == "__main__":
    main()
