import math

import pytest

from thalweg.almanac import get
from thalweg.errors import ThalwegError
from thalweg.studies import load
from thalweg.studies.study import with_settings

OWN = """
from torch import nn
from thalweg.nn import MuReadout

def tanh_net(width):
    return nn.Sequential(nn.Linear(64, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh(),
                         MuReadout(width, 10))

def broken(width):
    return nn.Linear(64, 10)
"""


@pytest.mark.study
def test_smoke_squared_error_falls_faster_with_the_width():
    study = load("lr_width_scaling")
    figures = study.run(study.config("smoke"), 0)
    entry = get("large-learning-rates")
    assert set(figures.samples) == {claim.id for claim in entry.claims}
    assert set(figures.baselines) == set(figures.samples)
    assert set(figures.controls) == {c.id for c in entry.claims if c.control}
    assert figures.samples["mse_exponent"] < figures.samples["ce_exponent"]
    assert figures.samples["exponent_gap"] > 0
    assert math.isfinite(figures.samples["mup_transfer"])


@pytest.mark.study
def test_a_model_of_ones_own_takes_the_place_of_the_nets(tmp_path):
    (tmp_path / "mine.py").write_text(OWN)
    study = load("lr_width_scaling")
    smoke = study.config("smoke")

    def own(name):
        return with_settings(smoke, {"make_model": f"{tmp_path / 'mine.py'}:{name}"})

    figures = study.run(own("tanh_net"), 0)
    assert figures.samples != study.run(smoke, 0).samples
    with pytest.raises(ThalwegError, match="unknown function"):
        own("tanh")
    with pytest.raises(ValueError, match="no parameter depends on the width"):
        study.run(own("broken"), 0)
