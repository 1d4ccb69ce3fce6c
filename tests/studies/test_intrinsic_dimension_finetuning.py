import pytest

from thalweg.almanac import get
from thalweg.studies import load


@pytest.mark.study
def test_smoke_pretraining_lowers_the_dimension():
    study = load("intrinsic_dimension_finetuning")
    figures = study.run(study.config("smoke"), 0)
    claims = {c.id: c for c in get("intrinsic-dimension-finetuning").claims}
    assert set(claims) == set(figures.samples) == set(figures.baselines)
    assert set(figures.controls) == {i for i, c in claims.items() if c.control is not None}
    assert figures.baselines["few_parameters"] == 130
    assert figures.samples["few_parameters"] <= 160
    assert figures.samples["pretraining_lowers"] > 1
    few = figures.curves["share of full fine-tuning, pretrained"][1][0]
    assert few > figures.curves["share of full fine-tuning, random weights"][1][0]
    assert figures.samples["tracks_gap"] == pytest.approx(1)
