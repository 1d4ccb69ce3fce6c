"""Texts ranked by words (SQLite's FTS5, bm25) and by characters, together one index in memory.

Words are stemmed and freed of accents (``porter unicode61 remove_diacritics 2``); a title counts
twice. Where SQLite was built without FTS5, characters rank alone. Source: S. Robertson, H. Zaragoza
2009, doi.org/10.1561/1500000019 (bm25); ``char_ngrams`` for the other.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from thalweg.almanac.char_ngrams import CharNgrams, words

__all__ = ["Text", "TextIndex", "fts_query"]

#: Of the title, the text and what else is known (authors, topics, identifiers).
WEIGHTS = (2.0, 1.0, 1.0)
MOST_WORDS = 400  #: of a query, different ones: as many as a long abstract has
_TABLE = (
    "CREATE VIRTUAL TABLE texts USING fts5(title, body, more, "
    "tokenize = 'porter unicode61 remove_diacritics 2')"
)


@dataclass(frozen=True)
class Text:
    """What is searched of one thing.

    Attributes:
        name: unique.
        title: counts twice.
        body: summary or abstract.
        more: what else it may be found by: authors, topics, identifiers.
    """

    name: str
    title: str
    body: str
    more: str = ""

    @property
    def whole(self) -> str:
        """Title and body."""
        return f"{self.title}. {self.body}"


def fts_query(text: str) -> str:
    """A query of FTS5 in which any text is only words, joined by OR; empty if it has none.

    Example:
        >>> fts_query('drift AND "laws" -x*')
        '"drift" OR "and" OR "laws" OR "x"'
    """
    found = list(dict.fromkeys(words(text.replace("_", " "))))
    return " OR ".join(f'"{word}"' for word in found[:MOST_WORDS])


class TextIndex:
    """An index of texts; it may be read from several threads.

    Args:
        texts: with different names.
    """

    def __init__(self, texts: Sequence[Text]) -> None:
        """Builds both."""
        self.names = [text.name for text in texts]
        self._chars = CharNgrams([text.whole for text in texts])
        self._lock = threading.Lock()
        self._fts = sqlite3.connect(":memory:", check_same_thread=False)
        try:
            self._fts.execute(_TABLE)
        except sqlite3.OperationalError:
            self.has_words = False
            return
        self.has_words = True
        self._fts.executemany(
            "INSERT INTO texts (rowid, title, body, more) VALUES (?, ?, ?, ?)",
            ((i, text.title, text.body, text.more) for i, text in enumerate(texts, 1)),
        )

    def __del__(self) -> None:
        if hasattr(self, "_fts"):
            self._fts.close()

    def by_words(self, query: str, limit: int | None = None) -> dict[int, float]:
        """Number to score of the texts that share a word, larger is better, the best first.

        Args:
            query: any text.
            limit: at most so many.
        """
        texts, scores = self.word_ranking(query, limit)
        return dict(zip(texts.tolist(), scores.tolist(), strict=True))

    def word_ranking(self, query: str, limit: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Numbers (n,) and scores (n,) of the texts that share a word, the best first.

        Args:
            query: any text.
            limit: at most so many.
        """
        wanted = fts_query(query)
        if not wanted or not self.has_words:
            return np.zeros(0, np.int64), np.zeros(0)
        # SQLite keeps the best few while it reads, but puts thousands in order slower than numpy.
        few = limit is not None and limit < len(self.names)
        order = f" ORDER BY score DESC, rowid LIMIT {limit:d}" if few else ""
        # Its bm25() is negative, lower is better.
        with self._lock:
            rows = self._fts.execute(
                "SELECT rowid - 1, -bm25(texts, ?, ?, ?) AS score FROM texts WHERE texts MATCH ?"
                + order,
                (*WEIGHTS, wanted),
            ).fetchall()
        found = np.array(rows, np.float64).reshape(-1, 2)
        best = np.lexsort((found[:, 0], -found[:, 1]))[:limit]
        return found[best, 0].astype(np.int64), found[best, 1]

    def by_characters(self, query: str) -> np.ndarray:
        """Cosine of every text, (N,) float32, 0 to 1."""
        return self._chars.similarities(query)


def best_first(scores: np.ndarray, limit: int, names: Sequence[str]) -> list[str]:
    """Names of the positive scores, the best first, ties by position."""
    return [str(names[i]) for i in best_numbers(scores, limit)]


def best_numbers(scores: np.ndarray, limit: int) -> np.ndarray:
    """Positions of the positive scores, the best first, ties by position."""
    if len(scores) > 4 * limit:
        # Only what can be among the first is sorted.
        least = np.partition(scores, -limit)[-limit]
        near = np.flatnonzero((scores >= least) & (scores > 0))
    else:
        near = np.flatnonzero(scores > 0)
    return near[np.argsort(-scores[near], kind="stable")][:limit]
