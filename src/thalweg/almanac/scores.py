"""How much a result matters, with the parts of the score, and how that fades for what is new.

Importance is computed from the catalogue alone: how central an entry is among those that build on
each other, how much of the package uses it, and how well it held here. Popularity is never part of
it. The weights are the project's own (2026); the centrality is PageRank (L. Page, S. Brin 1998).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

__all__ = ["WEIGHTS", "Importance", "hot_score", "importance", "pagerank", "share_of_log"]

#: Of centrality, use, evidence and citations.
WEIGHTS = (0.35, 0.25, 0.25, 0.15)


@dataclass(frozen=True)
class Importance:
    """An importance with its reasons.

    Attributes:
        score: 1 to 10; the override where there is one.
        computed: 1 to 10, from the parts.
        parts: centrality, use, evidence, citations, each 0 to 1; for a paper the nearest entry's
            importance and how near it is.
        reason: why the score is not the computed one; empty if it is.
    """

    score: int
    computed: int
    parts: Mapping[str, float]
    reason: str = ""


def importance(
    centrality: float, use: float, evidence: float, citations: float | None = None
) -> int:
    """The score of four parts: 1 + 9·(0.35 c + 0.25 u + 0.25 e + 0.15 r), half up, in 1 to 10.

    Args:
        centrality: PageRank over its maximum.
        use: of its code in the package, in logarithms over the maximum.
        evidence: 1 reproduced, 0.5 partly, 0.25 untested, 0 not.
        citations: in logarithms over the maximum; the mean of the others if not known.

    Raises:
        ValueError: if a part is not in 0 to 1.

    Example:
        >>> importance(0, 0, 0, 0), importance(1, 1, 1, 1), importance(0.5, 0.5, 0.5)
        (1, 10, 6)
    """
    parts = [centrality, use, evidence]
    parts.append(math.fsum(parts) / 3 if citations is None else citations)
    for name, value in zip(("centrality", "use", "evidence", "citations"), parts, strict=True):
        if not 0 <= value <= 1:
            raise ValueError(f"importance: {name} must be in 0 to 1, got {value}")
    raw = 1 + 9 * math.fsum(w * p for w, p in zip(WEIGHTS, parts, strict=True))
    # What is half in exact arithmetic must round up: a last bit may not decide.
    return min(max(math.floor(raw + 0.5 + 1e-9), 1), 10)


def hot_score(importance: float, age_days: float, half_life_days: float = 30.0) -> float:
    """Importance that halves with age; of ingested papers only, the catalogue does not fade.

    Args:
        importance: 1 to 10.
        age_days: since the first version; what lies in the future counts as new.
        half_life_days: 30 by default.

    Raises:
        ValueError: if the half-life is not positive.

    Example:
        >>> hot_score(8, 30), hot_score(10, 60)
        (4.0, 2.5)
    """
    if not half_life_days > 0:
        raise ValueError(f"hot_score: half_life_days must be positive, got {half_life_days}")
    return importance * 2.0 ** (-max(age_days, 0.0) / half_life_days)


def pagerank(edges: Sequence[tuple[str, str]], nodes: Sequence[str]) -> dict[str, float]:
    """Stationary share of a walk along ``(from, to)`` edges, damping 0.85, sums to 1.

    A node without edges out spreads its share over all. Without any edge all shares are 0: then
    nothing is central.

    Example:
        >>> ranks = pagerank([("a", "c"), ("b", "c")], ["a", "b", "c"])
        >>> max(ranks, key=ranks.__getitem__)
        'c'
    """
    edges = sorted(set(edges))
    if not edges:
        return dict.fromkeys(nodes, 0.0)
    out = {node: [b for a, b in edges if a == node] for node in nodes}
    ranks = dict.fromkeys(nodes, 1 / len(nodes))
    for _ in range(200):
        loose = math.fsum(ranks[node] for node in nodes if not out[node])
        new = dict.fromkeys(nodes, 0.15 / len(nodes) + 0.85 * loose / len(nodes))
        for node in nodes:
            for target in out[node]:
                new[target] += 0.85 * ranks[node] / len(out[node])
        change = max(abs(new[node] - ranks[node]) for node in nodes)
        ranks = new
        if change < 1e-14:
            break
    return ranks


def share_of_log(counts: Mapping[str, int]) -> dict[str, float]:
    """log(1 + count) over that of the largest; all 0 if the largest is.

    Example:
        >>> share_of_log({"a": 0, "b": 3})
        {'a': 0.0, 'b': 1.0}
    """
    top = math.log1p(max(counts.values(), default=0))
    return {name: math.log1p(n) / top if top else 0.0 for name, n in counts.items()}
