"""Curvature: what products, λ_max, traces and kernels cost, beside the peers on the same matrix.

    python -m benchmarks.curvature [--peers PEERS_DIR]

PEERS_DIR holds curvlinops, pyhessian and hessian_eigenthings, installed with
``pip install --no-deps --target PEERS_DIR curvlinops-for-pytorch==3.0.1 pyhessian
hessian-eigenthings einops einconv backpack-for-pytorch unfoldNd``; a peer that can't be imported is
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
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks.machine import facts
from thalweg.numerics import eigsh, entk_gram, hessian_operator, hvp, trace

RESULTS = Path(__file__).parent / "results" / "curvature.json"
TOL = 1e-3
Batch = tuple[Tensor, Tensor]
Found = tuple[float, Tensor, int | None]
"""Eigenvalue, eigenvector (P,), products if the routine tells."""


class Transformer(nn.Module):
    """Four blocks, causal, 2.5 M parameters; gives one row of logits per token."""

    def __init__(self, vocab: int = 256, width: int = 224, depth: int = 4) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocab, width)
        block = nn.TransformerEncoderLayer(
            width, 4, 4 * width, dropout=0.0, batch_first=True, norm_first=True, activation="gelu"
        )
        self.blocks = nn.TransformerEncoder(block, depth, enable_nested_tensor=False)
        self.head = nn.Linear(width, vocab)

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits (B·T, vocab) for tokens (B, T)."""
        mask = nn.Transformer.generate_square_subsequent_mask(tokens.shape[1])
        with sdpa_kernel(SDPBackend.MATH):  # the peers can't differentiate the fused one twice
            return self.head(self.blocks(self.embed(tokens), mask=mask)).flatten(0, 1)


def loss_fn(model: nn.Module, batch: Batch) -> Tensor:
    return nn.functional.cross_entropy(model(batch[0]), batch[1])


def trained(model: nn.Module, batch: Batch, num_steps: int) -> nn.Module:
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    for _ in range(num_steps):
        optimizer.zero_grad()
        loss_fn(model, batch).backward()
        optimizer.step()
    model.zero_grad()
    return model


def mlp_case() -> tuple[nn.Module, Batch]:
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    batch = torch.tensor(x[:256] / 16.0, dtype=torch.float32), torch.tensor(y[:256])
    layers = [nn.Linear(64, 256), nn.Tanh(), nn.Linear(256, 256), nn.Tanh(), nn.Linear(256, 10)]
    return trained(nn.Sequential(*layers), batch, 40), batch


def transformer_case() -> tuple[nn.Module, Batch]:
    tokens = torch.randint(32, (8, 33)) * torch.arange(1, 34) % 256
    batch = tokens[:, :-1].contiguous(), tokens[:, 1:].reshape(-1)
    return trained(Transformer(), batch, 20), batch


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
    """One Hessian-vector product against the floor of two gradients."""
    params = list(model.parameters())
    v = torch.randn(sum(p.numel() for p in params))

    def two_gradients() -> None:
        for _ in range(2):
            torch.autograd.grad(loss_fn(model, batch), params)

    with hessian_operator(lambda: loss_fn(model, batch), params) as H:
        fresh = hessian_operator(lambda: loss_fn(model, batch), params, retain=False)
        wall = interleaved(
            {
                "two_gradients": two_gradients,
                "retained": lambda: H.matvec(v),
                "not_retained": lambda: fresh.matvec(v),
            },
            blocks,
        )
    return summary(wall, "two_gradients")


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
    methods |= _peers(model, batch, missing)
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


def _peers(
    model: nn.Module, batch: Batch, missing: dict[str, str]
) -> dict[str, tuple[Callable[[float], Found], list[float]]]:
    """Each peer's own routine, and its settings from loose to tight."""
    methods: dict[str, tuple[Callable[[float], Found], list[float]]] = {}
    params = [p for p in model.parameters() if p.requires_grad]
    criterion = nn.CrossEntropyLoss()
    tolerances = [1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6]
    try:
        from curvlinops import HessianLinearOperator  # pyright: ignore[reportMissingImports]
        from scipy.sparse.linalg import LinearOperator
        from scipy.sparse.linalg import eigsh as scipy_eigsh

        def curvlinops(tol: float) -> Found:
            H = HessianLinearOperator(
                model, criterion, params, [batch], check_deterministic=False, num_data=len(batch[0])
            ).to_scipy()
            count = [0]

            def matvec(v: np.ndarray) -> np.ndarray:
                count[0] += 1
                return H @ v.reshape(-1)

            counted = LinearOperator(H.shape, matvec=matvec, dtype=np.float32)  # pyright: ignore
            start = np.random.default_rng(0).standard_normal(H.shape[0]).astype(np.float32)
            values, vectors = scipy_eigsh(counted, 1, which="LA", tol=tol, v0=start)  # pyright: ignore
            return float(values[0]), torch.tensor(vectors[:, 0]), count[0]

        methods["curvlinops+scipy"] = (curvlinops, tolerances)
    except Exception as error:
        missing["curvlinops"] = f"{type(error).__name__}: {error}"[:200]
    try:
        from pyhessian import hessian  # pyright: ignore[reportMissingImports]

        def pyhessian(tol: float) -> Found:
            torch.manual_seed(0)
            computer = hessian(model, criterion, data=batch, cuda=False)
            values, vectors = computer.eigenvalues(maxIter=500, tol=tol)
            flat = torch.cat([v.reshape(-1) for v in vectors[0]]).detach()
            _free(computer, model)
            return float(values[0]), flat, None

        methods["pyhessian"] = (pyhessian, tolerances)
    except Exception as error:
        missing["pyhessian"] = f"{type(error).__name__}: {error}"[:200]
    try:
        import hessian_eigenthings as he  # pyright: ignore[reportMissingImports]

        def eigenthings(steps: float) -> Found:
            H = he.HessianOperator(model, [batch], he.supervised_loss(criterion))
            top = he.lanczos(H, k=1, max_iter=int(steps), tol=TOL, which="LA", seed=0)
            return float(top.eigenvalues[0]), top.eigenvectors[0], int(top.iterations)

        methods["hessian-eigenthings"] = (eigenthings, [6, 8, 10, 12, 15, 20, 30, 50])
    except Exception as error:
        missing["hessian-eigenthings"] = f"{type(error).__name__}: {error}"[:200]
    return methods


def traces(model: nn.Module, batch: Batch, seeds: int, missing: dict[str, str]) -> dict[str, Any]:
    """Products until the standard error is 5 % of the trace; the peer's from its own samples."""
    figures: dict[str, Any] = {}
    with hvp(model, loss_fn, batch) as H:
        for method in ("xtrace", "hutch++", "hutchinson"):
            counts, values = [], []
            for seed in range(seeds):
                before = H.num_matvecs
                generator = torch.Generator().manual_seed(seed)
                found = trace(H, method, generator=generator, max_matvecs=400)
                counts.append(H.num_matvecs - before)
                values.append(found.value)
            figures[f"thalweg {method}"] = {"matvecs": counts, "values": values}
    try:
        from pyhessian import hessian  # pyright: ignore[reportMissingImports]

        runs, own, values = [], [], []
        for seed in range(seeds):
            torch.manual_seed(seed)
            computer = hessian(model, nn.CrossEntropyLoss(), data=batch, cuda=False)
            own.append(len(computer.trace(maxIter=200, tol=1e-3)))
            samples = np.array(computer.trace(maxIter=120, tol=0.0))
            n = np.arange(1, len(samples) + 1)
            error = np.array([np.std(samples[:i], ddof=1) if i > 1 else np.inf for i in n]) / n**0.5
            mean = np.cumsum(samples) / n
            met = np.flatnonzero((error <= 0.05 * np.abs(mean)) & (n >= 8))
            runs.append(int(n[met[0]]) if len(met) else None)
            values.append(float(mean[-1]))
            _free(computer, model)
        figures["pyhessian"] = {"matvecs": runs, "own_stopping_rule": own, "values": values}
    except Exception as error:
        missing["pyhessian, trace"] = f"{type(error).__name__}: {error}"[:200]
    return figures


def kernels(model: nn.Module, x: Tensor, blocks: int) -> dict[str, Any]:
    """The kernel of 100 inputs and 10 outputs against one backward pass for each of the 1000."""
    params = list(model.parameters())

    def loop() -> Tensor:
        rows = []
        for out in model(x).reshape(-1):
            grads = torch.autograd.grad(out, params, retain_graph=True)
            rows.append(torch.cat([g.reshape(-1) for g in grads]))
        J = torch.stack(rows)
        return J @ J.T

    torch.testing.assert_close(entk_gram(model, x), loop(), rtol=1e-3, atol=1e-3)
    wall = interleaved({"thalweg": lambda: entk_gram(model, x), "loop": loop}, blocks)
    return summary(wall, "thalweg")


def _free(computer: Any, model: nn.Module) -> None:
    """Breaks the reference cycle that backward(create_graph=True) leaves."""
    computer.gradsH = computer.params = None
    for p in model.parameters():
        p.grad = None


def main(arguments: list[str] | None = None) -> None:
    """Measure, print and (unless quick) write the results."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.curvature")
    parser.add_argument("--peers", help="folder that holds the peers")
    parser.add_argument("--quick", action="store_true", help="the MLP only, writes no file")
    options = parser.parse_args(arguments)
    if options.peers:
        sys.path.append(options.peers)
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    missing: dict[str, str] = {}
    results: dict[str, Any] = {
        "command": "OMP_NUM_THREADS=1 python -m benchmarks.curvature --peers PEERS_DIR",
        **facts("torch", "scipy"),
    }
    cases = [("mlp", mlp_case, 15), ("transformer", transformer_case, 5)]
    for name, case, blocks in cases[:1] if options.quick else cases:
        model, batch = case()
        size = sum(p.numel() for p in model.parameters())
        results[name] = {
            "parameters": size,
            "product": products(model, batch, blocks),
            "lambda_max": top_eigenvalue(model, batch, blocks, missing),
        }
        if name == "mlp":
            results[name]["trace"] = traces(model, batch, 5, missing)
            results[name]["entk"] = kernels(model, batch[0][:100], 5)
        print(name, json.dumps(results[name], indent=1), flush=True)
    results["missing"] = missing
    if not options.quick:
        RESULTS.write_text(json.dumps(results, indent=1) + "\n")
        print(f"wrote {RESULTS.name}; peers that could not be imported: {missing}")


if __name__ == "__main__":
    main()
