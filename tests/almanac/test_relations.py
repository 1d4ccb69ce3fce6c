from pathlib import Path

import pytest

from thalweg.almanac import Related, entries, get, ingest, related
from thalweg.almanac.corpus import entry_corpus, entry_text
from thalweg.almanac.relations import SAID, similar
from thalweg.errors import ThalwegError

VECTORS = Path(__file__).parents[1] / "vectors" / "almanac"


@pytest.mark.parametrize("slug", [e.slug for e in entries()])
def test_links_come_first_each_once_and_never_itself(slug):
    found = related(slug, k=12)
    assert len(found) == 12 and len({r.slug for r in found}) == 12
    assert slug not in {r.slug for r in found}
    ours = {link.slug for link in get(slug).links}
    theirs = {e.slug for e in entries() for link in e.links if link.slug == slug}
    linked = [r.slug for r in found if r.rel]
    assert set(linked) == ours | theirs and [r.slug for r in found][: len(linked)] == linked
    assert all(r.why for r in found)


def test_a_link_is_read_from_both_ends():
    entry = next(e for e in entries() for k in e.links if k.rel == "builds_on")
    link = next(k for k in entry.links if k.rel == "builds_on")
    assert next(r for r in related(entry.slug) if r.slug == link.slug).why == "builds on"
    back = next(r for r in related(link.slug, k=20) if r.slug == entry.slug)
    assert back.why in {said[1] for said in SAID.values()} | {s[0] for s in SAID.values()}


def test_sorting_orders_the_same_ones():
    base = related("grokalign")
    assert isinstance(base[0], Related)
    dates = related("grokalign", sort="date")
    assert {r.slug for r in dates} == {r.slug for r in base}
    assert [r.date for r in dates] == sorted((r.date for r in base), reverse=True)
    scores = [r.importance for r in related("grokalign", sort="importance")]
    assert scores == sorted(scores, reverse=True)
    assert related("grokalign", k=0) == []


def test_likeness_is_that_of_three_fused_rankings():
    catalogue = entry_corpus()
    text = entry_text(get("grokalign"))
    with_vector = similar(text, catalogue, name="grokalign")
    assert "grokalign" not in dict(with_vector)
    # Three rankings of 1/(60 + rank) at most.
    assert 2 / 61 < with_vector[0][1] <= 3 / 61


def test_a_paper_is_related_to_entries():
    ingest(VECTORS / "arxiv_rss.xml")
    found = related("arxiv:2401.00001", k=3)
    assert len(found) == 3 and not any(r.rel for r in found)


def test_what_there_is_not():
    with pytest.raises(ThalwegError, match="nearest: 'grokalign'"):
        related("grokaling")
    with pytest.raises(ThalwegError, match="unknown sort"):
        related("grokalign", sort="upvotes")
    with pytest.raises(ValueError, match="at least 0"):
        related("grokalign", k=-1)
