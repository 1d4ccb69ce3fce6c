import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thalweg.almanac import fuse

CASE = json.loads((Path(__file__).parents[1] / "vectors/almanac/ranking.json").read_text())["rrf"]


def test_the_recorded_case():
    found = fuse(CASE["lists"], CASE["k"])
    assert [name for name, _ in found] == [name for name, _ in CASE["result"]]
    for (_, ours), (_, theirs) in zip(found, CASE["result"], strict=True):
        assert ours == pytest.approx(theirs, rel=1e-14)


def test_nothing_gives_nothing():
    assert fuse([]) == [] and fuse([[], []]) == []


RANKINGS = st.lists(st.lists(st.sampled_from("abcdefgh"), unique=True), max_size=4)


@given(RANKINGS, st.integers(1, 100))
def test_it_is_the_sum_whatever_the_order_of_the_rankings(rankings, k):
    found = fuse(rankings, k)
    for name, score in found:
        slow = sum(1 / (k + r.index(name) + 1) for r in rankings if name in r)
        assert score == pytest.approx(slow, rel=1e-12)
    assert {n for n, _ in found} == {n for r in rankings for n in r}
    scores = [s for _, s in found]
    assert scores == sorted(scores, reverse=True)
    assert dict(fuse(rankings[::-1], k)) == pytest.approx(dict(found))


def test_what_is_no_ranking_is_refused():
    with pytest.raises(ValueError, match="each thing once"):
        fuse([["a", "a"]])
    with pytest.raises(ValueError, match="k must be positive"):
        fuse([["a"]], k=0)
