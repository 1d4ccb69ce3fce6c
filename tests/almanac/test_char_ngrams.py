import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thalweg.almanac.char_ngrams import LONGEST, CharNgrams, ngrams, words

TEXTS = st.lists(st.text("abcde é", max_size=30), min_size=1, max_size=6)


def naive(texts, query):
    """Dense, by the formula."""

    def count(text):
        return Counter(g for w in words(text) for g in ngrams(w))

    n, counts = len(texts), [count(t) for t in texts]
    df = Counter(g for c in counts for g in c)

    def weigh(c):
        return {g: (1 + math.log(f)) * (math.log((1 + n) / (1 + df[g])) + 1) for g, f in c.items()}

    def cosine(a, b):
        length = math.sqrt(sum(v * v for v in a.values()) * sum(v * v for v in b.values()))
        return sum(v * b.get(g, 0.0) for g, v in a.items()) / length if length else 0.0

    return [cosine(weigh(count(query)), weigh(c)) for c in counts]


@given(TEXTS, st.text("abcdef é", max_size=30))
def test_it_is_the_cosine_of_the_formula(texts, query):
    found = CharNgrams(texts).similarities(query)
    assert np.allclose(found, naive(texts, query), atol=1e-5)
    assert ((found >= 0) & (found <= 1)).all()


def test_a_text_is_most_like_itself_and_a_misspelling_is_near():
    index = CharNgrams(["generalisation long after memorisation", "edge of stability", "2"])
    assert index.similarities("edge of stability")[1] == pytest.approx(1, abs=1e-6)
    assert index.similarities("generalization").argmax() == 0
    assert not index.similarities("zzz qqq").any() and not index.similarities("").any()


def test_words_and_endless_words():
    assert words("Über-Größe µ_x") == ["uber", "große", "μ_x"]
    assert len(ngrams("x" * 10_000)) == 3 * (LONGEST + 2) - 9
    assert ngrams("a") == (" a ",)


def test_no_texts():
    assert CharNgrams([]).similarities("anything").shape == (0,)
    assert not CharNgrams(["", ""]).similarities("anything").any()
