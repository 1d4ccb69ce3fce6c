import pytest

from thalweg.almanac import get
from thalweg.studies import load


@pytest.mark.study
def test_smoke_the_theory_is_near_and_the_signs_are_right():
    study = load("generalization_dynamics")
    figures = study.run(study.config("smoke"), 0)
    entry = get("generalization-dynamics")
    assert {c.id for c in entry.claims} == set(figures.samples) == set(figures.baselines)
    assert {c.id for c in entry.claims if c.control} == set(figures.controls)
    # Fewer dimensions than in the claim: the theory of many is further off.
    assert figures.samples["theory_matches"] < 0.15 < figures.controls["theory_matches"]
    assert figures.samples["peak_at_one"] > 3 > 1 > figures.controls["peak_at_one"]
    assert figures.samples["stopping_near_ridge"] < 1.03
    assert figures.controls["stopping_near_ridge"] > 1.5
    assert figures.samples["small_init_needed"] >= 1
    assert abs(figures.controls["small_init_needed"]) < 1e-9
    assert figures.samples["bigger_is_safer"] > 1
