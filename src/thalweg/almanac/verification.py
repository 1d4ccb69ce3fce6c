"""Verify evidence: does every stored verdict follow from its samples?

Source: the project's almanac (2026).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from thalweg.almanac.entry import Entry
from thalweg.almanac.evidence import SHIPPED, read_evidence, user_folder
from thalweg.almanac.standings import stale_because
from thalweg.errors import ThalwegError, unknown_name

__all__ = ["Verification", "verify"]


@dataclass(frozen=True)
class Verification:
    """What is true of one file of evidence.

    Attributes:
        path: the file.
        problem: why it cannot be believed; empty if it can.
        stale: why it is out of date; empty if it is not.
    """

    path: Path
    problem: str = ""
    stale: str = ""


def verify(entries: Sequence[Entry], folders: Sequence[Path] | None = None) -> list[Verification]:
    """Check every file of evidence.

    Args:
        entries: the almanac.
        folders: evidence folders; by default the shipped one and the user's.

    Returns:
        One verification per file, by path.
    """
    by_slug = {e.slug: e for e in entries}
    found = []
    for folder in folders or (SHIPPED, user_folder() / "evidence"):
        for path in sorted(folder.glob("*/*.json")):
            try:
                found.append(_verify(path, by_slug))
            except ThalwegError as error:
                found.append(Verification(path, problem=str(error)))
    return found


def _verify(path: Path, by_slug: dict[str, Entry]) -> Verification:
    item = read_evidence(path)
    if item.entry != path.parent.name:
        return Verification(path, f"is about {item.entry!r} but lies in {path.parent.name!r}")
    if item.entry not in by_slug:
        return Verification(path, str(unknown_name("entry", item.entry, by_slug)))
    computed = item.computed_verdict()
    if computed != item.verdict:
        return Verification(path, f"says {item.verdict!r}, but its samples say {computed!r}")
    entry = by_slug[item.entry]
    known = {c.id: c for c in entry.claims}
    reasons = [
        stale_because(entry, known[i], item) if i in known else f"claim {i!r} is gone"
        for i in item.samples
    ]
    return Verification(path, stale=next(filter(None, reasons), ""))
