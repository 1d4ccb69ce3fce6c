"""Evidence of a study that ran: its figures, and all that they depend on.

Evidence is only made of a preset as it stands, with at least three seeds: a run with other settings
is a trial, and says so.
"""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import platform
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import thalweg
from thalweg.almanac.code_hash import code_hash, entry_files
from thalweg.almanac.entry import Entry
from thalweg.almanac.evidence import Evidence
from thalweg.almanac.standings import claim_bounds
from thalweg.errors import ThalwegError
from thalweg.studies.runner import StudyRun, versions

__all__ = ["evidence_of", "git_commit"]


def evidence_of(run: StudyRun, entry: Entry, argv: Sequence[str] = ()) -> Evidence:
    """Make evidence for an entry of a finished study.

    Args:
        run: the study's run.
        entry: an entry with claims that it tests.
        argv: how it was started.

    Raises:
        ThalwegError: if the run is no evidence (smoke, other settings, fewer than three seeds), or
            if it did not give a figure that the entry asks for.
    """
    if run.preset == "smoke" or not run.as_preset or len(run.seeds) < 3:
        raise ThalwegError(
            "evidence needs a preset other than smoke, as it stands, and at least 3 seeds"
        )
    claims = [c for c in entry.claims if c.study_name == run.study]
    samples, baselines, controls = {}, {}, {}
    for claim in claims:
        for wanted, kind, into in (
            (True, "samples", samples),
            (claim.baseline is not None, "baselines", baselines),
            (claim.control is not None, "controls", controls),
        ):
            figures = run.samples(claim.id, kind)
            if wanted and not figures:
                raise ThalwegError(
                    f"study {run.study} gave nothing among its {kind} for claim {claim.id!r} of "
                    f"{entry.slug}"
                )
            if figures:
                into[claim.id] = figures
    hashes = sorted({f.data_hash for f in run.figures})
    evidence = Evidence(
        entry=entry.slug,
        study=run.study,
        preset=run.preset,
        config=dataclasses.asdict(run.config),
        run_at=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        commit=git_commit(),
        code_hash=code_hash(entry_files(entry.symbols, run.study)),
        data_hash=hashlib.sha256(" ".join(hashes).encode()).hexdigest()[:16],
        versions=versions(),
        platform=f"{platform.system()} {platform.machine()}",
        threads=1,
        seeds=run.seeds,
        bounds={c.id: claim_bounds(c) for c in claims},
        samples=samples,
        baselines=baselines,
        controls=controls,
        curves=_curves(run),
        verdict="",
        wall_s=run.wall_s,
        argv=tuple(argv),
    )
    return dataclasses.replace(evidence, verdict=evidence.computed_verdict())


def git_commit() -> str:
    """Commit of the checkout that this package runs from, ``+`` if changed; empty outside one."""
    root = Path(thalweg.__file__).parent

    def git(*words: str) -> str:
        done = subprocess.run(["git", *words], cwd=root, capture_output=True, text=True, timeout=10)
        return done.stdout.strip() if done.returncode == 0 else ""

    try:
        if not git("ls-files", "--error-unmatch", "__init__.py"):
            return ""  # installed inside somebody else's checkout
        changed = git("status", "--porcelain", "--untracked-files=no", "--", ".")
        return git("rev-parse", "--short=12", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.TimeoutExpired):
        return ""


def _curves(run: StudyRun) -> Mapping[str, Mapping[str, Any]]:
    names = run.figures[0].curves
    for name, (x, _) in names.items():
        for figures in run.figures:
            mine = figures.curves.get(name, (x, x))
            if list(mine[0]) != list(x) or len(mine[1]) != len(x):
                raise ThalwegError(
                    f"curve {name!r} has other x for some seeds: give all the same, and nan as y "
                    "where a seed has no figure"
                )
    return {
        name: {
            "x": list(names[name][0]),
            "y": [list(f.curves[name][1]) for f in run.figures],
        }
        for name in names
        if all(name in f.curves for f in run.figures)
    }
