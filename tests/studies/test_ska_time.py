import pytest
import torch

from thalweg.almanac import get
from thalweg.studies import load
from thalweg.studies.ska_time import _behaved


@pytest.mark.study
def test_smoke_the_entropy_is_a_change_of_state_and_the_coarse_rate_shows_it():
    study = load("ska_time")
    figures = study.run(study.config("smoke"), 0)
    entry = get("ska")
    assert {c.id for c in entry.claims} == set(figures.samples) == set(figures.baselines)
    claim = entry.claim("entropy_is_bernoulli")
    assert figures.samples[claim.id] <= claim.threshold
    assert figures.controls[claim.id] >= claim.control.threshold
    ratio = figures.baselines[claim.id] / figures.samples[claim.id]
    assert ratio == pytest.approx(2, rel=0.1)  # of first order in the rate
    assert figures.samples["same_trajectory"] < 0.1
    assert -1 <= figures.samples["useful_features"] <= 1
    assert 0.5 < figures.baselines["useful_features"] <= 1


def test_crossings_are_counted_after_the_first_moving_step():
    once = torch.tensor([0.0, 1, 1, -1, -1])
    never = torch.tensor([0.0, -1, -1, -1, -1])
    assert _behaved(torch.stack([once, never, once, never], 1)) == 4
    assert _behaved(torch.stack([never, once, once, never], 1)) == 2
