import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thalweg.almanac import claim_verdict, entry_verdict
from thalweg.almanac.verdict import judge

CASES = json.loads((Path(__file__).parents[1] / "vectors/almanac/verdicts.json").read_text())


@pytest.mark.parametrize("case", CASES, ids=[c["name"] for c in CASES])
def test_verdicts_are_those_of_an_independent_implementation(case):
    verdicts = []
    for claim in case["claims"]:
        samples = [float(x) for x in claim["samples"]]
        judged = judge(samples, claim["op"], claim["threshold"])
        assert judged.verdict == claim["verdict"]
        for ours, theirs in ((judged.mean, claim.get("mean")), (judged.bound, claim.get("bound"))):
            assert ours == pytest.approx(theirs, rel=1e-12) if theirs is not None else ours is None
        verdicts.append(judged.verdict)
    assert entry_verdict(verdicts) == case["entry"]


def test_known_answers():
    # t(2, 0.975) = 4.302652729911275, s = 0.01, so the bound is 0.96 − 4.3027·0.01/√3.
    judged = judge([0.95, 0.96, 0.97], ">=", 0.9)
    assert judged.bound == pytest.approx(0.9351586228824966, abs=1e-12)
    assert claim_verdict([0.99], ">=", 0.9) == "weak"
    assert claim_verdict([0.99, math.nan], ">=", 0.9) == "fail"
    assert claim_verdict([1e9, 1e9], ">=", 0.9) == "pass"  # better than published is no failure


def test_a_band_needs_its_interval_inside():
    assert claim_verdict([1.0, 1.01, 0.99], "in", [0.9, 1.1]) == "pass"
    assert claim_verdict([1.0, 1.15, 0.85], "in", [0.9, 1.1]) == "weak"
    assert claim_verdict([1.2, 1.21], "in", [0.9, 1.1]) == "fail"
    assert judge([1.05, 1.06, 1.07], "in", [0.0, 1.1]).bound > 1.06  # the end near the edge


def test_a_control_that_holds_takes_a_pass_away():
    assert judge([1.0, 1.0], ">=", 0.5, control=False).verdict == "weak"
    assert judge([0.0, 0.0], ">=", 0.5, control=False).verdict == "fail"


@given(st.integers(0, 2**31), st.integers(2, 6), st.sampled_from([">=", "<="]))
def test_the_order_of_seeds_does_not_matter_and_signs_mirror(seed, n, op):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=n).tolist()
    threshold = float(rng.normal())
    once, again = judge(x, op, threshold), judge(rng.permutation(x).tolist(), op, threshold)
    assert once.verdict == again.verdict
    mirrored = judge([-v for v in x], "<=" if op == ">=" else ">=", -threshold)
    assert mirrored.verdict == once.verdict
    assert mirrored.bound == pytest.approx(-once.bound, abs=1e-12)


@pytest.mark.parametrize(
    ("op", "threshold", "said"),
    [("<", 1.0, "op must be"), (">=", [0, 1], "needs a number"), ("in", 1.0, "needs a band"),
     ("in", [2, 1], "needs a band"), (">=", True, "needs a number")],
)  # fmt: skip
def test_bad_bounds(op, threshold, said):
    with pytest.raises(ValueError, match=said):
        judge([1.0], op, threshold)
