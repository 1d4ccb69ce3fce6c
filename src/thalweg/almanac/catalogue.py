"""The catalogue: all entries that ship with the package, read when they are asked for.

Source: the project's almanac (2026).
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from pathlib import Path

from thalweg.almanac.entry import KINDS, Entry, parse_entry
from thalweg.errors import ThalwegError, unknown_name

__all__ = ["ENTRIES", "check_links", "entries", "get", "read_entries", "study_entries"]

ENTRIES = Path(__file__).parent / "data" / "entries"


def read_entries(folder: Path) -> list[Entry]:
    """Read every entry of a folder, by slug.

    Raises:
        ThalwegError: if a file is not a valid entry, or a link leads to no entry.
    """
    found = [parse_entry(p.read_text("utf-8"), p.name) for p in sorted(folder.glob("*.toml"))]
    check_links(found)
    return found


def check_links(found: Iterable[Entry]) -> None:
    """Refuse links that lead nowhere or to the entry itself.

    Raises:
        ThalwegError: naming the entry and the link.
    """
    found = list(found)
    slugs = {e.slug for e in found}
    for entry in found:
        for link in entry.links:
            if link.slug == entry.slug:
                raise ThalwegError(f"{entry.slug}.toml: a link to itself")
            if link.slug not in slugs:
                raise ThalwegError(f"{entry.slug}.toml: {unknown_name('link', link.slug, slugs)}")


@cache
def _shipped() -> tuple[Entry, ...]:
    return tuple(read_entries(ENTRIES))


def entries(
    *, kind: str | None = None, topic: str | None = None, verdict: str | None = None
) -> list[Entry]:
    """The entries of the almanac, by slug.

    Args:
        kind: only of this kind.
        topic: only with this topic.
        verdict: only with this verdict.

    Raises:
        ThalwegError: for a kind, topic or verdict that no entry could have.

    Example:
        >>> [e.slug for e in entries(kind="law", topic="symmetry")][:1]
        ['conservation-laws']
    """
    found = list(_shipped())
    if kind is not None and kind not in KINDS:
        raise unknown_name("kind", kind, KINDS)
    topics = {t for e in found for t in e.topics}
    if topic is not None and topic not in topics:
        raise unknown_name("topic", topic, topics)
    verdicts = ("reproduced", "partly", "not", "untested")
    if verdict is not None and verdict not in verdicts:
        raise unknown_name("verdict", verdict, verdicts)
    return [
        e
        for e in found
        if (kind is None or e.kind == kind)
        and (topic is None or topic in e.topics)
        and (verdict is None or e.verdict == verdict)
    ]


def get(slug: str) -> Entry:
    """The entry of that slug.

    Raises:
        ThalwegError: if there is none, with the three nearest slugs.
    """
    for entry in _shipped():
        if entry.slug == slug:
            return entry
    raise unknown_name("entry", slug, [e.slug for e in _shipped()])


def study_entries(study: str) -> list[Entry]:
    """The entries whose claims a study tests."""
    return [e for e in _shipped() if study in e.studies]
