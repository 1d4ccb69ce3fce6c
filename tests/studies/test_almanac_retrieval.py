import pytest

from thalweg.almanac import get
from thalweg.studies import load
from thalweg.studies.almanac_retrieval import _average_precision, _exchanged


@pytest.mark.study
def test_smoke_every_claim_has_a_figure_and_stands_where_it_should():
    study = load("almanac_retrieval")
    figures = study.run(study.config("smoke"), 0)
    claims = [c for c in get("almanac").claims if c.study_name == study.name]
    assert {c.id for c in claims} == set(figures.samples) == set(figures.baselines)
    for claim in claims:
        assert figures.samples[claim.id] > figures.baselines[claim.id]
        assert figures.samples[claim.id] >= claim.threshold
        if claim.control:
            assert figures.controls[claim.id] <= claim.control.threshold


def test_average_precision_by_hand():
    assert _average_precision(["a", "x", "b"], {"a", "b"}) == pytest.approx((1 + 2 / 3) / 2)
    assert _average_precision(["x", "a"], {"a"}) == 0.5


def test_no_question_keeps_its_topic():
    import numpy as np

    topics = [f"t{i}" for i in range(13)]
    for seed in range(20):
        other = _exchanged(topics, np.random.default_rng(seed))
        assert sorted(other) == sorted(topics)
        assert all(a != b for a, b in zip(topics, other, strict=True))
