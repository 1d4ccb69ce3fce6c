"""The page of results: every entry, its claims and what was measured, made from evidence only.

Source: the project's almanac (2026).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from thalweg.almanac.entry import Entry
from thalweg.almanac.standings import ClaimStanding, Standing, standing

__all__ = ["results_page"]

_WORDS = {
    "reproduced": "every claim holds here, its 95 % interval included",
    "partly": "some claims hold here",
    "not": "no claim holds here",
    "untested": "not run here yet",
}


def results_page(entries: Sequence[Entry]) -> str:
    """The Markdown of ``docs/results.md``, from shipped evidence.

    Args:
        entries: the almanac.
    """
    found = [(e, standing(e, "shipped")) for e in entries]
    counts = Counter(s.verdict for _, s in found)
    lines = [
        "# Results",
        "",
        "Made from the evidence by `python docs/build_pages.py`; do not edit. A verdict follows "
        "from the samples and a threshold that was fixed before the study ran; doing better than "
        "published is never a failure.",
        "",
        "| verdict | entries | means |",
        "|---|---|---|",
        *(f"| {v} | {counts[v]} | {words} |" for v, words in _WORDS.items()),
        "",
    ]
    tested = [(e, s) for e, s in found if s.verdict != "untested"]
    for entry, now in tested:
        lines += _entry(entry, now)
    lines += ["## Untested", "", "| entry | result | claims |", "|---|---|---|"]
    for entry, now in found:
        if now.verdict == "untested":
            state = "" if entry.implemented else " (not implemented yet)"
            lines.append(
                f"| `{entry.slug}` | {entry.title}, {entry.source.short}{state} | "
                f"{len(entry.claims)} |"
            )
    return "\n".join(lines) + "\n"


def _entry(entry: Entry, now: Standing) -> list[str]:
    stale = ", stale" if now.stale else ""
    lines = [
        f"## {entry.title}",
        "",
        f"`{entry.slug}`: **{now.verdict}**{stale}. {entry.source.short}.",
        "",
        entry.summary,
        "",
        "| claim | must be | published | measured (95 % bound) | baseline | control | verdict |",
        "|---|---|---|---|---|---|---|",
    ]
    return [*lines, *(_claim(c) for c in now.claims), "", *_provenance(now), ""]


def _claim(c: ClaimStanding) -> str:
    claim, judged = c.claim, c.judgement
    published = "" if claim.paper_value is None else str(claim.paper_value)
    measured = ""
    if c.evidence is not None:
        bound = "" if judged.bound is None else f" ({judged.bound:.3g})"
        mean = "not finite" if judged.mean is None else f"{judged.mean:.3g}"
        measured = f"{mean}{bound}, {len(c.evidence.seeds)} seeds"
    baseline = "" if c.baseline is None or not claim.baseline else f"{c.baseline:.3g}"
    control = "" if c.control is None or not claim.control else f"{c.control:.3g}"
    verdict = judged.verdict + (f" (stale: {c.stale})" if c.stale else "")
    unit = f" {claim.unit}" if claim.unit else ""
    cells = [
        f"{claim.statement} `{claim.id}`",
        f"{claim.bound}{unit}",
        published,
        measured,
        baseline,
        control,
        verdict,
    ]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _provenance(now: Standing) -> list[str]:
    told = {}
    for c in now.claims:
        if c.evidence is not None:
            told[c.path] = (
                f"`thalweg study run {c.evidence.study} --preset {c.evidence.preset}`, "
                f"{c.evidence.run_at[:10]}, torch {c.evidence.versions['torch']}, "
                f"{sum(c.evidence.wall_s):.0f} s for {len(c.evidence.seeds)} seeds"
            )
    return [f"- {line}" for line in told.values()]
