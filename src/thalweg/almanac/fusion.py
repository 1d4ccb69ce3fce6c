"""Reciprocal-rank fusion: one ranking out of several, by ranks alone.

Scores of different kinds (bm25, cosines) have no common scale; their ranks do. Source: G. V.
Cormack, C. L. A. Clarke, S. Büttcher 2009, SIGIR, doi.org/10.1145/1571941.1572114.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

__all__ = ["fuse", "fused_scores"]


def fuse(rankings: Iterable[Sequence[str]], k: float = 60) -> list[tuple[str, float]]:
    """Fuse rankings into one: the score of a name is the sum of ``1 / (k + rank)``.

    Args:
        rankings: each a list of different names, the best first; ranks count from 1.
        k: how little the first ranks count above the later ones; 60 by the source.

    Returns:
        Names with their scores, the best first, ties by name.

    Raises:
        ValueError: if k is not positive, or a ranking names something twice.

    Example:
        >>> [name for name, _ in fuse([["a", "b", "c"], ["c", "a", "d"], ["b"]])]
        ['a', 'b', 'c', 'd']
    """
    if not k > 0:
        raise ValueError(f"fuse: k must be positive, got {k}")
    scores: dict[str, float] = {}
    for ranking in rankings:
        if len(set(ranking)) != len(ranking):
            raise ValueError("fuse: a ranking must name each thing once")
        for rank, name in enumerate(ranking, 1):
            scores[name] = scores.get(name, 0.0) + 1 / (k + rank)
    return sorted(scores.items(), key=lambda item: (-item[1], item[0]))


def fused_scores(rankings: Iterable[np.ndarray], size: int, k: float = 60) -> np.ndarray:
    """The scores of `fuse` for things that have numbers, many times faster.

    Args:
        rankings: each numbers from 0 to ``size - 1``, each once, the best first.
        size: how many things there are.
        k: as for `fuse`.

    Returns:
        (size,) float64; 0 for what no ranking names.

    Example:
        >>> fused_scores([np.array([2, 0]), np.array([2])], 3) * 61
        array([0.98387097, 0.        , 2.        ])
    """
    scores = np.zeros(size)
    for ranking in rankings:
        scores[ranking] += 1 / (k + np.arange(1, len(ranking) + 1))
    return scores
