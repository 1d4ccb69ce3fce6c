"""Search, digests, feeds and badges: what the almanac can be asked."""

from __future__ import annotations

import datetime
from dataclasses import asdict
from functools import lru_cache
from typing import TYPE_CHECKING

from starlette.datastructures import QueryParams

from thalweg.almanac.bulletin import Digest, period_days
from thalweg.almanac.bulletin import digest as digest_of
from thalweg.almanac.corpus import corpus
from thalweg.almanac.entry import KINDS
from thalweg.almanac.feeds import export
from thalweg.almanac.finding import VERDICTS
from thalweg.almanac.finding import search as search_in
from thalweg.almanac.paper import Paper
from thalweg.almanac.run_findings import RunFinding
from thalweg.almanac.store import store_state
from thalweg.errors import ThalwegError
from thalweg.web.answer import Page

if TYPE_CHECKING:
    from thalweg.web.site import Site

__all__ = ["FEEDS", "badge", "digest", "feed", "search"]

#: Characters of a question, and hits.
MOST_ASKED = 300
HITS = 20
#: Format to its media type.
FEEDS = {
    "atom": "application/atom+xml",
    "rss": "application/rss+xml",
    "json": "application/feed+json",
    "csv": "text/csv",
}


def search(site: Site, query: QueryParams) -> Page:
    """Entries and papers that fit a question; the newest without one."""
    names = ("q", "kind", "topic", "verdict", "year", "min_importance")
    chosen = {name: query.get(name, "") for name in names}
    if len(chosen["q"]) > MOST_ASKED:
        raise ThalwegError(f"a question of at most {MOST_ASKED} characters, please")
    for name in ("year", "min_importance"):
        if chosen[name] and not (chosen[name].isascii() and chosen[name].isdigit()):
            raise ThalwegError(f"{name}: expected a number, got {chosen[name][:50]!r}")
    hits = search_in(
        chosen["q"],
        HITS,
        kind=chosen["kind"] or None,
        topic=chosen["topic"] or None,
        verdict=chosen["verdict"] or None,
        year=int(chosen["year"][:4]) if chosen["year"] else None,
        min_importance=int(chosen["min_importance"][:2]) if chosen["min_importance"] else None,
    )
    known = {
        "kind": [*KINDS, "paper"],
        "topic": sorted({t for s in site.shelf.all() for t in s.entry.topics}),
        "verdict": list(VERDICTS),
    }
    read_in = corpus().by_name
    found = [read_in.get(h.name) for h in hits if h.kind == "paper"]
    data = {
        "asked": {k: v for k, v in chosen.items() if v},
        "hits": [asdict(h) for h in hits],
        "concerns": site.concerns.of(p for p in found if isinstance(p, Paper)),
    }
    return Page("search.html", "Search", data, {"chosen": chosen, "known": known})


def digest(site: Site, query: QueryParams, period: str = "") -> Page:
    """What happened in a day, an ISO week or a month; this week if none is named."""
    today = datetime.datetime.now(datetime.UTC).date()
    shown, silent = site.concerns.all()
    found = _digest(period, today, (site.shelf.state, store_state()), shown)
    data = {
        "period": found.period,
        "first": found.first,
        "last": found.last,
        "entries": [asdict(e) for e in found.entries],
        "changes": [asdict(c) for c in found.changes],
        "papers": [asdict(p) for p in found.papers],
        "concerns": found.runs,
        "undiagnosed": list(silent),
    }
    return Page("digest.html", f"Digest {found.period}", data, {"steps": _around(found.period)})


@lru_cache(maxsize=32)
def _digest(
    period: str, today: datetime.date, state: object, runs: tuple[RunFinding, ...]
) -> Digest:
    """A digest, until the day or what it is made of has changed."""
    return digest_of(period or None, runs=runs)


def feed(format: str, query: QueryParams, base_url: str) -> str:
    """Entries and papers as a feed.

    Raises:
        ThalwegError: for a topic or kind that nothing could have.
    """
    return export(
        format,
        topic=query.get("topic") or None,
        kind=query.get("kind") or None,
        base_url=base_url,
    )


_BADGE = (
    '<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="20" role="img" '
    'aria-label="thalweg: {verdict}"><rect width="{width}" height="20" rx="3" fill="#444"/>'
    '<rect x="56" width="{part}" height="20" rx="3" fill="{tone}"/>'
    '<g fill="#fff" font-family="Verdana,sans-serif" font-size="11">'
    '<text x="6" y="14">thalweg</text><text x="62" y="14">{verdict}</text></g></svg>\n'
)
_TONES = {"reproduced": "#1d6b43", "partly": "#8a5a00", "not": "#b3261e", "untested": "#565d64"}


def badge(site: Site, slug: str) -> str:
    """The verdict of an entry as a small picture.

    Raises:
        ThalwegError: if there is no such entry.
    """
    verdict = site.shelf.get(slug).standing.verdict
    part = 7 * len(verdict) + 12
    return _BADGE.format(width=56 + part, part=part, verdict=verdict, tone=_TONES[verdict])


def _around(period: str) -> dict[str, str]:
    """The periods before and after, and the ones of other lengths that begin in it."""
    first, last = period_days(period)
    day = datetime.timedelta(days=1)

    def like(date: datetime.date, kind: str) -> str:
        if kind == "day":
            return date.isoformat()
        if kind == "month":
            return f"{date.year:04d}-{date.month:02d}"
        iso = date.isocalendar()
        return f"{iso.year:04d}-W{iso.week:02d}"

    kind = "week" if "W" in period else "day" if len(period) == 10 else "month"
    near = {name: like(first, name) for name in ("day", "week", "month") if name != kind}
    if first > datetime.date(1000, 1, 31):
        near["before"] = like(first - day, kind)
    if last < datetime.date(9999, 12, 1):
        near["after"] = like(last + day, kind)
    return near
