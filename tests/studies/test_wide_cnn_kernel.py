import pytest

from thalweg.almanac import get
from thalweg.studies import load


@pytest.mark.study
def test_smoke_local_targets_are_learnt_faster_by_the_cnn_alone():
    study = load("wide_cnn_kernel")
    figures = study.run(study.config("smoke"), 0)
    entry = get("wide-cnn-kernel")
    assert {c.id for c in entry.claims} == set(figures.samples) == set(figures.baselines)
    assert {c.id for c in entry.claims if c.control} == set(figures.controls)
    assert figures.samples["exponents_ordered"] > 0
    assert figures.controls["exponents_predicted"] > figures.samples["exponents_predicted"]
    assert figures.samples["cnn_adapts"] > 1.2
    # No randomness: the claims' own bands.
    assert -2.1 <= figures.samples["spectrum_exponent"] <= -1.9
    assert -4.1 <= figures.controls["spectrum_exponent"] <= -3.9
    assert figures.samples["finite_nets_match"] < 0.12 < figures.controls["finite_nets_match"]
