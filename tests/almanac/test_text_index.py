import sqlite3
import threading

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from thalweg.almanac import text_index
from thalweg.almanac.text_index import Text, TextIndex, best_first, fts_query

TEXTS = [
    Text("a", "Grokking", "Validation accuracy jumps long after training accuracy."),
    Text("b", "Edge of stability", "The sharpness hovers above two over the step size."),
    Text(
        "c", "Plasticity", "Agents stop learning new tasks; the naïve remedy fails.", "Ada Example"
    ),
]
INDEX = TextIndex(TEXTS)


def test_words_are_stemmed_freed_of_accents_and_the_best_comes_first():
    assert list(INDEX.by_words("hovering")) == [1]  # hovers
    assert list(INDEX.by_words("naive remedies")) == [2]
    assert list(INDEX.by_words("Ada")) == [2]
    found = INDEX.by_words("grokking accuracy stability")
    assert next(iter(found)) == 0 and all(score > 0 for score in found.values())
    assert list(INDEX.by_words("the accuracy", limit=1)) == [0]


@given(st.one_of(st.text(max_size=40), st.text('AND OR NOT NEAR(")*-:^{}+ab', max_size=30)))
def test_no_text_is_an_error_of_syntax(query):
    INDEX.by_words(query)
    assert INDEX.by_characters(query).shape == (3,)


def test_quotes_are_what_keeps_operators_words():
    assert fts_query('a"b NOT -c*') == '"a" OR "b" OR "not" OR "c"'
    assert fts_query(" \"' *") == ""


def test_without_fts5_characters_rank_alone(monkeypatch):
    monkeypatch.setattr(text_index, "_TABLE", "CREATE VIRTUAL TABLE texts USING nothing(x)")
    index = TextIndex(TEXTS)
    assert not index.has_words and index.by_words("grokking") == {}
    assert index.by_characters("grokking").argmax() == 0
    assert sqlite3.sqlite_version_info >= (3, 9)


def test_several_threads_read_one_index():
    wrong = []

    def ask():
        for _ in range(50):
            if list(INDEX.by_words("hovering")) != [1]:
                wrong.append(1)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@given(st.integers(0, 2**31), st.integers(1, 60), st.integers(1, 10))
def test_best_first_is_a_stable_sort_cut_off(seed, n, limit):
    scores = np.random.default_rng(seed).integers(-2, 4, n).astype(np.float32)
    names = [str(i) for i in range(n)]
    slow = [i for i in np.argsort(-scores, kind="stable") if scores[i] > 0][:limit]
    assert best_first(scores, limit, names) == [str(i) for i in slow]
