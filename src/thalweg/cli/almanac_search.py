"""``thalweg almanac search``, ``related`` and ``papers``: what is there on a question."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter
from cyclopts.validators import Number

from thalweg.cli.options import Count

if TYPE_CHECKING:
    from thalweg.almanac.paper import Paper
    from thalweg.almanac.run_findings import RunFinding

__all__ = ["papers", "related", "search"]

Flag = Parameter(negative="", show_default=False)
Option = Parameter(show_default=False)


def search(
    query: str = "",
    /,
    *,
    kind: Annotated[str | None, Option] = None,
    topic: Annotated[str | None, Option] = None,
    verdict: Annotated[str | None, Option] = None,
    year: Annotated[int | None, Option] = None,
    evidence: Annotated[bool, Flag] = False,
    min_importance: Annotated[
        int | None, Parameter(validator=Number(gte=1, lte=10), show_default=False)
    ] = None,
    limit: Count = 10,
    json: Annotated[bool, Flag] = False,
) -> int:
    """Search entries and the papers that were read in; without a question, the newest.

    Args:
        query: a question in plain words, in quotes.
        kind: only entries of this kind, or paper.
        topic: only on this topic.
        verdict: only reproduced, partly, not or untested entries.
        year: only of this year.
        evidence: only entries with evidence.
        min_importance: only of this importance or more, 1 to 10.
        limit: at most so many.
        json: print JSON.
    """
    from thalweg.almanac.finding import search as find
    from thalweg.cli.output import print_json

    hits = find(
        query,
        limit,
        kind=kind,
        topic=topic,
        verdict=verdict,
        year=year,
        has_evidence=True if evidence else None,
        min_importance=min_importance,
    )
    if json:
        print_json([asdict(hit) for hit in hits])
        return 0
    for hit in hits:
        said = ", ".join(filter(None, [hit.kind, hit.verdict, f"importance {hit.importance}"]))
        _thing(f"{hit.name}  {hit.title}", [f"{hit.date[:10]}, {said}; {hit.why}"])
    print(_count(len(hits), "hit"))
    return 0


def related(
    slug: str,
    /,
    *,
    limit: Count = 6,
    sort: Literal["relevance", "date", "importance"] = "relevance",
    json: Annotated[bool, Flag] = False,
) -> int:
    """Show the entries that an entry, or a paper that was read in, is related to, and why.

    Args:
        slug: of an entry, or the id of a paper as arxiv:2401.00001.
        limit: at most so many.
        sort: the order in which they are shown.
        json: print JSON.
    """
    from thalweg.almanac.relations import related as find
    from thalweg.cli.output import print_json

    found = find(slug, limit, sort)
    if json:
        print_json([asdict(r) for r in found])
        return 0
    for r in found:
        _thing(f"{r.slug}  {r.title}", [f"{r.date}, importance {r.importance}; {r.why}"])
    print(_count(len(found), "related entry", "related entries"))
    return 0


def papers(
    *,
    limit: Count = 20,
    since: Annotated[str | None, Option] = None,
    sort: Literal["date", "hot"] = "date",
    runs: Annotated[Path | None, Option] = None,
    json: Annotated[bool, Flag] = False,
) -> int:
    """List the papers that were read in: what each is near to, and which of your runs it concerns.

    Args:
        limit: at most so many.
        since: only of this day or later, as 2026-11-24.
        sort: the newest first, or the hottest: importance that halves every 30 days.
        runs: directory of runs; a paper says which of their diagnoses it has to do with.
        json: print JSON.
    """
    from thalweg.almanac.run_findings import run_findings
    from thalweg.almanac.store import papers as read
    from thalweg.cli.output import print_json

    found = read(since=since) if sort == "hot" else read(since=since, limit=limit)
    if sort == "hot":
        found.sort(key=lambda p: (-p.hot(), p.id))
        found = found[:limit]
    shown = run_findings(runs) if runs is not None else ()
    if json:
        print_json([paper_plain(p, shown) for p in found])
        return 0
    print_papers(found, shown)
    print(_count(len(found), "paper"))
    return 0


def paper_plain(paper: Paper, runs: Sequence[RunFinding] = ()) -> dict[str, Any]:
    """A paper as JSON."""
    from thalweg.almanac.run_findings import concerning

    plain = asdict(paper) | {"url": paper.url, "topics": paper.topics, "hot": round(paper.hot(), 4)}
    return plain | {"concerns": concerning(paper, runs)}


def print_papers(found: Sequence[Paper], runs: Sequence[RunFinding] = ()) -> None:
    """Papers, a few lines each."""
    from thalweg.almanac.run_findings import concerning

    for paper in found:
        near = "; ".join(f"{n.slug} ({n.why})" for n in paper.near) or "no entry"
        lines = [f"{paper.date}, importance {paper.importance}, near to {near}"]
        if why := concerning(paper, runs):
            lines.append(why)
        _thing(f"{paper.id}  {paper.title}", lines)


def _thing(heading: str, lines: Sequence[str]) -> None:
    from thalweg.cli.output import width

    wide = width()
    print(heading if len(heading) <= wide else f"{heading[: wide - 1]}…")
    for line in lines:
        print(
            textwrap.fill(
                line,
                wide,
                initial_indent="  ",
                subsequent_indent="  ",
                break_on_hyphens=False,
                break_long_words=False,
            )
        )


def _count(n: int, one: str, many: str = "") -> str:
    return f"{n} {one if n == 1 else many or one + 's'}"
