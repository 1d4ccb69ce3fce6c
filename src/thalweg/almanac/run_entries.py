"""What the user's runs have to do with a paper: both point at entries, and entries have topics.

Source: the project's almanac (2026).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from thalweg.almanac.catalogue import entries
from thalweg.almanac.paper import Paper
from thalweg.errors import ThalwegError

__all__ = ["concerning", "run_entries"]


def run_entries(folder: str | os.PathLike[str]) -> list[tuple[str, str, str]]:
    """What the doctor finds in the runs of a folder: name of the run, entry, symptom.

    Args:
        folder: in which runs lie; what is no run is passed over.

    Raises:
        ThalwegError: if there is no such folder.
    """
    from thalweg.doctor.examination import diagnose

    folder = Path(folder)
    if not folder.is_dir():
        raise ThalwegError(f"{folder}: there is no such folder of runs")
    found = []
    for path in sorted(p for p in folder.iterdir() if p.is_dir()):
        try:
            diagnoses = diagnose(path)
        except ThalwegError:
            continue
        found += [(path.name, d.entry, d.symptom) for d in diagnoses if d.entry]
    return found


def concerning(paper: Paper, runs: Sequence[tuple[str, str, str]]) -> str:
    """Why a paper concerns one of the runs, in words; empty if it concerns none.

    It does if the doctor named an entry that the paper is near to, or one that shares a topic with
    it; the former is said first.

    Args:
        paper: with the entries that it is near to.
        runs: from ``run_entries``.
    """
    topics = {e.slug: set(e.topics) for e in entries()}
    near = [n.slug for n in paper.near]
    for name, slug, symptom in runs:
        if slug in near:
            return f"your run {name}: {symptom} ({slug})"
    for name, slug, symptom in runs:
        if shared := sorted(topics.get(slug, set()) & set(paper.topics)):
            return f"your run {name}: {symptom} (both on {shared[0]})"
    return ""
