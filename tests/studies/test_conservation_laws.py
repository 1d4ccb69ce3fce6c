import pytest

from thalweg.almanac import get
from thalweg.almanac.verdict import judge
from thalweg.studies import load


@pytest.mark.study
def test_smoke_counts_and_flows_show_what_is_claimed_and_controls_do_not():
    study = load("conservation_laws")
    figures = study.run(study.config("smoke"), 0)
    claims = [c for c in get("conservation-laws").claims if c.study_name == study.name]
    assert {c.id for c in claims} == set(figures.samples)
    for claim in claims:
        assert judge([figures.samples[claim.id]], claim.op, claim.threshold).verdict == "weak"
        if claim.control is not None:
            control = figures.controls[claim.id]
            judged = judge([control], claim.control.op, claim.control.threshold)
            assert judged.verdict == "weak", claim.id  # met; one sample can be no more
        if claim.baseline is not None:
            assert claim.id in figures.baselines
