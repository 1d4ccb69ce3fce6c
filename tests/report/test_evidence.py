import xml.etree.ElementTree as ElementTree
from dataclasses import replace

import pytest

from thalweg.almanac import get
from thalweg.almanac.standings import ClaimStanding
from thalweg.almanac.verdict import Judgement
from thalweg.report.evidence import draw


def _standing(samples, op="<=", threshold=1.0, curves=()):
    from thalweg.almanac.evidence import Evidence

    claim = replace(get("conservation-laws").claim("recursion_exact"), op=op, threshold=threshold)
    seeds = tuple(range(len(samples)))
    item = Evidence(
        "conservation-laws", "broken_laws", "quick", {}, "2026-11-24", "", "", "", {}, "", 1,
        seeds, {}, {claim.id: samples}, "", (1.0,) * len(seeds),
        baselines={claim.id: (2.0,) * len(seeds)}, controls={claim.id: (3.0,) * len(seeds)},
        curves=dict(curves),
    )  # fmt: skip
    return ClaimStanding(claim, Judgement("pass", 1.0, 1.0), item, None, "shipped")


def test_every_seed_baseline_control_and_curve_is_drawn():
    curve = {"x": [1.0, 2.0, 3.0], "y": [[1.0, 2.0, 3.0], [1.0, float("nan"), 2.0]]}
    text = draw([_standing((0.1, 0.2), curves={"loss <a>": curve})])
    root = ElementTree.fromstring(text)
    classes = [e.get("class") for e in root.iter()]
    assert (classes.count("sample"), classes.count("baseline"), classes.count("control")) == (
        2,
        2,
        2,
    )
    seeds = [e.get("d") for e in root.iter() if e.get("class") == "seed"]
    assert [d.count("M") for d in seeds] == [1, 2]  # broken where a value is not finite


def test_theory_is_drawn_over_what_was_measured():
    measured = {"x": [0.0, 1.0], "y": [[0.0, 1.0], [0.0, 2.0]]}
    told = {"x": [0.0, 0.5, 2.0], "y": [[0.0, 3.0, 4.0]]}
    curves = {"loss": measured, "loss (theory)": told, "alone (theory)": measured}
    root = ElementTree.fromstring(draw([_standing((0.1, 0.2), curves=curves)]))
    titles = [e.text for e in root.iter() if e.get("class") == "title"]
    assert titles[-2:] == ["loss (dashed: theory)", "alone (theory)"]
    (dashed,) = [e.get("d") for e in root.iter() if e.get("class") == "theory"]
    # one pair of axes for both: theory goes on to the right edge, what was measured halfway
    ends = [d.split("L")[-1].split() for d in (dashed, *_seeds(root)[:2])]
    across = [float(x) for x, _ in ends]
    assert across[0] > 1.5 * across[1] and across[1] == across[2]
    assert float(ends[0][1]) < float(ends[2][1]) < float(ends[1][1])  # 4 above 2 above 1


def test_seeds_of_other_length_are_left_out():
    curve = {"x": [0.0, 1.0], "y": [[0.0, 1.0], [0.0]]}
    root = ElementTree.fromstring(draw([_standing((0.1, 0.2), curves={"loss": curve})]))
    assert len(_seeds(root)) == 1


def _seeds(root):
    return [e.get("d") for e in root.iter() if e.get("class") == "seed"]


@pytest.mark.parametrize(
    ("samples", "op", "threshold"),
    [((1e-15, 2e-15), "<=", 1e-12), ((5.0, -5.0), ">=", 0.0), ((0.5, 0.6), "in", (0.4, 0.7)),
     ((float("nan"), 1.0), "<=", 2.0), ((0.0, 0.0), "<=", 0.0)],
)  # fmt: skip
def test_any_figures_make_valid_svg(samples, op, threshold):
    root = ElementTree.fromstring(draw([_standing(samples, op, threshold)]))
    good = next(e for e in root.iter() if e.get("class") == "good")
    assert float(good.get("width")) > 0


def test_nothing_to_draw():
    with pytest.raises(ValueError, match="no claim has evidence"):
        draw([])
