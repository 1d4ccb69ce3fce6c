"""``thalweg almanac``: the published results, what each claims, and where it stands."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import App, Parameter

from thalweg.cli.almanac_build import build
from thalweg.cli.almanac_feeds import digest, export, ingest
from thalweg.cli.almanac_search import papers, related, search

if TYPE_CHECKING:
    from thalweg.almanac.evidence import Evidence
    from thalweg.almanac.standings import ClaimStanding

__all__ = ["almanac", "claim_lines", "claim_plain"]

Flag = Parameter(negative="", show_default=False)
Origin = Literal["shipped", "user"]

almanac = App(
    name="almanac",
    help="The published results: what each claims, what was measured here, and the verdict.",
    help_epilogue="Example: thalweg almanac show conservation-laws",
)
almanac.command(search, help_epilogue='Example: thalweg almanac search "why did the loss jump"')
almanac.command(related, help_epilogue="Example: thalweg almanac related grokalign")
almanac.command(papers, help_epilogue="Example: thalweg almanac papers --sort hot --runs runs")
almanac.command(ingest, help_epilogue="Example: thalweg almanac ingest papers.xml")
almanac.command(digest, help_epilogue="Example: thalweg almanac digest 2026-11")
almanac.command(build, help_epilogue="Example: thalweg almanac build site")
almanac.command(export, help_epilogue="Example: thalweg almanac export atom --kind law -o laws.xml")


@almanac.command(name="list", help_epilogue="Example: thalweg almanac list --kind law")
def list_(
    *,
    kind: str | None = None,
    topic: str | None = None,
    verdict: str | None = None,
    json: Annotated[bool, Flag] = False,
) -> int:
    """List the entries with their verdicts.

    Args:
        kind: only entries of this kind.
        topic: only entries on this topic.
        verdict: only reproduced, partly, not or untested ones.
        json: print JSON.
    """
    from thalweg.almanac.catalogue import entries
    from thalweg.almanac.standings import standing
    from thalweg.cli.output import print_json, width

    found = [(e, standing(e)) for e in entries(kind=kind, topic=topic, verdict=verdict)]
    if json:
        print_json(
            [
                {
                    "slug": e.slug,
                    "title": e.title,
                    "kind": e.kind,
                    "date": e.source.date,
                    "topics": list(e.topics),
                    "implemented": e.implemented,
                    "verdict": s.verdict,
                    "stale": s.stale,
                }
                for e, s in found
            ]
        )
        return 0
    marks = [s.verdict + (" (stale)" if s.stale else "") for _, s in found]
    column = max((len(mark) for mark in marks), default=0)
    for (e, _), mark in zip(found, marks, strict=True):
        line = f"{mark:{column}} {e.slug:31} {e.title}"
        print(line if len(line) <= width() else line[: width() - 1] + "…")
    tested = sum(s.verdict != "untested" for _, s in found)
    noun = "entry" if len(found) == 1 else "entries"
    print(f"{len(found)} {noun}, {tested} with evidence")
    return 0


@almanac.command(help_epilogue="Example: thalweg almanac show conservation-laws")
def show(
    slug: str,
    /,
    *,
    evidence: Annotated[Origin | None, Parameter(show_default=False)] = None,
    json: Annotated[bool, Flag] = False,
) -> int:
    """Show one entry: summary, source, claims with figures, related entries.

    Args:
        slug: of the entry.
        evidence: only shipped or only user evidence; by default the newest of both.
        json: print JSON.
    """
    from dataclasses import asdict

    from thalweg.almanac.catalogue import get
    from thalweg.almanac.standings import standing
    from thalweg.cli.output import print_json

    entry = get(slug)
    now = standing(entry, evidence)
    if json:
        data = asdict(entry) | {
            "implemented": entry.implemented,
            "verdict": now.verdict,
            "stale": now.stale,
            "claims": [claim_plain(c) for c in now.claims],
        }
        print_json(data)
        return 0
    print(entry.title)
    print(*_fill("", f"{', '.join(entry.source.authors)}. {entry.source.short}"), sep="\n")
    state = now.verdict + (", stale" if now.stale else "")
    print(f"{entry.kind}, {state}" + ("" if entry.implemented else ", not implemented yet"))
    print()
    print(*_fill("", entry.summary), sep="\n")
    for c in now.claims:
        print()
        print(*claim_lines(c), sep="\n")
    print()
    rows = [
        ("topics", entry.topics),
        ("code", entry.symbols),
        ("guides", entry.guides),
        ("related", [f"{link.slug} ({link.rel.replace('_', ' ')})" for link in entry.links]),
    ]
    for name, values in rows:
        if values:
            print(*_fill(f"{name:9}", ", ".join(values)), sep="\n")
    return 0


@almanac.command(help_epilogue="Example: thalweg almanac verify")
def verify(*, json: Annotated[bool, Flag] = False) -> int:
    """Check that every stored verdict follows from its samples; exit 1 if one does not.

    Evidence that is merely out of date (the code or a threshold has changed since) is named, and
    changes nothing about the exit code.

    Args:
        json: print JSON.
    """
    from thalweg.almanac.catalogue import entries
    from thalweg.almanac.verification import verify as verify_all
    from thalweg.cli.output import print_json

    found = verify_all(entries())
    bad = [v for v in found if v.problem]
    if json:
        files = [{"path": str(v.path), "problem": v.problem, "stale": v.stale} for v in found]
        print_json({"files": files, "problems": len(bad)})
        return int(bool(bad))
    for v in found:
        if v.problem:
            print(*_fill("WRONG  ", f"{v.path}: {v.problem}"), sep="\n")
        elif v.stale:
            print(*_fill("stale  ", f"{v.path.parent.name}/{v.path.name}: {v.stale}"), sep="\n")
    stale = sum(bool(v.stale) for v in found)
    print(f"{len(found)} files of evidence: {len(bad)} wrong, {stale} stale")
    return int(bool(bad))


def claim_lines(c: ClaimStanding, lead: str = "") -> list[str]:
    """A claim, its figures and its verdict, in lines that fit the terminal."""
    from thalweg.cli.output import number

    claim, judged = c.claim, c.judgement
    verdict = judged.verdict.upper() + (f", stale: {c.stale}" if c.stale else "")
    lines = _fill(f"{verdict}  ", f"{claim.statement} [{lead}{claim.id}]")
    unit = f" {claim.unit}" if claim.unit else ""
    if claim.setting:
        lines += _fill("  setting    ", claim.setting)
    if claim.paper_value is not None:
        lines += _fill("  published  ", f"{claim.paper_value}")
    lines += _fill("  must be    ", f"{claim.bound}{unit}")
    if c.evidence is not None:
        samples = c.evidence.samples[claim.id]
        text = f"{number(judged.mean)} over {len(samples)} seeds, 95 % bound {number(judged.bound)}"
        lines += _fill("  measured   ", f"{text} ({' '.join(map(number, samples))})")
        if claim.baseline and c.baseline is not None:
            lines += _fill("  baseline   ", f"{number(c.baseline)}: {claim.baseline.name}")
        if claim.control and c.control is not None:
            lines += _fill("  control    ", f"{number(c.control)}: {claim.control.name}")
        when = f"{c.evidence.preset} preset, {c.evidence.run_at[:10]}, {c.origin} evidence"
        lines += _fill("  evidence   ", when)
    else:
        lines += _fill("  study      ", claim.study_name)
    return lines


def claim_plain(c: ClaimStanding) -> dict[str, Any]:
    """A claim, its figures and its verdict, as JSON."""
    from dataclasses import asdict

    item = c.evidence
    return asdict(c.claim) | {
        "verdict": c.judgement.verdict,
        "mean": c.judgement.mean,
        "bound": c.judgement.bound,
        "stale": c.stale,
        "origin": c.origin,
        "samples": list(item.samples[c.claim.id]) if item else [],
        "baselines": list(item.baselines.get(c.claim.id, ())) if item else [],
        "controls": list(item.controls.get(c.claim.id, ())) if item else [],
        "evidence": _without_curves(item) if item else None,
    }


def _without_curves(item: Evidence) -> dict[str, Any]:
    from dataclasses import replace

    from thalweg.almanac.evidence import as_json

    found = as_json(replace(item, curves={}))  # before: they are most of it
    del found["curves"]
    return found


def _fill(lead: str, text: str) -> list[str]:
    from thalweg.cli.output import width

    return textwrap.wrap(
        text,
        width(),
        initial_indent=lead,
        subsequent_indent=" " * min(len(lead), 13),
        break_on_hyphens=False,
        break_long_words=False,
    )
