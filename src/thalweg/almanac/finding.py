"""Search in plain words over entries and papers, with filters; every hit says why it is one.

Source: the project's almanac (2026).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from thalweg.almanac.catalogue import entries
from thalweg.almanac.char_ngrams import words
from thalweg.almanac.corpus import DEPTH, corpus
from thalweg.almanac.entry import KINDS, Entry
from thalweg.almanac.items import source_url
from thalweg.almanac.paper import Paper
from thalweg.almanac.scores import Importance
from thalweg.almanac.weighing import importances, verdicts
from thalweg.errors import unknown_name

__all__ = ["Hit", "search", "shared_words"]

#: Words that say nothing about what two texts share.
PLAIN = frozenset(
    "that this with from which when than into over under their there these those where while also "
    "each such only same other more most very have been does were will both then them they what "
    "about after before between without because whose here shows show".split()
)
VERDICTS = ("reproduced", "partly", "not", "untested")


@dataclass(frozen=True)
class Hit:
    """Something found.

    Attributes:
        name: slug of an entry, or id of a paper.
        kind: of the entry, or ``paper``.
        title: its title.
        summary: summary or abstract, on one line.
        date: ISO, of the first version.
        url: of a paper or of an entry's source, empty if it has none.
        topics: of the entry, or of the entry that a paper is nearest to.
        verdict: of an entry; empty for a paper.
        importance: 1 to 10.
        score: of the fused rankings, larger is better; 0 without a query.
        why: words that it shares with the query, or that it means or is spelled alike.
    """

    name: str
    kind: str
    title: str
    summary: str
    date: str
    url: str
    topics: tuple[str, ...]
    verdict: str
    importance: int
    score: float
    why: str


def search(
    q: str,
    k: int = 20,
    *,
    kind: str | None = None,
    topic: str | None = None,
    verdict: str | None = None,
    year: int | None = None,
    has_evidence: bool | None = None,
    min_importance: int | None = None,
) -> list[Hit]:
    """What fits a question best; without a question the newest.

    Args:
        q: any text; no sign in it has a meaning of its own.
        k: at most so many.
        kind: only entries of this kind, or ``paper`` for what was read in.
        topic: only on this topic.
        verdict: only entries with this verdict.
        year: only of this year.
        has_evidence: only entries with evidence, or without.
        min_importance: only of this importance or more.

    Raises:
        ThalwegError: for a kind, topic or verdict that nothing could have, with the nearest.
        ValueError: if k is negative.

    Example:
        >>> [hit.name for hit in search("what does gradient flow conserve", k=1)]
        ['conservation-laws']
    """
    if k < 0:
        raise ValueError(f"search: k must be at least 0, got {k}")
    topics = {t for e in entries() for t in e.topics}
    for what, value, known in (
        ("kind", kind, (*KINDS, "paper")),
        ("topic", topic, topics),
        ("verdict", verdict, VERDICTS),
    ):
        if value is not None and value not in known:
            raise unknown_name(what, value, known)
    everything = corpus()
    judged, weighed = verdicts(), importances()
    filters = {"kind": kind, "topic": topic, "verdict": verdict, "year": year}
    filters |= {"has_evidence": has_evidence, "min_importance": min_importance}
    filtered = any(value is not None for value in filters.values())
    scored = {slug: found.score for slug, found in weighed.items()}
    columns = everything.columns
    fits = columns.fitting(judged, scored, **filters)
    if q.strip():
        # Where a filter may leave out most, the rankings are followed to their end.
        depth = len(columns.kinds) if filtered else max(k, DEPTH)
        scores = everything.scores(q, depth=depth)
        best = columns.best(scores, fits, k)
    else:
        scores = np.zeros(len(columns.kinds))
        best = columns.newest[fits[columns.newest]][:k]
    found = []
    for number in best.tolist():
        hit = _hit(everything.items[number], float(scores[number]), judged, weighed)
        found.append(replace(hit, why=_why(q, hit)))
    return found


def shared_words(one: str, other: str, most: int = 4) -> list[str]:
    """Words of four letters or more that two texts share, in the order of the first.

    Example:
        >>> shared_words("the drift of laws", "which laws drift")
        ['drift', 'laws']
    """
    theirs = set(words(other))
    ours = dict.fromkeys(words(one))
    return [w for w in ours if len(w) > 3 and w in theirs and w not in PLAIN][:most]


def _date(item: Entry | Paper) -> str:
    return item.source.date if isinstance(item, Entry) else item.date


def _hit(
    item: Entry | Paper,
    score: float,
    judged: Mapping[str, str],
    weighed: Mapping[str, Importance],
) -> Hit:
    entry = isinstance(item, Entry)
    summary = " ".join(item.summary.split()) if entry else item.abstract
    return Hit(
        name=item.slug if entry else item.id,
        kind=item.kind if entry else "paper",
        title=item.title,
        summary=summary,
        date=_date(item),
        url=source_url(item) if entry else item.url,
        topics=item.topics,
        verdict=judged[item.slug] if entry else "",
        importance=weighed[item.slug].score if entry else item.importance,
        score=score,
        why="",
    )


def _why(q: str, hit: Hit) -> str:
    if not q.strip():
        return "newest"
    shared = shared_words(q, f"{hit.title} {hit.summary}")
    return ", ".join(shared) if shared else "spelled or meant alike"
