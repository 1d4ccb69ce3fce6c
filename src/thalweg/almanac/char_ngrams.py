"""Texts by their character 3- to 5-grams: tf-idf and cosines, in sparse arrays.

Sequences of characters find what words miss: other endings, compounds, misspellings. N-grams lie
inside words (with a blank at either end), so a text is the sum of its words, and each different
word is cut only once. Source: W. B. Cavnar, J. M. Trenkle 1994; weights (1 + log tf)·idf with
idf = log((1 + N)/(1 + df)) + 1 as in G. Salton, C. Buckley 1988.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from scipy import sparse

__all__ = ["CharNgrams", "ngrams", "words"]

_WORD = re.compile(r"\w+")
LONGEST = 40  #: letters of a word that count: what is longer is no word


def words(text: str) -> list[str]:
    """Words in lower case without accents.

    Example:
        >>> words("Naïve Grokking, 2-fold")
        ['naive', 'grokking', '2', 'fold']
    """
    if not text.isascii():
        parts = unicodedata.normalize("NFKD", text)
        text = "".join(c for c in parts if not unicodedata.combining(c))
    return _WORD.findall(text.lower())


@lru_cache(maxsize=100_000)
def ngrams(word: str) -> tuple[str, ...]:
    """The 3- to 5-grams of a word between blanks; a shorter one is its own.

    Example:
        >>> ngrams("flow")
        (' fl', 'flo', 'low', 'ow ', ' flo', 'flow', 'low ', ' flow', 'flow ')
    """
    padded = f" {word[:LONGEST]} "
    found = [padded[i : i + n] for n in (3, 4, 5) for i in range(len(padded) - n + 1)]
    return tuple(found)


class CharNgrams:
    """An index of texts.

    Args:
        texts: the texts, in the order in which they are numbered.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        """Counts and weighs."""
        self.num_texts = len(texts)
        vocabulary: dict[str, int] = {}
        counts = _word_counts(texts, vocabulary)
        self._grams: dict[str, int] = {}
        cut = [[self._number(g) for g in ngrams(word)] for word in vocabulary] or [[]]
        spelled = _rows(cut, len(self._grams))
        weights = (counts @ spelled).tocsr()
        df = np.bincount(weights.indices, minlength=max(len(self._grams), 1))
        self._idf = (np.log((1 + self.num_texts) / (1 + df)) + 1).astype(np.float32)
        # By columns: a query looks only at the n-grams that it has.
        self._columns = self._weighed(weights).tocsc()
        self._columns.sort_indices()

    def similarities(self, text: str) -> np.ndarray:
        """Cosine of a text with each of the index, (N,) float32, 0 to 1."""
        counts: dict[str, int] = {}
        for word in words(text):
            for gram in ngrams(word):
                counts[gram] = counts.get(gram, 0) + 1
        known = [gram for gram in counts if gram in self._grams]
        numbers = [self._grams[gram] for gram in known]
        if not numbers:
            return np.zeros(self.num_texts, np.float32)
        weights = (1 + np.log([counts[g] for g in known])) * self._idf[numbers]
        # N-grams that no text has count in the length: a word unlike all makes all less alike.
        strange = [1 + np.log(n) for g, n in counts.items() if g not in self._grams]
        strange_length = np.linalg.norm(strange) * (np.log(1 + self.num_texts) + 1)
        weights /= np.hypot(np.linalg.norm(weights), strange_length)
        starts, ends = self._columns.indptr[numbers], self._columns.indptr[np.add(numbers, 1)]
        found = np.zeros(self.num_texts, np.float32)
        for start, end, weight in zip(starts, ends, weights, strict=True):
            rows = self._columns.indices[start:end]  # each once within a column
            found[rows] += weight * self._columns.data[start:end]
        return np.minimum(found, 1.0)

    def _number(self, gram: str) -> int:
        return self._grams.setdefault(gram, len(self._grams))

    def _weighed(self, counts: Any) -> Any:
        """(1 + log tf)·idf, rows of length 1."""
        for start in range(0, counts.shape[0], 256):  # in stretches: a copy of all is large
            bounds = counts.indptr[start : start + 257]
            part = slice(bounds[0], bounds[-1])
            values = (1 + np.log(counts.data[part])) * self._idf[counts.indices[part]]
            rows = np.repeat(np.arange(len(bounds) - 1), np.diff(bounds))
            squares = np.bincount(rows, values.astype(np.float64) ** 2, len(bounds) - 1)
            counts.data[part] = values / np.sqrt(np.maximum(squares, 1e-30))[rows]
        return counts


def _word_counts(texts: Sequence[str], vocabulary: dict[str, int]) -> Any:
    """(texts, words); the vocabulary is filled."""
    numbered = [[vocabulary.setdefault(w, len(vocabulary)) for w in words(t)] for t in texts]
    return _rows(numbered, len(vocabulary))


def _rows(numbered: Sequence[Sequence[int]], width: int) -> Any:
    """A count matrix whose row i holds the numbers of list i."""
    indptr = np.concatenate([[0], np.cumsum([len(row) for row in numbered])]).astype(np.int64)
    indices = np.fromiter((n for row in numbered for n in row), np.int32, int(indptr[-1]))
    ones = np.ones(len(indices), np.float32)
    matrix = sparse.csr_matrix((ones, indices, indptr), shape=(len(numbered), max(width, 1)))
    matrix.sum_duplicates()
    return matrix
