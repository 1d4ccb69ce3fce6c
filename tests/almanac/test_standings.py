from dataclasses import replace

import pytest

from thalweg.almanac import Standing, get, standings
from thalweg.almanac.evidence import user_folder, write_evidence
from thalweg.almanac.standings import standing


@pytest.fixture
def shipped(tmp_path, monkeypatch):
    monkeypatch.setattr(standings, "SHIPPED", tmp_path / "shipped")
    return tmp_path / "shipped"


def _claim(evidence=None):
    now = standing(get("conservation-laws"), evidence)
    return next(c for c in now.claims if c.claim.id == "recursion_exact")


def test_without_evidence_a_claim_is_untested(shipped):
    assert _claim().judgement.verdict == "untested"
    now = standing(get("conservation-laws"))
    assert isinstance(now, Standing) and now.verdict == "untested" and not now.stale


def test_shipped_evidence_counts_until_the_user_has_some(shipped, evidence):
    write_evidence(evidence, shipped)
    assert (_claim().origin, _claim().judgement.verdict) == ("shipped", "pass")
    worse = replace(
        evidence, run_at="2026-11-25T10:00:00+00:00", samples={"recursion_exact": (1.0, 1.0, 1.0)}
    )
    write_evidence(worse, user_folder() / "evidence")
    assert (_claim().origin, _claim().judgement.verdict) == ("user", "fail")
    assert _claim("shipped").judgement.verdict == "pass"
    assert _claim("user").judgement.verdict == "fail"


def test_changed_code_and_changed_thresholds_make_evidence_stale(shipped, evidence):
    write_evidence(replace(evidence, code_hash="0" * 64), shipped)
    assert _claim().stale == "the code has changed"
    assert standing(get("conservation-laws")).stale
    moved = {"recursion_exact": evidence.bounds["recursion_exact"] | {"threshold": 1.0}}
    newer = replace(evidence, run_at="2026-11-26T00:00:00+00:00", bounds=moved)
    write_evidence(newer, shipped)
    assert _claim().stale == "the threshold of the claim has changed"


def test_current_evidence_is_not_stale(shipped, evidence):
    write_evidence(evidence, shipped)
    assert _claim().stale == ""
    assert _claim().baseline == 0.5
    assert _claim().control == pytest.approx(0.4 / 3)
