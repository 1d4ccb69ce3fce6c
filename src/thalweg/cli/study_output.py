"""What ``thalweg study`` prints: runs with their figures, and what the preset ``paper`` costs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from thalweg.studies.runner import Plan, StudyRun

__all__ = ["cost_plain", "print_costs", "print_run", "run_plain", "told", "wrap"]


def print_run(point: dict[str, str], done: StudyRun, written: Sequence[Any]) -> None:
    """A run: the figures of each claim, its verdict, where the evidence lies."""
    from thalweg.almanac.catalogue import study_entries
    from thalweg.almanac.verdict import judge
    from thalweg.cli.output import number

    print()
    print(f"{done.study} {done.preset} {told(point)}".rstrip(), f"({len(done.seeds)} seeds)")
    for entry in study_entries(done.study):
        for claim in entry.claims:
            samples = done.samples(claim.id)
            if claim.study_name != done.study or not samples:
                continue
            judged = judge(samples, claim.op, claim.threshold)
            figures = " ".join(number(x) for x in samples)
            wrap("  ", f"{entry.slug}/{claim.id}: {figures} (must be {claim.bound})")
            rest = [
                f"{kind[:-1]} " + " ".join(number(x) for x in done.samples(claim.id, kind))
                for kind in ("baselines", "controls")
                if done.samples(claim.id, kind)
            ]
            if rest:
                wrap("    ", "; ".join(rest))
            if not written:
                wrap("    ", f"would be {judged.verdict}; a trial, no evidence")
    for entry, path, item in written:
        for claim_id in item.samples:
            wrap("  ", f"{entry.slug}/{claim_id}: {item.judgement(claim_id).verdict}")
        wrap("  ", f"evidence: {path}")


def run_plain(point: dict[str, str], done: StudyRun, written: Sequence[Any]) -> dict[str, Any]:
    """A run as JSON, without its curves."""
    from dataclasses import asdict

    return {
        "study": done.study,
        "preset": done.preset,
        "sweep": point,
        "config": asdict(done.config),
        "seeds": list(done.seeds),
        "figures": [{k: v for k, v in asdict(f).items() if k != "curves"} for f in done.figures],
        "wall_s": list(done.wall_s),
        "evidence": [
            {"entry": e.slug, "path": str(path), "verdict": item.verdict}
            for e, path, item in written
        ],
    }


def print_costs(plans: Sequence[Plan]) -> None:
    """What is ahead, before it is begun; settings that are swept cost about the same each."""
    import sys

    from thalweg.studies.cost import cost

    for name in dict.fromkeys(plan.study for plan in plans):
        seeds = sum(len(plan.seeds) for plan in plans if plan.study == name)
        wrap("", f"{name} paper: {cost(name).told(seeds)}", file=sys.stderr)


def cost_plain(name: str) -> dict[str, Any]:
    """The cost of a study's ``paper`` as JSON."""
    from thalweg.studies.cost import cost
    from thalweg.studies.runner import default_seeds

    paper = cost(name)
    return {
        "cpu_hours_a_seed": paper.hours,
        "seeds": len(default_seeds(name, "paper")),
        "memory_bytes": paper.memory,
        "times_quick": paper.factor,
        "work": paper.work,
        "quick_seconds": paper.quick_s,
        "estimate": True,
    }


def told(point: dict[str, str]) -> str:
    """Swept settings in words."""
    return " ".join(f"{k}={v}" for k, v in point.items())


def wrap(lead: str, text: str, file: Any = None) -> None:
    """Print a paragraph in the width of the terminal, indented after its first line."""
    import textwrap

    from thalweg.cli.output import width

    print(
        textwrap.fill(
            text,
            width(),
            initial_indent=lead,
            subsequent_indent=" " * (len(lead) + (0 if lead.strip() else 2)),
            break_on_hyphens=False,
            break_long_words=False,
        ),
        file=file,
    )
