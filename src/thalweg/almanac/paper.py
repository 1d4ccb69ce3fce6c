"""A paper that was read in from a feed, and the errors of reading.

Source: the project's almanac (2026).
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass, fields, replace
from typing import Any

from thalweg.almanac.scores import hot_score
from thalweg.errors import ThalwegError

__all__ = ["Document", "IngestError", "Near", "Paper", "merged"]


class IngestError(ThalwegError):
    """What cannot be read in: the document, the record in it and the field, and why.

    Attributes:
        document: file name or URL.
        record: id of the record, or its number in the document; empty for the whole document.
        field: empty for the whole record.
        reason: what was expected and what came.
    """

    def __init__(self, document: str, reason: str, *, record: str = "", field: str = "") -> None:
        """Puts the message together."""
        self.document, self.record, self.field, self.reason = document, record, field, reason
        where = [document, f"record {record}" if record else "", field]
        super().__init__(f"{', '.join(filter(None, where))}: {reason}")

    def __reduce__(self) -> tuple[Any, ...]:
        """Copies and pickles are made from the parts, not from the message."""
        return _again, (self.document, self.reason, self.record, self.field)


def _again(document: str, reason: str, record: str, field: str) -> IngestError:
    return IngestError(document, reason, record=record, field=field)


@dataclass(frozen=True)
class Near:
    """An entry that a paper is near to.

    Attributes:
        slug: of the entry.
        score: of the relation; larger is nearer.
        why: shared words, or that they mean the same.
    """

    slug: str
    score: float
    why: str


@dataclass(frozen=True)
class Paper:
    """A paper from a feed. What a feed does not say is None or empty, never 0.

    Attributes:
        id: ``arxiv:`` and the arXiv id without version.
        title: on one line.
        abstract: on one line.
        authors: as they sign; those who asked to be hidden are left out.
        version: the newest seen.
        published: UTC, ISO, first version.
        updated: UTC, ISO, this version.
        announced: when a feed announced it.
        featured: when it was featured as a paper of the day.
        announce_type: ``new``, ``cross``, ``replace`` or ``replace-cross``.
        primary_category: of arXiv.
        categories: of arXiv.
        keywords: given by a feed.
        comment: the authors' comment.
        journal_ref: where it appeared.
        doi: digital object identifier.
        license: URL.
        pdf_url: its PDF.
        code_url: its code.
        code_stars: of the code.
        project_url: its page.
        organization: who published it.
        upvotes: of a feed's readers; never part of the importance.
        comments: of a feed's readers.
        near: entries of the almanac, the nearest first.
        importance: 1 to 10, from the nearest entry.
        added: when it was first read in, UTC, ISO.
        changed: when its content last changed here, UTC, ISO.
    """

    id: str
    title: str
    abstract: str = ""
    authors: tuple[str, ...] = ()
    version: int | None = None
    published: str | None = None
    updated: str | None = None
    announced: str | None = None
    featured: str | None = None
    announce_type: str | None = None
    primary_category: str | None = None
    categories: tuple[str, ...] = ()
    keywords: tuple[str, ...] = ()
    comment: str | None = None
    journal_ref: str | None = None
    doi: str | None = None
    license: str | None = None
    pdf_url: str | None = None
    code_url: str | None = None
    code_stars: int | None = None
    project_url: str | None = None
    organization: str | None = None
    upvotes: int | None = None
    comments: int | None = None
    near: tuple[Near, ...] = ()
    importance: int = 1
    added: str = ""
    changed: str = ""

    @property
    def url(self) -> str:
        """Where to read it."""
        return f"https://arxiv.org/abs/{self.id.removeprefix('arxiv:')}"

    @property
    def date(self) -> str:
        """ISO date by which its age counts: of its first version, else the first known."""
        known = [self.published, self.announced, self.featured, self.updated, self.added]
        return next(filter(None, known), "")[:10]

    @property
    def topics(self) -> tuple[str, ...]:
        """Topics of the entry it is nearest to, none if it is near to none."""
        from thalweg.almanac.catalogue import get

        try:
            return get(self.near[0].slug).topics if self.near else ()
        except ThalwegError:  # an entry of another version of the catalogue
            return ()

    def hot(self, today: datetime.date | None = None) -> float:
        """Importance that halves every 30 days."""
        today = today or datetime.datetime.now(datetime.UTC).date()
        try:
            age = (today - datetime.date.fromisoformat(self.date)).days
        except ValueError:
            age = 0
        return hot_score(self.importance, age)


@dataclass(frozen=True)
class Document:
    """What one document of a feed holds.

    Attributes:
        format: ``atom``, ``rss``, ``oai`` or ``hf``.
        papers: in their order.
        errors: records that cannot be read.
        deleted: ids that the source has withdrawn.
        next: resumption token, empty at the end.
        total: how many the source has in all, if it says so.
    """

    format: str
    papers: tuple[Paper, ...] = ()
    errors: tuple[IngestError, ...] = ()
    deleted: tuple[str, ...] = ()
    next: str = ""
    total: int | None = None


#: Fields that are ours and not the source's.
OWN = ("near", "importance", "added", "changed")
#: What readers of a feed do changes daily, and may go down.
_COUNTS = ("upvotes", "comments", "code_stars")
#: What only the newest version of a paper says; older news about it may only fill gaps.
_GAPS = ("published", "announced", "featured")


def merged(old: Paper, new: Paper) -> Paper:
    """What is known of a paper after more has come in.

    An older version, or a source that knows no versions, only fills what is not known; a newer one
    replaces what it says and leaves what it does not. Counts follow the last to come. Dates of
    first events stay.
    """
    older = new.version is not None and old.version is not None and new.version < old.version
    changes: dict[str, object] = {}
    for name in (f.name for f in fields(Paper) if f.name not in (*OWN, "id")):
        before, after = getattr(old, name), getattr(new, name)
        if after in (None, ()) or after == before or (name == "abstract" and not after):
            continue
        gap = before in (None, (), "")
        unversioned = new.version is None and old.version is not None and name not in _COUNTS
        known_better = older or unversioned
        if gap or not (known_better or name in _GAPS):
            changes[name] = after
    return replace(old, **changes) if changes else old  # type: ignore[arg-type]
