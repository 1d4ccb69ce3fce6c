"""How many dimensions fine-tuning a pretrained model needs, and the bound that they give.

Source: Aghajanyan, Zettlemoyer, Gupta 2020, arXiv 2012.13255; the bound with explicit constants is
the counting one of Arora, Ge, Neyshabur, Zhang 2018, arXiv 1802.05296. Beyond the paper: scores
corrected for chance, since nine tenths of an accuracy of 0.75 is little more than a guess between
two classes.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from thalweg.trajectory.dimension_sweep import IntrinsicDimensionResult, best_scores, offer
from thalweg.trajectory.intrinsic_dimension import measure_intrinsic_dimension

__all__ = ["Bound", "compression_bound", "intrinsic_dimension_of_finetuning"]


def intrinsic_dimension_of_finetuning(
    model: nn.Module | Callable[..., nn.Module],
    train: Callable[..., Any],
    evaluate: Callable[[nn.Module], Any],
    dims: Sequence[int],
    lrs: Sequence[float],
    seeds: Sequence[int],
    *,
    said: bool = True,
    threshold: float = 0.9,
    chance: float | None = None,
    baseline: float | None = None,
    full_lrs: Sequence[float] | None = None,
    **options: Any,
) -> IntrinsicDimensionResult:
    """Fine-tune in random subspaces around the pretrained weights.

    Args:
        model: pretrained, with its new head; or a function, called with ``seed`` if it takes one.
            It is copied for each training.
        train: trains a module in place; called with it, and with ``lr`` and ``seed`` as far as it
            takes them.
        evaluate: module to score, the higher the better.
        dims: ascending; with scales each has to exceed their number.
        lrs: the best one by mean score is taken for each dimension. They are rates of theta, not
            of the weights: ``full_lrs`` is for those.
        seeds: each fixes projection and training.
        said: pay one learnt scale for each layer out of d.
        threshold: share of full fine-tuning.
        chance: score of a guess; ``d90`` is then by the share of what is above it, and ``plain``
            holds the figure without.
        baseline: score of full fine-tuning; measured if None.
        full_lrs: learning rates of full fine-tuning; default ``lrs``.
        **options: of ``SubspaceModule``, which here has ``granularity="tensor"`` by default.

    Raises:
        ValueError: if dims are not ascending, there is no seed or learning rate, scales leave no
            room, or full fine-tuning is not above chance.

    Source: [intrinsic-dimension-finetuning], section 3.

    Example:
        >>> r = intrinsic_dimension_of_finetuning(
        ...     nn.Linear(20, 2), lambda m, lr: None, lambda m: min(1.0, getattr(m, "d", 42) / 10),
        ...     [4, 8, 16], [0.1], [0], chance=0.5,
        ... )
        >>> r.d90, r.plain.d90
        (16.0, 16.0)
    """
    if not lrs or not len(seeds):
        raise ValueError("give at least one learning rate and one seed")

    def pretrained(seed: int) -> nn.Module:
        return copy.deepcopy(model) if isinstance(model, nn.Module) else offer(model, seed=seed)

    if baseline is None:
        full = best_scores(pretrained, train, evaluate, full_lrs or lrs, seeds)[0]
    else:
        full = torch.full((len(seeds),), float(baseline), dtype=torch.float64)
    found = measure_intrinsic_dimension(
        pretrained,
        train,
        evaluate,
        dims,
        seeds=seeds,
        threshold=threshold,
        baseline=float(full.mean()),
        lrs=lrs,
        chance=chance,
        **{"granularity": "tensor", "said": said, **options},
    )
    return replace(found, baseline=full)


class Bound(float):
    """An upper bound of an error.

    Attributes:
        vacuous: whether it says no more than that an error is at most 1.
        gap: what it adds to the training error, which may exceed 1.
    """

    vacuous: bool
    gap: float


def compression_bound(
    train_error: float,
    d: int,
    n: int,
    *,
    bits: float = 8,
    delta: float = 0.05,
    candidates: int = 1,
) -> Bound:
    """Bound of the error on new data of a model that is d numbers of some bits.

        error <= train_error + sqrt((bits d ln 2 + ln(1/delta) + ln candidates) / (2 n))

    Hoeffding and a union bound over the 2^(bits d) models. The projection and the initial weights
    must have been fixed without the n samples.

    Args:
        train_error: share of the n samples that the rounded model gets wrong, 0 to 1.
        d: dimensions.
        n: samples.
        bits: of each coefficient.
        delta: probability that the bound fails.
        candidates: how many dimensions, seeds, … were tried on the samples.

    Returns:
        min(1, bound), with ``vacuous`` and ``gap``.

    Raises:
        ValueError: if a number is out of its range.

    Source: [intrinsic-dimension-finetuning], section 6; Arora et al. 2018.

    Example:
        >>> bound = compression_bound(0.0, 200, 10_000)
        >>> round(bound, 5), bound.vacuous
        (0.2358, False)
    """
    if not (0 <= train_error <= 1 and 0 < delta < 1 and n >= 1 and candidates >= 1):
        raise ValueError(
            "need 0 <= train_error <= 1, 0 < delta < 1, n >= 1 and candidates >= 1; got "
            f"{train_error}, {delta}, {n}, {candidates}"
        )
    if d < 0 or bits <= 0:
        raise ValueError(f"need d >= 0 and bits > 0, got {d}, {bits}")
    nats = bits * d * math.log(2) - math.log(delta) + math.log(candidates)
    gap = math.sqrt(nats / (2 * n))
    bound = Bound(min(1.0, train_error + gap))
    bound.gap, bound.vacuous = gap, train_error + gap >= 1
    return bound
