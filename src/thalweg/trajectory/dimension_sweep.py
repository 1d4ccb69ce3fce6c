"""Scores over dimensions and seeds, and the smallest dimension that reaches a share of a baseline.

The rule: the mean over seeds first reaches the threshold; a finer value interpolates linearly in
log d; intervals are a bootstrap over seeds. Axes: `K` dimensions, `S` seeds.

Source: Li, Farkhoor, Liu, Yosinski 2018, arXiv 1804.08838, d_int90; the correction for chance and
the intervals are ours.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["IntrinsicDimensionResult", "best_scores", "offer"]

RESAMPLES = 2000


@dataclass(frozen=True)
class IntrinsicDimensionResult:
    """What was reached in each dimension.

    Attributes:
        dims: (K,) ascending.
        scores: (K, S) at the best learning rate of each dimension, float64.
        baseline: (S,) scores of full training, float64; all equal if it was given.
        threshold: share of the baseline that counts as reached.
        chance: score of a guess; shares are of what is above it.
        D: parameters that were projected.
        lrs: (K,) best learning rate of each dimension; empty if none were given.

    Source: Li et al. 2018, arXiv 1804.08838.

    Example:
        >>> scores = torch.tensor([[0.5], [0.8], [0.95]]).double()
        >>> r = IntrinsicDimensionResult((10, 20, 40), scores, torch.ones(1).double(), 0.9, 0.0, 99)
        >>> r.d90, round(r.interpolated, 1), r.plain.d90
        (40.0, 31.7, 40.0)
    """

    dims: tuple[int, ...]
    scores: Tensor
    baseline: Tensor
    threshold: float
    chance: float
    D: int
    lrs: tuple[float, ...] = ()

    @property
    def d90(self) -> float:
        """Smallest of ``dims`` whose mean score reaches the threshold; inf if none does."""
        return float(self._reached(self._shares(self._all()))[0][0])

    @property
    def interpolated(self) -> float:
        """``d90`` interpolated linearly in log d; inf if no dimension reaches the threshold."""
        return float(self._reached(self._shares(self._all()))[1][0])

    @property
    def ci(self) -> tuple[float, float]:
        """95 % interval of ``d90``, bootstrap over seeds; of no width for one seed."""
        return self._interval(0)

    @property
    def interpolated_ci(self) -> tuple[float, float]:
        """95 % interval of ``interpolated``."""
        return self._interval(1)

    @property
    def plain(self) -> IntrinsicDimensionResult:
        """The same without the correction for chance, as the papers have it."""
        return replace(self, chance=0.0)

    def curve(self) -> tuple[list[float], list[float]]:
        """Dimensions, and the mean share of the baseline that each reaches."""
        return list(map(float, self.dims)), self._shares(self._all())[:, 0].tolist()

    def _all(self) -> Tensor:
        return torch.arange(self.scores.shape[1])[None]

    def _shares(self, seeds: Tensor) -> Tensor:
        """Share of the baseline by the means over some seeds, (B, S) to (K, B)."""
        full = self.baseline[seeds].mean(1) - self.chance
        return (self.scores[:, seeds].mean(2) - self.chance) / full

    def _reached(self, shares: Tensor) -> tuple[Tensor, Tensor]:
        """First dimension to cross, on the grid and between, (K, B) to (B,) each."""
        dims = torch.tensor([*self.dims, math.inf], dtype=torch.float64)
        above = torch.cat([shares >= self.threshold, torch.ones_like(shares[:1], dtype=torch.bool)])
        first = above.int().argmax(0)
        before = (first - 1).clamp_min(0)
        last = len(self.dims) - 1
        low, high = (shares.gather(0, i.clamp_max(last)[None])[0] for i in (before, first))
        share = ((self.threshold - low) / (high - low)).nan_to_num(1.0)
        between = torch.exp(dims[before].log() * (1 - share) + dims[first].log() * share)
        return dims[first], torch.where((first == 0) | (first > last), dims[first], between)

    def _interval(self, which: int) -> tuple[float, float]:
        S = self.scores.shape[1]
        generator = torch.Generator().manual_seed(0)
        drawn = torch.randint(S, (RESAMPLES, S), generator=generator)
        values = self._reached(self._shares(drawn))[which].sort().values
        return float(values[int(0.025 * RESAMPLES)]), float(values[int(0.975 * RESAMPLES)])


def best_scores(
    make: Callable[[int], nn.Module],
    train: Callable[..., Any],
    evaluate: Callable[..., Any],
    lrs: Sequence[float] | None,
    seeds: Sequence[int],
) -> tuple[Tensor, float | None]:
    """Scores over seeds at the learning rate with the best mean.

    Args:
        make: seed to the module to train.
        train: trains it in place, see ``offer``.
        evaluate: module to score, the higher the better.
        lrs: to choose from; None if ``train`` takes none.
        seeds: of initial values, maps and training; the global random state is left alone.

    Returns:
        (S,) float64, and the learning rate.

    Raises:
        ValueError: if every learning rate gives a score that is not finite.
    """
    best, best_lr = None, None
    for lr in [None] if lrs is None else lrs:
        row = []
        for seed in seeds:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                module = make(seed)
                offer(train, module, **({} if lr is None else {"lr": lr}), seed=seed)
                row.append(float(evaluate(module)))
        scores = torch.tensor(row, dtype=torch.float64)
        if scores.isfinite().all() and (best is None or scores.mean() > best.mean()):
            best, best_lr = scores, lr
    if best is None:
        raise ValueError("no score is finite: lower the learning rates")
    return best, best_lr


def offer(fn: Callable[..., Any], *given: Any, **named: Any) -> Any:
    """Calls a function with as much of what is offered as it takes.

    Args:
        fn: takes ``given`` by position, and of ``named`` what it has parameters for: by name, else
            in order for those without a default.
        *given: positional.
        **named: offered.

    Example:
        >>> offer(lambda model, rate: rate, "model", lr=0.1, seed=3)
        0.1
        >>> offer(lambda model, seed: seed, "model", lr=0.1, seed=3)
        3
    """
    kinds = inspect.Parameter
    parameters = inspect.signature(fn).parameters
    if any(p.kind is kinds.VAR_KEYWORD for p in parameters.values()):
        return fn(*given, **named)
    taken = {n: v for n, v in named.items() if n in parameters}
    rest = iter([v for n, v in named.items() if n not in taken])
    positional = (kinds.POSITIONAL_ONLY, kinds.POSITIONAL_OR_KEYWORD)
    unnamed = [
        p
        for p in list(parameters.values())[len(given) :]
        if p.kind in positional and p.default is kinds.empty and p.name not in taken
    ]
    extra = [v for _, v in zip(unnamed, rest, strict=False)]
    return fn(*given, *extra, **taken)
