"""How near a new text is to each entry, and what importance follows from that.

A paper from a feed has no claims to run. It matters here as far as it is near to something that
does: 1 + (importance of the nearest entry - 1) × nearness, half up. The overlap of a text with an
entry is the summed rarity log(N/df) of the words they share, over the root of the number of words
of the text; nearness rises from 0 at ``FAR`` to 1 at ``SAME``.

Source: the project's almanac (2026). The two constants: the best overlap of 25 recorded papers on
other subjects (software testing, astronomy, combinatorics) is 1.9 in the middle and 2.5 at most;
that of an entry with its nearest other entry is 2.7 in the middle and 3.9 for the nearest tenth.
"""

from __future__ import annotations

import math
from functools import cache

from thalweg.almanac.catalogue import entries
from thalweg.almanac.char_ngrams import words
from thalweg.almanac.corpus import entry_text
from thalweg.almanac.finding import PLAIN
from thalweg.almanac.paper import Near
from thalweg.almanac.weighing import importances

__all__ = ["FAR", "SAME", "nearest", "overlaps"]

FAR = 2.0
SAME = 4.0
MOST = 3  #: entries that a paper is said to be near to
_STEM = 7  #: first letters that make two words one


def nearest(text: str) -> tuple[tuple[Near, ...], int]:
    """The entries that a text is nearest to, and the importance that follows, 1 to 10.

    Args:
        text: title and abstract.

    Returns:
        At most three entries with their nearness above 0, the nearest first, and the importance.

    Example:
        >>> near, importance = nearest("What gradient flow conserves: laws of deep linear networks")
        >>> near[0].slug
        'conservation-laws'
    """
    rows, weighed = overlaps(text), importances()
    found, best = [], 1.0
    for slug in sorted(rows, key=lambda s: (-rows[s][0], s))[:MOST]:
        overlap, shared = rows[slug]
        nearness = min(max((overlap - FAR) / (SAME - FAR), 0.0), 1.0)
        if not nearness or len(shared) < 2:  # one word in common is chance
            continue
        found.append(Near(slug, round(nearness, 4), f"shared: {', '.join(shared[:3])}"))
        best = max(best, 1 + (weighed[slug].score - 1) * nearness)
    return tuple(found), min(max(math.floor(best + 0.5), 1), 10)


def overlaps(text: str) -> dict[str, tuple[float, list[str]]]:
    """Slug to the overlap of a text with an entry, and the words they share, the rarest first."""
    stems = _stems(text)
    if not stems:
        return {}
    rarity, table = _catalogue()
    found = {}
    for slug, theirs in table.items():
        shared = sorted(stems.keys() & theirs, key=lambda s: (-rarity[s], s))
        total = math.fsum(rarity[s] for s in shared)
        found[slug] = (
            total / math.sqrt(len(stems)),
            [stems[s] for s in shared if stems[s] not in PLAIN],
        )
    return found


def _stems(text: str) -> dict[str, str]:
    """Stem to the first word that has it; short words say little."""
    found: dict[str, str] = {}
    for word in words(text):
        if len(word) > 3:
            found.setdefault(word[:_STEM], word)
    return found


@cache
def _catalogue() -> tuple[dict[str, float], dict[str, frozenset[str]]]:
    table = {e.slug: frozenset(_stems(f"{entry_text(e)} {' '.join(e.topics)}")) for e in entries()}
    df: dict[str, int] = {}
    for stems in table.values():
        for stem in stems:
            df[stem] = df.get(stem, 0) + 1
    return {stem: math.log(len(table) / n) for stem, n in df.items()}, table
