import math

import pytest

from thalweg.almanac import get
from thalweg.studies import load
from thalweg.studies.low_bit_training import Norms


@pytest.mark.study
def test_smoke_every_claim_has_its_figures():
    study = load("low_bit_training")
    figures = study.run(study.config("smoke"), 0)
    for claim in get("stable-spam").claims:
        assert math.isfinite(figures.samples[claim.id])
        assert math.isfinite(figures.baselines[claim.id])
        assert (claim.control is None) or math.isfinite(figures.controls[claim.id])
    raw, tamed = (
        figures.curves[f"norm of the first gradient, {k}"][1]
        for k in ("raw", "entering the moments")
    )
    assert tamed[0] == pytest.approx(1, rel=1e-5) and raw[0] != tamed[0]


def test_unsteadiness_by_hand():
    # First tensor: mean 2, deviation 1; the second never gets a gradient.
    assert Norms.unsteadiness([[1.0, 0.0], [3.0, 0.0]]) == pytest.approx(0.5)
