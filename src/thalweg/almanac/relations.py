"""What an entry or a paper is related to, and why.

Explicit links come first; then three rankings are fused: words (both ways), characters, static
vectors. Source: the project's almanac (2026).
"""

from __future__ import annotations

from dataclasses import dataclass

from thalweg.almanac.corpus import Corpus, corpus, entry_corpus, entry_text
from thalweg.almanac.entry import Entry
from thalweg.almanac.finding import shared_words
from thalweg.almanac.fusion import fuse
from thalweg.almanac.paper import Paper
from thalweg.almanac.text_index import best_first
from thalweg.almanac.weighing import importance_of
from thalweg.errors import ThalwegError, unknown_name

__all__ = ["Related", "related", "similar"]

SORTS = ("relevance", "date", "importance")
#: What a link says, read from the entry that has it, and from the one that it leads to.
SAID = {
    "builds_on": ("builds on", "is built on by"),
    "contrasts": ("contrasts with", "contrasts with"),
    "same_quantity": ("same quantity", "same quantity"),
    "explains": ("explains", "is explained by"),
}


@dataclass(frozen=True)
class Related:
    """A related entry.

    Attributes:
        slug: of the entry.
        title: its title.
        why: the link in words, or what the texts share.
        rel: of the link, empty if there is none.
        score: 1 for a link, else that of the fused rankings.
        date: ISO, of the source.
        importance: 1 to 10.
    """

    slug: str
    title: str
    why: str
    rel: str
    score: float
    date: str
    importance: int


def related(slug: str, k: int = 6, sort: str = "relevance") -> list[Related]:
    """The entries that an entry, or a paper that was read in, is related to.

    Args:
        slug: of an entry, or ``arxiv:...`` of a paper.
        k: at most so many.
        sort: ``relevance``, ``date`` (newest first) or ``importance``; it orders the same k.

    Raises:
        ThalwegError: for an unknown slug or sort, with the nearest.
        ValueError: if k is negative.

    Example:
        >>> [r.why for r in related("grokalign", k=3)]
        ['contrasts with', 'same quantity', 'same quantity']
    """
    if sort not in SORTS:
        raise unknown_name("sort", sort, SORTS)
    if k < 0:
        raise ValueError(f"related: k must be at least 0, got {k}")
    catalogue = entry_corpus()
    paper = None if slug in catalogue.by_name else corpus().by_name.get(slug)
    item = paper or catalogue.by_name.get(slug)
    if item is None:
        raise unknown_name("entry", slug, [e.slug for e in catalogue.entries])
    found = [*_links(item, catalogue)] if isinstance(item, Entry) else []
    linked = {r.slug for r in found}
    text = entry_text(item) if isinstance(item, Entry) else f"{item.title}. {item.abstract}"
    for name, score in similar(text, catalogue, name=slug):
        if name not in linked:
            found.append(_made(catalogue, name, _alike(text, catalogue.by_name[name]), "", score))
    found = found[:k]
    if sort == "date":
        found.sort(key=lambda r: r.date, reverse=True)
    elif sort == "importance":
        found.sort(key=lambda r: (-r.importance, r.slug))
    return found


def similar(text: str, catalogue: Corpus, *, name: str = "") -> list[tuple[str, float]]:
    """Entries by how like a text they are, without ``name`` itself: fused, the best first."""
    index, names = catalogue.index, catalogue.index.names
    forth = index.by_words(text)
    back = _backwards(catalogue, name) if name in catalogue.by_name else {}
    both = {i: forth.get(i, 0.0) + back.get(i, 0.0) for i in {*forth, *back}}
    by_words = [names[i] for i in sorted(both, key=lambda i: (-both[i], i))]
    rankings = [by_words, best_first(index.by_characters(text), len(names), names)]
    vector = catalogue.vector(text, name)
    if vector is not None:
        rankings.append(best_first(catalogue.vectors @ vector, len(names), names))
    return fuse([[n for n in ranking if n != name] for ranking in rankings])


def _backwards(catalogue: Corpus, name: str) -> dict[int, float]:
    """How well each entry's own words find the one of that name."""
    key = catalogue.index.names.index(name)
    return {i: row[key] for i, row in _word_table(catalogue).items() if key in row}


def _word_table(catalogue: Corpus) -> dict[int, dict[int, float]]:
    """Every entry's words asked once; kept with the corpus they belong to."""
    if _tables.get("of") is not catalogue:
        table = {
            i: catalogue.index.by_words(entry_text(e)) for i, e in enumerate(catalogue.entries)
        }
        _tables.update({"of": catalogue, "table": table})
    return _tables["table"]


_tables: dict = {}


def _links(entry: Entry, catalogue: Corpus) -> list[Related]:
    found = [(link.slug, link.rel, SAID[link.rel][0]) for link in entry.links]
    for other in catalogue.entries:
        found += [
            (other.slug, link.rel, SAID[link.rel][1])
            for link in other.links
            if link.slug == entry.slug
        ]
    first = {slug: (rel, why) for slug, rel, why in reversed(found)}
    return [
        _made(catalogue, slug, first[slug][1], first[slug][0], 1.0)
        for slug in dict.fromkeys(slug for slug, _, _ in found)
    ]


def _made(catalogue: Corpus, slug: str, why: str, rel: str, score: float) -> Related:
    entry = catalogue.by_name[slug]
    if not isinstance(entry, Entry):
        raise ThalwegError(f"{slug} is no entry")
    importance = importance_of(slug).score
    return Related(slug, entry.title, why, rel, score, entry.source.date, importance)


def _alike(text: str, item: Entry | Paper) -> str:
    other = entry_text(item) if isinstance(item, Entry) else item.abstract
    # Longer words are rarer.
    shared = sorted(shared_words(text, other, most=40), key=len, reverse=True)
    return f"shared: {', '.join(shared[:3])}" if shared else "meant alike"
