"""Intrinsic dimension: the smallest random subspace in which training reaches nine tenths.

Source: Li, Farkhoor, Liu, Yosinski 2018, arXiv 1804.08838. Beyond the paper: several seeds, an
interval, and a choice of learning rate for each dimension where ``lrs`` are given, since the best
one changes with the dimension.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from thalweg.nn import SubspaceModule
from thalweg.trajectory.dimension_sweep import IntrinsicDimensionResult, best_scores, offer

__all__ = ["description_length", "measure_intrinsic_dimension"]


def measure_intrinsic_dimension(
    make_model: Callable[..., nn.Module],
    train_fn: Callable[..., Any],
    eval_fn: Callable[[nn.Module], Any],
    dims: Sequence[int],
    *,
    seeds: Sequence[int] = (0, 1, 2),
    threshold: float = 0.9,
    baseline: float | None = None,
    lrs: Sequence[float] | None = None,
    chance: float | None = None,
    stop_when_reached: bool = False,
    **options: Any,
) -> IntrinsicDimensionResult:
    """Train in subspaces of growing dimension, and see where a share of the full score is reached.

        d90 = min { d : mean score(d) >= threshold * mean score of full training }

    Args:
        make_model: gives a fresh module, called with ``seed`` if it takes one; the global generator
            is seeded before.
        train_fn: trains a module in place; called with the module, and with ``lr`` and ``seed`` as
            far as it takes them. For the baseline the module is the bare one.
        eval_fn: module to score; the higher the better, and positive. A loss is none: 0.9 of it
            has no meaning.
        dims: ascending.
        seeds: each fixes initial values, projection and training.
        threshold: share of the baseline.
        baseline: score of full training; measured if None.
        lrs: the best one by mean score is taken for each dimension, and for the baseline.
        chance: score of a guess; shares are of what is above it.
        stop_when_reached: leave out the dimensions after the first that is enough: their scores are
            nan, and intervals only know that they would not be smaller.
        **options: of ``SubspaceModule``: ``projection``, ``granularity``, ``said``, …

    Returns:
        Figures by seed, ``d90``, its interval and its curve.

    Raises:
        ValueError: if dims are not ascending, there is no seed, or the baseline is not above
            chance.

    Source: [intrinsic-dimension], section 2.

    Example:
        >>> make, train = lambda: nn.Linear(20, 1), lambda model: None
        >>> def reach(model):  # as if the score were the share of dimensions
        ...     return min(1.0, getattr(model, "d", 21) / 10)
        >>> r = measure_intrinsic_dimension(make, train, reach, [2, 5, 9, 12], seeds=[0])
        >>> r.d90, r.D
        (9.0, 21)
    """
    if not dims or dims[0] < 1 or any(b <= a for a, b in pairwise(dims)):
        raise ValueError(f"dims must be ascending from 1 on, got {list(dims)}")
    if not len(seeds):
        raise ValueError("give at least one seed")
    D = 0

    def inside(d: int) -> Callable[[int], nn.Module]:
        def make(seed: int) -> nn.Module:
            nonlocal D
            module = SubspaceModule(offer(make_model, seed=seed), d, **{"seed": seed, **options})
            D = module.D
            return module

        return make

    def full(seed: int) -> nn.Module:
        return offer(make_model, seed=seed)

    if baseline is None:
        reached = best_scores(full, train_fn, eval_fn, lrs, seeds)[0]
    else:
        reached = torch.full((len(seeds),), float(baseline), dtype=torch.float64)
    if not reached.mean() > (chance or 0.0):
        raise ValueError(
            f"full training scores {float(reached.mean()):.4g}, which is not above "
            f"{chance or 0:g}: a share of it means nothing. The score must be positive, and "
            "higher for better models"
        )
    chance = chance or 0.0
    enough = chance + threshold * (float(reached.mean()) - chance)
    rows: list[tuple[Tensor, float | None]] = []
    for d in dims:
        if stop_when_reached and rows and not rows[-1][0].mean() < enough:
            rows.append((torch.full_like(reached, torch.nan), None))
        else:
            rows.append(best_scores(inside(d), train_fn, eval_fn, lrs, seeds))
    return IntrinsicDimensionResult(
        dims=tuple(dims),
        scores=torch.stack([scores for scores, _ in rows]),
        baseline=reached,
        threshold=threshold,
        chance=chance,
        D=D,
        lrs=tuple(lr for _, lr in rows if lr is not None),
    )


def description_length(d: int, bits: float = 32, *, seed_bits: int = 64) -> float:
    """Bits that a model in a random subspace takes: d coefficients and the seed.

    Args:
        d: dimensions.
        bits: for each coefficient; after rounding them the score has to be looked at again.
        seed_bits: of the seed of initial values and projection.

    Raises:
        ValueError: if a number is negative.

    Source: [intrinsic-dimension], section 4.

    Example:
        >>> description_length(750)
        24064.0
    """
    if min(d, bits, seed_bits) < 0:
        raise ValueError(f"bits and d must not be negative, got d={d}, {bits}, {seed_bits}")
    return float(bits * d + seed_bits)
