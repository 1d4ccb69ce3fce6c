"""The importance of each entry of the catalogue, and of a paper by the entry it is nearest to.

Source: the project's almanac (2026).
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from functools import cache, lru_cache
from pathlib import Path

import thalweg
from thalweg.almanac.catalogue import entries
from thalweg.almanac.code_hash import home_of
from thalweg.almanac.evidence import SHIPPED, Evidence, read_folder, user_folder
from thalweg.almanac.scores import Importance, importance, pagerank, share_of_log
from thalweg.almanac.verdict import ClaimVerdict, entry_verdict
from thalweg.errors import ThalwegError, unknown_name

__all__ = ["all_evidence", "importance_of", "importances", "uses", "verdicts"]

EVIDENCE = {"reproduced": 1.0, "partly": 0.5, "untested": 0.25, "not": 0.0}
_IMPORTED = re.compile(r"^\s*from thalweg[\w.]* import (\([^)]*\)|[^\n]*)", re.MULTILINE)


def importance_of(slug: str) -> Importance:
    """The importance of an entry, with its parts.

    Args:
        slug: of the entry.

    Raises:
        ThalwegError: if there is none of that slug.

    Example:
        >>> found = importance_of("conservation-laws")
        >>> 1 <= found.score <= 10, sorted(found.parts)
        (True, ['centrality', 'evidence', 'use'])
    """
    found = _all(_evidence_state())
    if slug not in found:
        raise unknown_name("entry", slug, found)
    return found[slug]


def importances() -> Mapping[str, Importance]:
    """Slug to importance, for all entries at once."""
    return _all(_evidence_state())


def all_evidence() -> Mapping[str, tuple[Evidence, ...]]:
    """Slug to its evidence, shipped and the user's own, the oldest first; read once."""
    return _evidence(_evidence_state())


def verdicts() -> dict[str, str]:
    """Slug to verdict, by the newest evidence that can be read; quicker than every standing."""
    return dict(_verdicts(_evidence_state()))


def uses() -> dict[str, int]:
    """Slug to how many modules and studies import its code from elsewhere, plus its guides."""
    return dict(_uses())


def _evidence_state() -> tuple[tuple[str, int], ...]:
    """Changes whenever a file of evidence comes or goes; it is never changed once it is written."""
    found = []
    for folder in (SHIPPED, user_folder() / "evidence"):
        if folder.is_dir():
            with os.scandir(folder) as rows:
                found += [(row.path, row.stat().st_mtime_ns) for row in rows]
    return tuple(sorted(found))


@lru_cache(maxsize=2)
def _evidence(state: tuple[tuple[str, int], ...]) -> dict[str, tuple[Evidence, ...]]:
    found = {}
    for entry in entries():
        items = [
            item
            for folder in (SHIPPED, user_folder() / "evidence")
            for _, item in read_folder(folder, entry.slug)
        ]
        found[entry.slug] = tuple(sorted(items, key=lambda item: item.run_at))
    return found


@lru_cache(maxsize=2)
def _verdicts(state: tuple[tuple[str, int], ...]) -> dict[str, str]:
    found: dict[str, str] = {}
    for entry in entries():
        items = _evidence(state)[entry.slug]
        judged: list[ClaimVerdict] = []
        for claim in entry.claims:
            having = [i for i in items if claim.id in i.samples]
            judged.append(having[-1].judgement(claim.id).verdict if having else "untested")
        found[entry.slug] = entry_verdict(judged)
    return found


@cache
def _uses() -> dict[str, int]:
    package = Path(thalweg.__file__).parent
    imported: dict[Path, set[str]] = {}
    for path in package.rglob("*.py"):
        if path.name == "__init__.py":
            continue
        names = " ".join(_IMPORTED.findall(path.read_text("utf-8")))
        imported[path] = set(re.findall(r"\w+", names))
    counts = {}
    for entry in entries():
        names, homes = {s.rpartition(".")[2] for s in entry.symbols}, set()
        for symbol in entry.symbols:
            try:
                homes.add(home_of(symbol))
            except ThalwegError:
                continue
        using = sum(bool(names & found) for path, found in imported.items() if path not in homes)
        counts[entry.slug] = using + len(entry.guides)
    return counts


@lru_cache(maxsize=2)
def _all(state: tuple[tuple[str, int], ...]) -> dict[str, Importance]:
    found = entries()
    slugs = [e.slug for e in found]
    edges = [(e.slug, k.slug) for e in found for k in e.links if k.rel == "builds_on"]
    ranks = pagerank(edges, slugs)
    top = max(ranks.values(), default=0.0)
    use, verdict = share_of_log(_uses()), _verdicts(state)
    weighed = {}
    for entry in found:
        parts = {
            "centrality": ranks[entry.slug] / top if top else 0.0,
            "use": use[entry.slug],
            "evidence": EVIDENCE[verdict[entry.slug]],
        }
        computed = importance(parts["centrality"], parts["use"], parts["evidence"])
        score = entry.importance_override or computed
        weighed[entry.slug] = Importance(score, computed, parts, entry.importance_reason or "")
    return weighed
