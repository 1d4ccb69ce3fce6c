"""How far a training is from the edge of stability: curvature over the optimizer's own threshold.

Full-batch training sharpens until its top curvature reaches the threshold, 2/η for gradient
descent, and hovers there: a ratio near 1 is the usual state of a sound training, no fault.

Source: Cohen, Kaur, Li, Kolter, Talwalkar 2021, arXiv 2103.00065; for Adam 2207.14484.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer

from thalweg.instruments.hessian_reading import hessian_reading
from thalweg.instruments.sharpness import inverse_root, preconditioned
from thalweg.instruments.stability_threshold import stability_threshold
from thalweg.numerics import CurvatureOperator, Eigenpairs, eigsh, trace

__all__ = ["EdgeOfStability", "EdgeReading"]


class Recording(Protocol):
    """What ``thalweg.record`` gives."""

    def log(self, values: dict[str, Any]) -> None:
        """Records figures."""

    def paused(self) -> AbstractContextManager[None]:
        """Nothing is seen inside."""
        ...


@dataclass(frozen=True)
class EdgeReading:
    """One look at the edge.

    Attributes:
        step: steps seen before it.
        eigenvalues: the k largest, preconditioned where the optimizer is; empty without a figure.
        threshold: the largest stable one.
        ratios: eigenvalues over threshold, λη/2 for gradient descent: 1 is the edge.
        trace_ratio: trace over threshold, tr H·η/2, which single-sample SGD keeps below 1; nan if
            it was not asked for.
        status: ``ok``, ``nonfinite`` or ``unsupported:why``.
    """

    step: int
    eigenvalues: tuple[float, ...]
    threshold: float
    ratios: tuple[float, ...]
    trace_ratio: float
    status: str


class EdgeOfStability:
    """Looks at the edge every so many steps, by hand or inside a recording.

    Args:
        optimizer: the one that trains; its settings are read anew at every look.
        closure: evaluates the loss at the present weights, best of all data.
        every: steps between looks.
        k: eigenvalues.
        with_trace: whether to estimate the trace as well, to 10 %.
        run: what ``thalweg.record`` gives; takes ``user/edge_ratio`` and ``user/edge_trace_ratio``.
        generator: of the random starts; default: one of its own with a fixed seed.

    Attributes:
        history: readings so far.

    Raises:
        ValueError: if every or k is below 1.

    Cost: 10 to 30 Hessian-vector products a look and eigenvalue; fewer from the last eigenvectors.

    Example:
        Curvature 3 at η = 0.1: the edge is at 20.

        >>> w = torch.ones(2, requires_grad=True)
        >>> def loss():
        ...     return 1.5 * w[0] ** 2 + 0.5 * w[1] ** 2
        >>> edge = EdgeOfStability(torch.optim.SGD([w], lr=0.1), loss, every=1)
        >>> round(edge.after_step().ratios[0], 4)
        0.15
    """

    def __init__(
        self,
        optimizer: Optimizer,
        closure: Callable[[], Tensor],
        *,
        every: int = 50,
        k: int = 1,
        with_trace: bool = False,
        run: Recording | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        if every < 1 or k < 1:
            raise ValueError(f"EdgeOfStability: every and k must be at least 1, got {every}, {k}")
        self.history: list[EdgeReading] = []
        self._optimizer, self._closure, self._run = optimizer, closure, run
        self._every, self._k, self._with_trace = every, k, with_trace
        self._generator = generator or torch.Generator().manual_seed(0)
        self._guess: Tensor | None = None
        self._steps = 0

    def after_step(self) -> EdgeReading | None:
        """Counts a step; looks after every so many, and returns what it saw then."""
        self._steps += 1
        if self._steps % self._every:
            return None
        with self._run.paused() if self._run is not None else nullcontext():
            reading = self._look()
        self.history.append(reading)
        if self._run is not None and reading.status == "ok":
            figures = {"edge_ratio": reading.ratios[0]}
            if self._with_trace:
                figures["edge_trace_ratio"] = reading.trace_ratio
            self._run.log(figures)
        return reading

    def _look(self) -> EdgeReading:
        params = [p for g in self._optimizer.param_groups for p in g["params"]]
        limit = stability_threshold(self._optimizer)
        D = limit.preconditioner
        scale = None if D is None else inverse_root(D, params)

        def measure(H: CurvatureOperator) -> tuple[Eigenpairs, float, str]:
            A = H if scale is None else preconditioned(H, scale)
            found = eigsh(A, self._k, v0=self._guess, generator=self._generator)
            total = float("nan")
            if self._with_trace:
                total = trace(A, generator=self._generator, rel_stderr=0.1).value
            return found, total, "ok" if found.converged else "unsupported:not converged"

        def fail(status: str) -> tuple[None, float, str]:
            return None, float("nan"), status

        pairs, total, status = hessian_reading(self._closure, params, measure, fail)
        if pairs is None:
            return EdgeReading(self._steps, (), limit.threshold, (), total, status)
        self._guess = pairs.vectors
        values = tuple(pairs.values.tolist())
        ratios = tuple(v / limit.threshold for v in values)
        status = status if limit.status == "ok" else limit.status
        return EdgeReading(
            self._steps, values, limit.threshold, ratios, total / limit.threshold, status
        )
