import pytest

from thalweg.almanac import get
from thalweg.studies import load


@pytest.mark.study
def test_smoke_the_regulariser_keeps_what_was_learnt_early():
    study = load("early_learning")
    figures = study.run(study.config("smoke"), 0)
    claims = {c.id: c for c in get("early-learning-regularization").claims}
    assert set(claims) == set(figures.samples) == set(figures.baselines)
    assert set(figures.controls) == {i for i, c in claims.items() if c.control is not None}
    assert figures.samples["keeps_accuracy"] > 0.1
    assert figures.samples["prevents_memorisation"] < 0.2
    assert figures.controls["prevents_memorisation"] > 0.8
    assert figures.samples["two_phases"] > 0.4 > figures.controls["two_phases"]
    assert figures.samples["detects_wrong_labels"] > 0.8
    assert figures.controls["detects_wrong_labels"] < 0.3
