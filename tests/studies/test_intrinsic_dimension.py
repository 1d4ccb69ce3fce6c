import pytest

from thalweg.almanac import get
from thalweg.studies import load


@pytest.mark.study
def test_smoke_a_small_subspace_is_enough():
    study = load("intrinsic_dimension")
    figures = study.run(study.config("smoke"), 0)
    claims = {c.id: c for c in get("intrinsic-dimension").claims}
    assert set(claims) == set(figures.samples) == set(figures.baselines)
    assert set(figures.controls) == {i for i, c in claims.items() if c.control is not None}
    assert figures.samples["exact_on_toy"] == 10
    assert figures.controls["exact_on_toy"] > 1e-3
    assert figures.samples["far_below_size"] > 1.5 * figures.baselines["far_below_size"]
    small, large = (
        figures.curves[f"share of the full score, {which} network"][1]
        for which in ("small", "large")
    )
    assert small[0] < 0.7 < small[-1] and large[0] < 0.7 < large[-1]
