"""Entries and papers under one shape, as feeds and tables hand them out.

Source: the project's almanac (2026).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from thalweg.almanac.catalogue import entries
from thalweg.almanac.entry import KINDS, Entry
from thalweg.almanac.paper import Paper
from thalweg.almanac.plain_text import one_line
from thalweg.almanac.store import papers
from thalweg.almanac.weighing import all_evidence, importance_of, verdicts
from thalweg.errors import unknown_name

__all__ = ["Item", "items", "source_url"]


@dataclass(frozen=True)
class Item:
    """One entry or paper.

    Attributes:
        name: slug or id.
        kind: of the entry, or ``paper``.
        title: on one line.
        summary: on one line.
        published: UTC, ISO with time.
        updated: of the newest change of content here: new evidence, a new version of a paper.
        link: page of the almanac; for a paper its source.
        source: where it was published, empty if there is no address.
        authors: as they sign.
        topics: of the entry, or of the entry a paper is nearest to.
        verdict: empty for a paper.
        importance: 1 to 10.
        claims: id, statement, bound of each.
    """

    name: str
    kind: str
    title: str
    summary: str
    published: str
    updated: str
    link: str
    source: str
    authors: tuple[str, ...]
    topics: tuple[str, ...]
    verdict: str
    importance: int
    claims: tuple[Mapping[str, Any], ...] = ()

    @property
    def tag(self) -> str:
        """An identifier that never changes."""
        return f"tag:github.com,2026:thalweg/almanac/{self.name}"


def items(*, topic: str | None = None, kind: str | None = None, base_url: str = "") -> list[Item]:
    """Entries and papers, the newest change first.

    Args:
        topic: only on this topic.
        kind: only of this kind; ``paper`` for what was read in.
        base_url: of the pages of entries.

    Raises:
        ThalwegError: for a topic or kind that nothing could have.
    """
    if kind is not None and kind not in (*KINDS, "paper"):
        raise unknown_name("kind", kind, (*KINDS, "paper"))
    if topic is not None and topic not in (known := {t for e in entries() for t in e.topics}):
        raise unknown_name("topic", topic, known)
    found: list[Item] = []
    if kind != "paper":
        judged = verdicts()
        found += [_entry(e, judged, base_url) for e in entries(kind=kind, topic=topic)]
    if kind in (None, "paper"):
        found += [p for p in map(_paper, papers()) if topic is None or topic in p.topics]
    return sorted(found, key=lambda item: (item.updated, item.name), reverse=True)


def source_url(entry: Entry) -> str:
    """Where a result was published; empty if it has no address."""
    source = entry.source
    if source.arxiv:
        return f"https://arxiv.org/abs/{source.arxiv}"
    return source.url or (f"https://doi.org/{source.doi}" if source.doi else "")


def moment(date: str) -> str:
    """A day as its first moment; a moment as it is.

    Example:
        >>> moment("2026-11-24"), moment("2026-11-24T10:00:00+00:00")
        ('2026-11-24T00:00:00Z', '2026-11-24T10:00:00Z')
    """
    return f"{date}T00:00:00Z" if len(date) == 10 else f"{date[:19]}Z"


def _entry(entry: Entry, judged: Mapping[str, str], base_url: str) -> Item:
    runs = [item.run_at for item in all_evidence()[entry.slug]]
    published = moment(entry.source.date)
    return Item(
        name=entry.slug,
        kind=entry.kind,
        title=one_line(entry.title),
        summary=one_line(entry.summary),
        published=published,
        updated=max([published, *map(moment, runs)]),
        link=f"{base_url}/e/{entry.slug}",
        source=source_url(entry),
        authors=entry.source.authors,
        topics=entry.topics,
        verdict=judged[entry.slug],
        importance=importance_of(entry.slug).score,
        claims=tuple(
            {"id": c.id, "statement": c.statement, "bound": c.bound, "unit": c.unit}
            for c in entry.claims
        ),
    )


def _paper(paper: Paper) -> Item:
    return Item(
        name=paper.id,
        kind="paper",
        title=paper.title,
        summary=paper.abstract,
        published=moment(paper.date),
        updated=paper.changed,
        link=paper.url,
        source=paper.url,
        authors=paper.authors,
        topics=paper.topics,
        verdict="",
        importance=paper.importance,
    )
