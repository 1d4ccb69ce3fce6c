import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thalweg.almanac import Importance, hot_score, importance
from thalweg.almanac.scores import pagerank, share_of_log

DECAY = json.loads((Path(__file__).parents[1] / "vectors/almanac/ranking.json").read_text())[
    "decay"
]


def test_known_answers():
    assert importance(0, 0, 0, 0) == 1
    assert importance(1, 1, 1, 1) == 10
    assert importance(0.5, 0.5, 0.5, 0.5) == 6  # 5.5, half up
    assert importance(0.5, 0.5, 0.5) == 6  # unknown citations are the mean of the others
    assert importance(1, 0, 0, 0) == 4  # 1 + 9·0.35 = 4.15
    assert Importance(4, 5, {}, "why").score == 4


@pytest.mark.parametrize("case", DECAY)
def test_recorded_decay(case):
    found = hot_score(case["importance"], case["age_days"], case["half_life_days"])
    assert found == pytest.approx(case["score"], rel=1e-14)


def test_the_future_counts_as_new():
    assert hot_score(7, -3) == 7


PART = st.floats(0, 1)


@given(PART, PART, PART, PART)
def test_importance_is_bounded_and_rises_with_each_part(c, u, e, r):
    score = importance(c, u, e, r)
    assert 1 <= score <= 10
    assert importance(1, u, e, r) >= score and importance(c, u, 1, r) >= score
    assert importance(0, u, e, r) <= score <= importance(c, u, e, 1)


@pytest.mark.parametrize("parts", [(-0.1, 0, 0), (0, 1.1, 0), (0, 0, float("nan")), (0, 0, 0, 2)])
def test_parts_outside_are_refused(parts):
    with pytest.raises(ValueError, match="in 0 to 1"):
        importance(*parts)
    with pytest.raises(ValueError, match="half_life_days"):
        hot_score(1, 1, 0)


@given(st.integers(0, 2**31), st.integers(1, 7))
def test_pagerank_is_the_stationary_vector(seed, n):
    rng = np.random.default_rng(seed)
    names = [f"n{i}" for i in range(n)]
    edges = [(a, b) for a in names for b in names if a != b and rng.random() < 0.3]
    ranks = pagerank(edges, names)
    if not edges:
        assert set(ranks.values()) == {0.0}
        return
    walk = np.zeros((n, n))
    for i, a in enumerate(names):
        targets = [names.index(y) for x, y in edges if x == a] or list(range(n))
        walk[targets, i] += 1 / len(targets)
    walk = 0.85 * walk + 0.15 / n
    values, vectors = np.linalg.eig(walk)
    slow = np.real(vectors[:, np.argmax(values.real)])
    assert np.allclose([ranks[x] for x in names], slow / slow.sum(), atol=1e-10)


def test_logarithms_over_the_largest():
    assert share_of_log({"a": 0, "b": 0}) == {"a": 0.0, "b": 0.0}
    assert share_of_log({"a": 1, "b": 3})["a"] == pytest.approx(0.5)
    assert share_of_log({}) == {}
