"""Pages of the almanac: the list, an entry, topics, a comparison.

Each function takes the site and the query and gives the data of a page; nothing here knows of HTTP.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from starlette.datastructures import QueryParams

from thalweg.almanac.entry import KINDS, RELATIONS, Entry
from thalweg.almanac.relations import related
from thalweg.almanac.weighing import importance_of
from thalweg.cli.almanac import claim_plain
from thalweg.errors import ThalwegError, unknown_name
from thalweg.report.evidence import draw
from thalweg.studies.study import available
from thalweg.web.answer import Page
from thalweg.web.shelf import Shelved

if TYPE_CHECKING:
    from thalweg.web.site import Site

__all__ = ["compare", "entry", "evidence_svg", "listing", "topic", "topics"]

VERDICTS = ("reproduced", "partly", "not", "untested")
SORTS = ("importance", "date", "title", "verdict", "kind")
#: Entries side by side.
MOST_COMPARED = 6
_BACKWARDS = {
    "builds_on": "built on by",
    "contrasts": "contrasts",
    "same_quantity": "same quantity",
    "explains": "explained by",
}


def listing(site: Site, query: QueryParams) -> Page:
    """All entries, filtered and sorted as asked."""
    everything = site.shelf.all()
    years = sorted({s.entry.source.date[:4] for s in everything}, reverse=True)
    known = {
        "kind": [k for k in KINDS if any(s.entry.kind == k for s in everything)],
        "topic": sorted({t for s in everything for t in s.entry.topics}),
        "verdict": list(VERDICTS),
        "year": years,
        "sort": list(SORTS),
    }
    chosen = {name: query.get(name, "") for name in known}
    for name, value in chosen.items():
        if value and value not in known[name]:
            raise unknown_name(name, value[:100], known[name])
    found = [s for s in everything if _fits(s, chosen)]
    return Page(
        "list.html",
        "Almanac",
        {
            "entries": [brief(s) for s in sort(found, chosen["sort"] or "importance")],
            **_asked(chosen),
        },
        {"known": known, "chosen": chosen, "counts": _counts(everything), "total": len(everything)},
    )


def topics(site: Site, query: QueryParams) -> Page:
    """Every topic with its entries counted by verdict."""
    everything = site.shelf.all()
    rows = [
        {"topic": name, **_counts([s for s in everything if name in s.entry.topics])}
        for name in sorted({t for s in everything for t in s.entry.topics})
    ]
    return Page("topics.html", "Topics", {"topics": rows})


def topic(site: Site, query: QueryParams, topic: str) -> Page:
    """The entries on one topic, newest first."""
    everything = site.shelf.all()
    found = [s for s in everything if topic in s.entry.topics]
    if not found:
        raise unknown_name("topic", topic, {t for s in everything for t in s.entry.topics})
    data = {"topic": topic, "entries": [brief(s) for s in sort(found, "date")]}
    return Page("topic.html", topic.replace("-", " "), data)


def entry(site: Site, query: QueryParams, slug: str) -> Page:
    """One entry with all its claims, figures and relations."""
    shelved = site.shelf.get(slug)
    sorted_by = query.get("related", "relevance")
    near = [asdict(r) for r in related(slug, sort=sorted_by)]
    weight = asdict(importance_of(slug))
    return Page(
        "entry.html",
        shelved.entry.title,
        entry_plain(shelved)
        | {"links": _relations(site, shelved.entry), "related": near, "importance": weight},
        {
            "entry": shelved.entry,
            "standing": shelved.standing,
            "url": read_at(shelved.entry),
            "code": code_at(shelved.entry),
            "weight": weight,
            "studies": [name for name in shelved.entry.studies if name in available()],
            "token": site.token.value,
            "sorted_by": sorted_by,
            "drawn": any(c.evidence for c in shelved.standing.claims),
        },
    )


def evidence_svg(site: Site, slug: str) -> str:
    """The plot of an entry's evidence.

    Raises:
        ThalwegError: if it has none.
    """
    claims = [c for c in site.shelf.get(slug).standing.claims if c.evidence is not None]
    if not claims:
        raise ThalwegError(f"{slug} has no evidence to draw")
    return draw(claims)


def compare(site: Site, query: QueryParams) -> Page:
    """Some entries side by side."""
    asked = list(dict.fromkeys(query.getlist("e")))
    if len(asked) > MOST_COMPARED:
        raise ThalwegError(f"at most {MOST_COMPARED} entries side by side, got {len(asked)}")
    found = [site.shelf.get(slug) for slug in asked]
    shared = set.intersection(*(set(s.entry.topics) for s in found)) if found else set()
    choices = [(s.entry.slug, s.entry.title) for s in sort(site.shelf.all(), "title")]
    return Page(
        "compare.html",
        "Compare results",
        {"entries": [entry_plain(s) for s in found], "shared_topics": sorted(shared)},
        {"found": found, "choices": choices, "asked": asked, "most": MOST_COMPARED},
    )


def brief(s: Shelved) -> dict[str, Any]:
    """An entry as a line of a list."""
    return {
        "slug": s.entry.slug,
        "title": s.entry.title,
        "kind": s.entry.kind,
        "source": s.entry.source.short,
        "date": s.entry.source.date,
        "topics": list(s.entry.topics),
        "verdict": s.standing.verdict,
        "stale": s.standing.stale,
        "claims": len(s.standing.claims),
        "importance": importance_of(s.entry.slug).score,
    }


def entry_plain(s: Shelved) -> dict[str, Any]:
    """An entry with its claims as JSON."""
    return asdict(s.entry) | {
        "implemented": s.entry.implemented,
        "verdict": s.standing.verdict,
        "stale": s.standing.stale,
        "claims": [claim_plain(c) for c in s.standing.claims],
    }


def sort(found: Iterable[Shelved], by: str) -> list[Shelved]:
    """Entries in an order of ``SORTS``; ties by title."""
    found = sorted(found, key=lambda s: s.entry.title.casefold())
    if by == "importance":
        return sorted(found, key=lambda s: importance_of(s.entry.slug).score, reverse=True)
    if by == "date":
        return sorted(found, key=lambda s: s.entry.source.date, reverse=True)
    if by == "verdict":
        return sorted(found, key=lambda s: VERDICTS.index(s.standing.verdict))
    if by == "kind":
        return sorted(found, key=lambda s: KINDS.index(s.entry.kind))
    return found


def read_at(entry: Entry) -> str | None:
    """Where to read the source: https only, whatever the file says."""
    source = entry.source
    if source.arxiv:
        return f"https://arxiv.org/abs/{source.arxiv}"
    if source.doi:
        return f"https://doi.org/{source.doi}"
    return _web(source.url)


def code_at(entry: Entry) -> str | None:
    """Where the authors' code lies."""
    code = entry.source.code
    if code and "://" not in code and code.count("/") == 1:
        return f"https://github.com/{code}"
    return _web(code)


def _web(url: str | None) -> str | None:
    return url if url and url.startswith(("https://", "http://")) else None


def _fits(s: Shelved, chosen: Mapping[str, str]) -> bool:
    return (
        chosen["kind"] in ("", s.entry.kind)
        and (not chosen["topic"] or chosen["topic"] in s.entry.topics)
        and chosen["verdict"] in ("", s.standing.verdict)
        and chosen["year"] in ("", s.entry.source.date[:4])
    )


def _asked(chosen: Mapping[str, str]) -> dict[str, Any]:
    return {"filters": {name: value for name, value in chosen.items() if value}}


def _counts(found: Iterable[Shelved]) -> dict[str, int]:
    verdicts = [s.standing.verdict for s in found]
    return {name: verdicts.count(name) for name in VERDICTS}


def _relations(site: Site, entry: Entry) -> list[dict[str, str]]:
    """Links of the entry, then those of others to it."""
    titles = {s.entry.slug: s.entry.title for s in site.shelf.all()}
    rows = [
        {"rel": rel.replace("_", " "), "slug": link.slug, "title": titles[link.slug]}
        for rel in RELATIONS
        for link in entry.links
        if link.rel == rel
    ]
    told = {row["slug"] for row in rows}
    for other in site.shelf.all():
        for link in other.entry.links:
            if link.slug == entry.slug and other.entry.slug not in told:
                row = {"rel": _BACKWARDS[link.rel], "slug": other.entry.slug}
                rows.append({**row, "title": other.entry.title})
    return rows
