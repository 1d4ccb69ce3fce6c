import pytest

from thalweg.almanac import get
from thalweg.studies import load


@pytest.mark.study
def test_smoke_sgd_leaves_what_gradient_descent_stays_at():
    study = load("sgd_stability")
    figures = study.run(study.config("smoke"), 0)
    entry = get("sgd-dynamical-stability")
    assert set(figures.samples) == {claim.id for claim in entry.claims}
    assert figures.samples["threshold"] == 1.0 and figures.controls["threshold"] == 0.0
    assert 0.8 < figures.baselines["threshold"] <= 1.0
    assert figures.samples["trace_bound"] < 1.0 < figures.controls["trace_bound"]
    assert figures.samples["sgd_generalises"] < 0.5
    assert figures.samples["relu_test_falls"] > 2 > figures.controls["relu_test_falls"]
    assert figures.samples["edge_of_stability"] > figures.controls["edge_of_stability"]
