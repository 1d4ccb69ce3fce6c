"""The peers' own routines for λ_max and the trace, called alike.

They live in a folder of their own, see ``benchmarks.curvature``; one that can't be imported is left
out and named.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.curvature_cases import Batch

__all__ = ["Found", "pyhessian_trace_samples", "top_eigenvalue_routines"]

TOL = 1e-3
Found = tuple[float, Tensor, int | None]
"""Eigenvalue, eigenvector (P,), products if the routine tells."""


def top_eigenvalue_routines(
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


def pyhessian_trace_samples(model: nn.Module, batch: Batch, seed: int, count: int) -> np.ndarray:
    """The first samples of PyHessian's Hutchinson estimator, one product each, (count,)."""
    from pyhessian import hessian  # pyright: ignore[reportMissingImports]

    torch.manual_seed(seed)
    computer = hessian(model, nn.CrossEntropyLoss(), data=batch, cuda=False)
    samples = np.array(computer.trace(maxIter=count, tol=0.0))
    _free(computer, model)
    return samples


def _free(computer: Any, model: nn.Module) -> None:
    """Breaks the reference cycle that backward(create_graph=True) leaves."""
    computer.gradsH = computer.params = None
    for p in model.parameters():
        p.grad = None
