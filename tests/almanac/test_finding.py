import pytest
from hypothesis import given
from hypothesis import strategies as st

from thalweg.almanac import Hit, entries, get, ingest, search
from thalweg.almanac.finding import shared_words
from thalweg.errors import ThalwegError

VECTORS = __import__("pathlib").Path(__file__).parents[1] / "vectors" / "almanac"


@pytest.mark.parametrize(
    ("question", "slug"),
    [
        ("what does gradient flow conserve", "conservation-laws"),
        ("training on wrong labels", "early-learning-regularization"),
        ("generalisation long after memorising", "grokalign"),
        ("how many dimensions does fine-tuning need", "intrinsic-dimension-finetuning"),
        ("GrokAlign", "grokalign"),
        ("2506.12284", "grokalign"),
        ("generalizashun grokking", "grokalign"),
    ],
)
def test_plain_questions_find_their_entry(question, slug):
    assert slug in [hit.name for hit in search(question, k=3)]


def test_without_a_question_the_newest_come_first():
    hits = search("", k=5)
    assert [h.date for h in hits] == sorted((e.source.date for e in entries()), reverse=True)[:5]
    assert {h.score for h in hits} == {0.0} and hits[0].why == "newest"
    assert search(" \t", k=1) == hits[:1]


def test_filters():
    laws = search("symmetry", k=50, kind="law")
    assert laws and {h.kind for h in laws} == {"law"}
    assert {h.name for h in search("", k=99, topic="grokking")} == {
        e.slug for e in entries(topic="grokking")
    }
    untested = search("learning", k=99, verdict="untested")
    assert untested and {h.verdict for h in untested} == {"untested"}
    seen = search("learning", k=99, has_evidence=True)
    assert seen and not {h.name for h in seen} & {h.name for h in untested}
    assert {h.date[:4] for h in search("", k=99, year=2025)} == {"2025"}
    assert all(h.importance >= 7 for h in search("", k=99, min_importance=7))
    assert search("symmetry", k=0) == []


def test_papers_are_found_beside_entries_and_by_their_kind():
    assert not [h for h in search("REST APIs", k=50) if h.kind == "paper"]
    ingest(VECTORS / "arxiv_page_s0_m10.xml")
    first = search("automated test generation for REST APIs", k=1)[0]
    assert isinstance(first, Hit) and first.name == "arxiv:2204.08348" and first.verdict == ""
    assert first.url == "https://arxiv.org/abs/2204.08348" and "generation" in first.why
    only = search("testing", k=50, kind="paper")
    assert len(only) == 10 and {h.kind for h in only} == {"paper"}
    assert get("grokalign").slug in [h.name for h in search("grokking alignment", k=2)]


@given(st.text(max_size=60))
def test_any_text_is_a_question(q):
    hits = search(q, k=7)
    assert len(hits) <= 7 and len({h.name for h in hits}) == len(hits)
    scores = [h.score for h in hits]
    assert scores == sorted(scores, reverse=True)


def test_what_there_is_not_is_refused_with_the_nearest():
    for options in ({"kind": "lw"}, {"topic": "groking"}, {"verdict": "maybe"}):
        with pytest.raises(ThalwegError, match="nearest"):
            search("x", **options)
    with pytest.raises(ValueError, match="at least 0"):
        search("x", k=-1)


def test_shared_words_say_something():
    assert shared_words("what the drift of these laws is", "these laws drift") == ["drift", "laws"]
