"""What happened in a day, a week or a month: new entries, changed verdicts, papers worth a look.

Source: the project's almanac (2026); weeks as in ISO 8601.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from thalweg.almanac.bulletin_pages import as_html, as_message, as_text
from thalweg.almanac.catalogue import entries
from thalweg.almanac.entry import Entry
from thalweg.almanac.evidence import Evidence
from thalweg.almanac.paper import Paper
from thalweg.almanac.store import papers
from thalweg.almanac.verdict import entry_verdict
from thalweg.almanac.weighing import all_evidence
from thalweg.errors import ThalwegError

if TYPE_CHECKING:
    from thalweg.almanac.run_findings import RunFinding

__all__ = ["Change", "Digest", "digest", "period_days"]


@dataclass(frozen=True)
class Change:
    """A verdict that changed.

    Attributes:
        slug: of the entry.
        title: its title.
        before: the verdict at the start of the period.
        after: at its end.
        date: ISO day of the evidence that made the difference.
    """

    slug: str
    title: str
    before: str
    after: str
    date: str


@dataclass(frozen=True)
class Digest:
    """A digest, and how to read it.

    Attributes:
        period: as asked for.
        first: first day, ISO.
        last: last day, ISO.
        entries: results first published in the period.
        changes: verdicts that changed in it.
        papers: read in from feeds and published in it, the hottest first.
        runs: paper id to what it has to do with the user's runs, in words.
    """

    period: str
    first: str
    last: str
    entries: tuple[Entry, ...]
    changes: tuple[Change, ...]
    papers: tuple[Paper, ...]
    runs: dict[str, str]

    @property
    def keys(self) -> tuple[str, ...]:
        """One name for each item, by which it is known whether it was sent."""
        return (
            *(f"entry:{e.slug}" for e in self.entries),
            *(f"verdict:{c.slug}:{c.date}:{c.after}" for c in self.changes),
            *(f"paper:{p.id}" for p in self.papers),
        )

    @property
    def text(self) -> str:
        """Plain text, lines of at most 78 characters where words allow."""
        return as_text(self)

    @property
    def html(self) -> str:
        """A whole page that loads nothing."""
        return as_html(self)

    @property
    def eml(self) -> bytes:
        """A mail without sender and recipient, which a mail program opens as a file."""
        return as_message(self).as_bytes()

    def without(self, keys: Collection[str]) -> Digest:
        """The same digest without some items."""
        return Digest(
            self.period,
            self.first,
            self.last,
            tuple(e for e in self.entries if f"entry:{e.slug}" not in keys),
            tuple(c for c in self.changes if f"verdict:{c.slug}:{c.date}:{c.after}" not in keys),
            tuple(p for p in self.papers if f"paper:{p.id}" not in keys),
            self.runs,
        )


def digest(period: str | None = None, *, k: int = 10, runs: Sequence[RunFinding] = ()) -> Digest:
    """The digest of a period.

    Args:
        period: ISO week ``2026-W47``, month ``2026-11`` or day ``2026-11-24``, UTC; this week if
            left out.
        k: at most so many papers.
        runs: what the user's runs show, from ``run_findings``; papers that concern one say why.

    Raises:
        ThalwegError: for another form of period, or one that there is not.
        ValueError: if k is negative.

    Example:
        >>> digest("2026-W24").first
        '2026-06-08'
    """
    if k < 0:
        raise ValueError(f"digest: k must be at least 0, got {k}")
    today = datetime.datetime.now(datetime.UTC).date()
    if period is None:
        period = f"{today.isocalendar().year}-W{today.isocalendar().week:02d}"
    first, last = period_days(period)
    start, end = first.isoformat(), last.isoformat()
    # How hot a paper was does not change once its period is over.
    moment = min(last, max(today, first))
    read = [p for p in papers(since=start) if p.date <= end]
    read.sort(key=lambda p: (-p.hot(moment), p.id))
    shown = tuple(read[:k])
    return Digest(
        period,
        start,
        end,
        tuple(e for e in entries() if start <= e.source.date <= end),
        tuple(_changes(start, end)),
        shown,
        _in_runs(shown, runs),
    )


def period_days(period: str) -> tuple[datetime.date, datetime.date]:
    """First and last day of a period.

    Raises:
        ThalwegError: for another form, or a week or month that there is not.

    Example:
        >>> [str(day) for day in period_days("2026-W47")]
        ['2026-11-16', '2026-11-22']
    """
    try:
        if found := re.fullmatch(r"(\d{4})-W(\d{2})", period):
            first = datetime.date.fromisocalendar(int(found[1]), int(found[2]), 1)
            return first, first + datetime.timedelta(days=6)
        if found := re.fullmatch(r"(\d{4})-(\d{2})", period):
            first = datetime.date(int(found[1]), int(found[2]), 1)
            after = (first.replace(day=28) + datetime.timedelta(days=4)).replace(day=1)
            return first, after - datetime.timedelta(days=1)
        if re.fullmatch(r"\d{4}-\d{2}-\d{2}", period):
            day = datetime.date.fromisoformat(period)
            return day, day
    except (ValueError, OverflowError) as error:
        raise ThalwegError(f"period {period!r}: {error}") from None
    raise ThalwegError(
        f"period {period!r}: expected a week 2026-W47, a month 2026-11 or a day 2026-11-24"
    )


def _changes(start: str, end: str) -> list[Change]:
    found, evidence = [], all_evidence()
    for entry in entries():
        items = evidence[entry.slug]
        before = _verdict(entry, [i for i in items if i.run_at[:10] < start])
        within = [i for i in items if start <= i.run_at[:10] <= end]
        after = _verdict(entry, [i for i in items if i.run_at[:10] <= end])
        if within and after != before:
            date = within[-1].run_at[:10]
            found.append(Change(entry.slug, entry.title, before, after, date))
    return found


def _verdict(entry: Entry, items: Sequence[Evidence]) -> str:
    """From evidence in order of time: the newest that has a claim counts for it."""
    judged = []
    for claim in entry.claims:
        having = [item for item in items if claim.id in item.samples]
        judged.append(having[-1].judgement(claim.id).verdict if having else "untested")
    return entry_verdict(judged)


def _in_runs(shown: Sequence[Paper], runs: Sequence[RunFinding]) -> dict[str, str]:
    """Paper id to why it concerns a run."""
    from thalweg.almanac.run_findings import concerning

    return {p.id: why for p in shown if (why := concerning(p, runs))}
