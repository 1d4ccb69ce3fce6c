"""All that can be searched: the entries and the papers that were read in, indexed in memory.

Made when it is first asked for and again when papers or evidence have changed. Source: the
project's almanac (2026).
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from thalweg.almanac.catalogue import entries
from thalweg.almanac.columns import Columns, columns_of
from thalweg.almanac.entry import Entry
from thalweg.almanac.fusion import fused_scores
from thalweg.almanac.paper import Paper
from thalweg.almanac.static_vectors import DIM, centred, embed, entry_vectors, model_installed
from thalweg.almanac.store import open_store, read_papers, store_file, store_state
from thalweg.almanac.text_index import Text, TextIndex, best_numbers

__all__ = ["Corpus", "corpus", "entry_corpus", "entry_text"]

DEPTH = 200  #: how far down a ranking counts


def entry_text(entry: Entry) -> str:
    """Title and summary, on one line."""
    return f"{entry.title}. {' '.join(entry.summary.split())}"


@dataclass(frozen=True)
class Corpus:
    """Entries, papers and their index; ``scores`` fuses the ways to rank.

    Attributes:
        entries: the catalogue.
        papers: what was read in, the newest first.
        paper_vectors: (papers, 256) centred; a row of zeros where a paper has none.
    """

    entries: tuple[Entry, ...]
    papers: tuple[Paper, ...] = ()
    paper_vectors: np.ndarray = field(default_factory=lambda: np.zeros((0, DIM), np.float32))

    @cached_property
    def items(self) -> tuple[Entry | Paper, ...]:
        """Entries, then papers: as the index numbers them."""
        return (*self.entries, *self.papers)

    @cached_property
    def by_name(self) -> dict[str, Entry | Paper]:
        """Slug or id to entry or paper."""
        found: dict[str, Entry | Paper] = {e.slug: e for e in self.entries}
        return found | {p.id: p for p in self.papers}

    @cached_property
    def index(self) -> TextIndex:
        """Words and characters, entries first."""
        return TextIndex([*map(_entry, self.entries), *map(_paper, self.papers)])

    @cached_property
    def vectors(self) -> np.ndarray:
        """(N, 256) centred; a row of zeros for what has none."""
        slugs, shipped, _ = entry_vectors()
        rows = dict(zip(slugs, shipped, strict=True))
        zero = np.zeros(DIM, np.float32)
        own = [rows.get(e.slug, zero) for e in self.entries]
        return np.concatenate([np.array(own, np.float32).reshape(-1, DIM), self.paper_vectors])

    def vector(self, text: str, name: str = "") -> np.ndarray | None:
        """The centred vector of what bears a name, else of a text if there is a model for it."""
        if name in self.by_name:
            row = self.vectors[self.index.names.index(name)]
            if row.any():
                return row
        if not model_installed():
            return None
        return centred(embed([text]), entry_vectors()[2])[0]

    def scores(self, text: str, *, depth: int = DEPTH) -> np.ndarray:
        """(N,) fused by words, by characters and, where there is a model, by meaning; 0 for no hit.

        Args:
            text: any.
            depth: how far down each ranking counts.
        """
        index = self.index
        found = [
            index.word_ranking(text, depth)[0],
            best_numbers(index.by_characters(text), depth),
        ]
        vector = self.vector(text)
        if vector is not None:
            found.append(best_numbers(self.vectors @ vector, depth))
        return fused_scores(found, len(index.names))

    @cached_property
    def columns(self) -> Columns:
        """What papers and entries are filtered and put in order by."""
        return columns_of(self.entries, self.papers)


def entry_corpus() -> Corpus:
    """The catalogue alone, without what was read in."""
    return _corpus(("", 0))


def corpus() -> Corpus:
    """Entries and papers as they are now."""
    return _corpus(store_state())


_lock = threading.Lock()
_kept: dict[bool, tuple[tuple[str, int], Corpus]] = {}


def _corpus(state: tuple[str, int]) -> Corpus:
    """One corpus of the catalogue and one with papers are kept, not one for every state."""
    with _lock:
        kept = _kept.get(bool(state[0]))
        if kept is None or kept[0] != state:
            kept = _kept[bool(state[0])] = (state, _made() if state[0] else Corpus((*entries(),)))
        return kept[1]


def _made() -> Corpus:
    if not store_file().exists():
        return Corpus((*entries(),))
    with open_store() as connection:
        connection.execute("BEGIN")  # papers and vectors of one moment
        found = read_papers(connection)
        blobs = dict(connection.execute("SELECT id, vector FROM papers WHERE vector NOT NULL"))
        connection.execute("COMMIT")
    rows = np.zeros((len(found), DIM), np.float32)
    for i, paper in enumerate(found):
        if paper.id in blobs:
            rows[i] = np.frombuffer(blobs[paper.id], np.float16)
    return Corpus((*entries(),), tuple(found), rows)


def _entry(entry: Entry) -> Text:
    more = [*entry.source.authors, *entry.topics, entry.kind, entry.slug, entry.source.arxiv or ""]
    more += [symbol.rpartition(".")[2] for symbol in entry.symbols]
    return Text(entry.slug, entry.title, " ".join(entry.summary.split()), " ".join(more))


def _paper(paper: Paper) -> Text:
    more = [*paper.authors, *paper.keywords, *paper.categories, paper.id]
    return Text(paper.id, paper.title, paper.abstract, " ".join(more))
