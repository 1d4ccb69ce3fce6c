"""Matrices in which λ_max is easy to miss, and how often ``eigsh`` is wrong without saying so.

python -m benchmarks.never_wrong
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.machine import facts
from thalweg.numerics import Eigenpairs, eigsh, hvp

__all__ = ["KINDS", "count", "is_wrong", "loss_fn", "matrix", "small_network", "spectrum"]

RESULTS = Path(__file__).parent / "results" / "never_wrong.json"
KINDS = [
    "clustered top",
    "near-degenerate",
    "large negative end",
    "rank-deficient",
    "hidden top",
    "decaying",
    "negative definite",
    "just above",
]
PER_KIND = 25
HESSIANS = 200
Batch = tuple[Tensor, Tensor]


def matrix(
    spectrum: Tensor, seed: int, dtype: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor]:
    """A symmetric (p, p) matrix of this spectrum, and its eigenvectors as columns."""
    g = torch.Generator().manual_seed(seed)
    p = len(spectrum)
    Q = torch.linalg.qr(torch.randn(p, p, generator=g, dtype=torch.float64)).Q
    return ((Q * spectrum.double()) @ Q.T).to(dtype), Q


def spectrum(kind: str, p: int, g: torch.Generator) -> Tensor:
    """Families in which a large eigenvalue is easy to miss or hard to separate, (p,)."""
    bulk = torch.randn(p, generator=g).double()
    if kind == "clustered top":
        bulk[:8] = 5 + 1e-4 * torch.rand(8, generator=g).double()
    elif kind == "near-degenerate":
        bulk[:2] = torch.tensor([6.0, 6.0 - 1e-6])
    elif kind == "large negative end":
        bulk[:3] = torch.tensor([-300.0, -200.0, 4.5])
    elif kind == "rank-deficient":
        bulk[5:] = 0.0
    elif kind == "hidden top":  # a tight bulk that converges at once, and one far above it
        bulk = 2.89 - 1e-3 * torch.rand(p, generator=g).double()
        bulk[0] = 7.84
    elif kind == "decaying":
        bulk = torch.arange(1, p + 1).double() ** -2.0
    elif kind == "negative definite":
        bulk = -bulk.abs() - 0.1
    elif kind == "just above":  # a second cluster a few tolerances above the first
        bulk[:20] = 3.0
        bulk[0] = 3.02
    return bulk


def small_network(seed: int) -> tuple[nn.Module, Batch]:
    """A network of at most 435 parameters in single precision, fresh or trained, and its batch."""
    torch.manual_seed(seed)
    width, act = (4, 8, 16)[seed % 3], (nn.ReLU, nn.Tanh, nn.GELU)[seed % 3]
    layers = [nn.Linear(6, width), act(), nn.Linear(width, width), act(), nn.Linear(width, 3)]
    model, batch = nn.Sequential(*layers), (torch.randn(50, 6), torch.randint(3, (50,)))
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(40 * (seed // 12 % 5)):
        optimizer.zero_grad()
        loss_fn(model, batch).backward()
        optimizer.step()
    return model, batch


def loss_fn(model: nn.Module, batch: Batch) -> Tensor:
    return nn.functional.cross_entropy(model(batch[0]), batch[1])


def is_wrong(found: Eigenpairs, end: float, noise: float) -> bool:
    """Whether a result that says it converged is off by more than its tolerance of 1e-3."""
    return found.converged and abs(found.values[0].item() - end) > 1.05e-3 * abs(end) + noise


def count() -> dict[str, dict[str, Any]]:
    """Runs on 200 random matrices and 200 Hessians: how many say ``converged``, how many lie."""
    random: list[tuple[Eigenpairs, float, float]] = []
    for kind in KINDS:
        for seed in range(PER_KIND):
            g = torch.Generator().manual_seed(seed)
            values = spectrum(kind, 60 + 4 * seed, g)
            A, Q = matrix(values, seed, torch.float64 if seed % 2 else torch.float32)
            worse = Q[:, values.argsort()[len(values) // 2]]
            noise = 1e-6 * values.abs().max().item()
            for guess in (None, worse):
                found = eigsh(A, v0=guess, generator=g, max_matvecs=150)
                random.append((found, values.max().item(), noise))
    real: list[tuple[Eigenpairs, float, float]] = []
    for seed in range(HESSIANS):
        model, batch = small_network(seed)
        with hvp(model, loss_fn, batch) as H:
            true = torch.linalg.eigvalsh(H.dense().double())
            noise = 1e-5 * true.abs().max().item()
            for which, at in (("LA", -1), ("SA", 0)):
                g = torch.Generator().manual_seed(seed)
                real.append((eigsh(H, which=which, generator=g), true[at].item(), noise))
    return {
        "random matrices": {"matrices": len(KINDS) * PER_KIND, **_tally(random)},
        "Hessians": {"matrices": HESSIANS, **_tally(real)},
    }


def _tally(runs: list[tuple[Eigenpairs, float, float]]) -> dict[str, Any]:
    said = [(f, end, noise) for f, end, noise in runs if f.converged]
    return {
        "runs": len(runs),
        "converged": len(said),
        "wrong_while_converged": sum(is_wrong(*run) for run in said),
        "largest_error_over_tolerance": max(
            abs(f.values[0].item() - end) / (1e-3 * abs(end) + noise) for f, end, noise in said
        ),
        "least_probability": min(f.probability for f, _, _ in said),
        "most_products": max(f.num_matvecs for f, _, _ in said),
    }


def main(arguments: list[str] | None = None) -> None:
    """Counts and writes the results."""
    torch.set_num_threads(1)
    found = {"command": "python -m benchmarks.never_wrong", **facts("torch"), "found": count()}
    RESULTS.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found["found"], indent=1), flush=True)


if __name__ == "__main__":
    main()
