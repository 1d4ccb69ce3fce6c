import json
from dataclasses import replace

from thalweg.almanac import entries, verify
from thalweg.almanac.evidence import write_evidence


def test_shipped_evidence_is_true():
    assert [v for v in verify(entries()) if v.problem] == []


def test_a_verdict_that_does_not_follow_is_found(tmp_path, evidence):
    path = write_evidence(evidence, tmp_path)
    assert verify(entries(), [tmp_path])[0].problem == ""
    data = json.loads(path.read_text())
    data["samples"]["recursion_exact"] = [1.0, 1.0, 1.0]
    path.write_text(json.dumps(data))
    assert "its samples say 'not'" in verify(entries(), [tmp_path])[0].problem


def test_other_problems(tmp_path, evidence):
    (tmp_path / "conservation-laws").mkdir()
    (tmp_path / "conservation-laws" / "torn.json").write_text('{"entry":')
    (tmp_path / "nowhere").mkdir()
    path = write_evidence(evidence, tmp_path)
    path.rename(tmp_path / "nowhere" / "moved.json")
    write_evidence(replace(evidence, code_hash="0" * 64), tmp_path)
    by_name = {v.path.name: v for v in verify(entries(), [tmp_path])}
    assert "no valid evidence" in by_name["torn.json"].problem
    assert "lies in 'nowhere'" in by_name["moved.json"].problem
    stale = [v for v in by_name.values() if v.stale]
    assert [v.stale for v in stale] == ["the code has changed"] and not stale[0].problem
