import pytest

from thalweg.almanac import get
from thalweg.almanac.verdict import judge
from thalweg.studies import load


@pytest.mark.study
def test_smoke_counts_are_exact_and_means_of_means_are_not():
    study = load("gradient_accumulation")
    figures = study.run(study.config("smoke"), 0)
    claims = get("gradient-accumulation").claims
    assert {c.id for c in claims} == set(figures.samples) == set(figures.baselines)
    for claim in claims:
        assert judge([figures.samples[claim.id]], claim.op, claim.threshold).verdict == "weak"
    for exact in ("normalised_exact", "global_count", "training_tracks"):
        assert figures.baselines[exact] > 1e-3
    assert figures.controls["naive_bias_grows"] < 1e-12
    errors = figures.curves["error of the mean of means against micro-batches"][1]
    assert errors[-1] > 2 * errors[0] > 0
