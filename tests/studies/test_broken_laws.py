import pytest

from thalweg.almanac import get
from thalweg.studies import load


@pytest.mark.study
def test_smoke_the_recursion_is_exact_and_only_with_its_decay_term():
    study = load("broken_laws")
    figures = study.run(study.config("smoke"), 0)
    claim = get("conservation-laws").claim("recursion_exact")
    assert figures.samples[claim.id] <= claim.threshold
    assert figures.controls[claim.id] >= claim.control.threshold
    assert figures.baselines[claim.id] > 1e-2
    losses = figures.curves["loss"][1]
    assert losses[-1] < 0.5 * losses[0]
