import math

import pytest

from thalweg.almanac import get
from thalweg.studies import load


@pytest.mark.study
def test_smoke_every_claim_has_its_figures_and_the_weights_tell_wrong_labels():
    study = load("bilevel_cleaning")
    figures = study.run(study.config("smoke"), 0)
    claims = {c.id: c for c in get("bilevel-bo-rep").claims}
    assert set(claims) == set(figures.samples) == set(figures.baselines)
    assert set(figures.controls) == {i for i, c in claims.items() if c.control is not None}
    assert figures.samples["cleaning_auc"] > 0.9 > 0.6 > figures.controls["cleaning_auc"]
    assert figures.samples["refinement"] > 5
    assert math.isfinite(figures.samples["any_start"])
    for method in ("stocBiO", "SOBA", "SABA", "TTSA"):
        assert any(name.endswith(f"budget, {method}") for name in figures.curves)
        assert any(name.endswith(f"start, {method}") for name in figures.curves)


def test_the_gradient_drawn_is_that_of_the_problem():
    """‖∇Φ‖ in closed form is what the exact hypergradient gives at the solution."""
    from thalweg.optim import hypergradient
    from thalweg.studies.bilevel_exponential import Exponential, _Problem

    toy = _Problem(Exponential(noise=0.0), 0)
    x = toy.start(3.0)
    y = toy.solution(x)
    assert float(y.norm()) == pytest.approx(3.0)
    found = hypergradient(toy.problem, x, y, batch=toy.draw(), method="exact")
    assert float(found.norm()) == pytest.approx(float(toy.gradient(x)))
