"""Entries and papers as columns: what a filter or an order needs of thousands, in arrays.

Axes: `N` entries, then papers. Source: the project's almanac (2026).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from thalweg.almanac.catalogue import get
from thalweg.almanac.entry import Entry
from thalweg.almanac.paper import Paper
from thalweg.errors import ThalwegError

__all__ = ["Columns", "columns_of"]

#: How the importance of an entry, which changes with its evidence, stands in the column.
_ASKED = -1


@dataclass(frozen=True)
class Columns:
    """One row for each entry, then one for each paper.

    Attributes:
        kinds: (N,) of the entry, or ``paper``.
        years: (N,) as the date begins, ``2024-``.
        topics: (N,) of the entry, or of the entry that a paper is nearest to.
        importance: (N,) 1 to 10 of papers.
        by_name: (N,) place among all names in order.
        newest: (N,) numbers, the newest first.
        entries: slugs, in order: the first rows.
    """

    kinds: np.ndarray
    years: np.ndarray
    topics: tuple[tuple[str, ...], ...]
    importance: np.ndarray
    by_name: np.ndarray
    newest: np.ndarray
    entries: tuple[str, ...]

    def fitting(
        self,
        judged: Mapping[str, str],
        weighed: Mapping[str, int],
        *,
        kind: str | None = None,
        topic: str | None = None,
        verdict: str | None = None,
        year: int | None = None,
        has_evidence: bool | None = None,
        min_importance: int | None = None,
    ) -> np.ndarray:
        """(N,) whether each passes all filters; papers have no verdict and no evidence.

        Args:
            judged: slug to verdict.
            weighed: slug to importance.
            kind: as for ``search``, like the others.
            topic: only on this topic.
            verdict: only with this verdict.
            year: only of this year.
            has_evidence: only with evidence, or without.
            min_importance: only of this importance or more.
        """
        fits, own = np.ones(len(self.kinds), bool), slice(0, len(self.entries))
        if kind is not None:
            fits &= self.kinds == kind
        if topic is not None:
            fits &= np.array([topic in topics for topics in self.topics], bool)
        if year is not None:
            fits &= self.years == f"{year:04d}-"
        verdicts = np.array([judged[slug] for slug in self.entries], object)
        if verdict is not None:
            fits[len(self.entries) :] = False
            fits[own] &= verdicts == verdict
        if has_evidence is not None:
            fits[len(self.entries) :] &= not has_evidence
            fits[own] &= (verdicts != "untested") == has_evidence
        if min_importance is not None:
            importance = self.importance.copy()
            importance[own] = [weighed[slug] for slug in self.entries]
            fits &= importance >= min_importance
        return fits

    def best(self, scores: np.ndarray, fits: np.ndarray, k: int) -> np.ndarray:
        """Numbers of the k best positive scores that fit, ties by name.

        Args:
            scores: (N,).
            fits: (N,) bool.
            k: at most so many.
        """
        near = np.flatnonzero((scores > 0) & fits)
        if 0 < k < len(near):
            # Only what can be among the first is put in order.
            near = near[scores[near] >= np.partition(scores[near], -k)[-k]]
        return near[np.lexsort((self.by_name[near], -scores[near]))][:k]


def columns_of(entries: Sequence[Entry], papers: Sequence[Paper]) -> Columns:
    """The columns of a catalogue and of papers."""
    own, rest = [e.source.date for e in entries], [p.date for p in papers]
    dates = [*own, *rest]
    names = [*(e.slug for e in entries), *(p.id for p in papers)]
    in_order = sorted(range(len(names)), key=names.__getitem__)
    by_name = np.empty(len(names), np.int64)
    by_name[in_order] = np.arange(len(names))
    newest = sorted(range(len(names)), key=lambda i: (dates[i], names[i]), reverse=True)
    return Columns(
        kinds=np.array([*(e.kind for e in entries), *("paper" for _ in papers)], object),
        years=np.array([date[:5] for date in dates], object),
        topics=(*(e.topics for e in entries), *map(_topics, papers)),
        importance=np.array([_ASKED] * len(entries) + [p.importance for p in papers], np.int64),
        by_name=by_name,
        newest=np.array(newest, np.int64),
        entries=tuple(e.slug for e in entries),
    )


def _topics(paper: Paper) -> tuple[str, ...]:
    return _topics_of(paper.near[0].slug) if paper.near else ()


@cache
def _topics_of(slug: str) -> tuple[str, ...]:
    try:
        return get(slug).topics
    except ThalwegError:  # an entry of another version of the catalogue
        return ()
