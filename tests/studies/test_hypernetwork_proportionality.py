import pytest

from thalweg.almanac import get
from thalweg.studies import load


@pytest.mark.study
def test_smoke_a_standard_hypernetwork_is_proportional_and_all_learn():
    study = load("hypernetwork_proportionality")
    figures = study.run(study.config("smoke"), 0)
    claims = {c.id: c for c in get("hypernetwork-mip").claims}
    assert set(claims) == set(figures.samples) == set(figures.baselines)
    assert figures.samples["proportional"] == pytest.approx(20)
    assert 0.5 < figures.controls["proportional"] < 2
    for name, (_, errors) in figures.curves.items():
        assert errors[-1] < 0.8 * errors[0], name
