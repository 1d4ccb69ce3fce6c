"""Search by columns, beside going through the fused rankings one by one."""

import json
import random

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from thalweg.almanac import entries, ingest, search
from thalweg.almanac.columns import Columns, columns_of
from thalweg.almanac.corpus import Corpus, corpus
from thalweg.almanac.fusion import fuse, fused_scores
from thalweg.almanac.paper import Near, Paper
from thalweg.almanac.text_index import best_first
from thalweg.almanac.weighing import importances, verdicts

WORDS = "gradient flow conserve loss spike grokking symmetry network training kernel law".split()
SOME = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def read_in(tmp_path):
    rng = random.Random(0)
    listed = [
        {"id": f"24{1 + i % 12:02d}.{i:05d}", "title": " ".join(rng.choices(WORDS, k=4)),
         "summary": " ".join(rng.choices(WORDS, k=rng.randrange(30))),
         "publishedAt": f"{2023 + i % 3}-0{1 + i % 9}-01"}
        for i in range(400)
    ]  # fmt: skip
    (tmp_path / "papers.json").write_text(json.dumps(listed))
    ingest(tmp_path / "papers.json")


def slow(q, k, **filters):
    """As the card describes it: fuse the rankings of names, then leave out what does not fit."""
    everything, judged, weighed = corpus(), verdicts(), importances()
    names, depth = everything.index.names, len(everything.by_name)
    if not any(value is not None for value in filters.values()):
        depth = max(k, 200)
    if q.strip():
        ranked = fuse([
            [names[i] for i in list(everything.index.by_words(q))[:depth]],
            best_first(everything.index.by_characters(q), depth, names),
        ])  # fmt: skip
    else:
        dated = [(getattr(i, "source", i).date, n) for n, i in everything.by_name.items()]
        ranked = [(name, 0.0) for _, name in sorted(dated, reverse=True)]
    found = []
    for name, score in ranked:
        item = everything.by_name[name]
        paper = isinstance(item, Paper)
        kind, verdict = ("paper", "") if paper else (item.kind, judged[name])
        importance = item.importance if paper else weighed[name].score
        date = item.date if paper else item.source.date
        facts = {
            "kind": kind,
            "verdict": verdict,
            "year": int(date[:4]),
            "has_evidence": verdict not in ("", "untested"),
        }
        if (
            all(filters.get(key) in (None, value) for key, value in facts.items())
            and filters.get("topic") in (None, *item.topics)
            and importance >= (filters.get("min_importance") or 0)
        ):
            found.append((name, score))
    return found[:k]


@SOME
@given(
    q=st.lists(st.sampled_from([*WORDS, "gradiant", "zz", "the"]), max_size=4).map(" ".join),
    k=st.sampled_from([0, 1, 5, 20, 900]),
    filters=st.fixed_dictionaries({
        "kind": st.sampled_from([None, None, "paper", "law", "optimizer"]),
        "topic": st.sampled_from([None, None, "grokking", "symmetry"]),
        "verdict": st.sampled_from([None, None, None, "partly", "untested"]),
        "year": st.sampled_from([None, None, 2024, 2026, 1999]),
        "has_evidence": st.sampled_from([None, None, True, False]),
        "min_importance": st.sampled_from([None, None, 1, 4, 10]),
    }),
)  # fmt: skip
def test_search_finds_what_the_slow_way_finds(read_in, q, k, filters):
    assert [(h.name, h.score) for h in search(q, k, **filters)] == slow(q, k, **filters)


@given(
    st.integers(1, 30).flatmap(
        lambda n: st.tuples(
            st.just(n),
            st.lists(st.permutations(range(n)).flatmap(
                lambda p: st.integers(0, len(p)).map(lambda cut: p[:cut])), max_size=3),
        )
    )
)  # fmt: skip
def test_scores_by_number_are_those_by_name(drawn):
    size, rankings = drawn
    scores = fused_scores([np.array(r, np.int64) for r in rankings], size)
    by_name = dict(fuse([[f"{i:02d}" for i in r] for r in rankings]))
    assert [by_name.get(f"{i:02d}", 0.0) for i in range(size)] == scores.tolist()


@given(st.lists(st.tuples(st.sampled_from([0, 0.5, 1, 2]), st.booleans()), min_size=1), st.data())
def test_the_best_are_those_of_a_full_sort(rows, data):
    names = data.draw(st.permutations([f"arxiv:{i:03d}" for i in range(len(rows))]))
    k = data.draw(st.integers(0, len(rows) + 2))
    made = columns_of((), [Paper(name, "T") for name in names])
    scores, fits = np.array([r[0] for r in rows], float), np.array([r[1] for r in rows])
    whole = sorted((-s, names[i], i) for i, (s, fit) in enumerate(rows) if s and fit)
    assert made.best(scores, fits, k).tolist() == [i for _, _, i in whole][:k]


def test_columns_of_an_entry_that_is_no_more():
    paper = Paper("arxiv:1", "T", near=(Near("gone", 1.0, "x"),), published="2024-05-01")
    made = columns_of(entries()[:1], [paper])
    assert isinstance(made, Columns) and made.topics[1] == () and made.years[1] == "2024-"
    assert made.kinds.tolist() == [entries()[0].kind, "paper"]
    assert Corpus((), (paper,)).items == (paper,)
