import json
import math
from dataclasses import replace

import pytest

from thalweg import ThalwegError
from thalweg.almanac.evidence import read_evidence, read_folder, user_folder, write_evidence


def test_what_is_written_is_read_back(tmp_path, evidence):
    odd = replace(evidence, samples={"recursion_exact": (1.0, math.nan, -math.inf)})
    path = write_evidence(odd, tmp_path)
    text = path.read_text()
    assert '"nan"' in text and '"-inf"' in text and "NaN" not in text
    again = read_evidence(path)
    assert str(again.samples) == str(odd.samples)
    assert replace(again, samples={}) == replace(odd, samples={})


def test_evidence_is_never_overwritten(tmp_path, evidence):
    path = write_evidence(evidence, tmp_path)
    before = path.read_bytes()
    with pytest.raises(ThalwegError, match="never overwritten"):
        write_evidence(replace(evidence, verdict="not"), tmp_path)
    assert path.read_bytes() == before


def test_a_control_that_holds_weakens_the_verdict(evidence):
    assert evidence.verdict == "reproduced"
    held = replace(evidence, controls={"recursion_exact": (1e-9, 1e-9, 1e-9)})
    assert held.computed_verdict() == "partly"
    assert replace(evidence, controls={}).computed_verdict() == "partly"  # not measured at all


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda d: d.pop("samples"), "KeyError|missing"),
        (lambda d: d.update(extra=1), "unknown fields"),
        (lambda d: d.update(schema_version=2), "newer version"),
        (lambda d: d["samples"].update(recursion_exact=[1.0]), "1 samples for 3 seeds"),
        (lambda d: d["samples"].update(recursion_exact=["1", "2", "3"]), "is no figure"),
        (lambda d: d["bounds"].clear(), "no valid evidence"),
    ],
)
def test_damaged_files_are_named(tmp_path, evidence, change, said):
    path = write_evidence(evidence, tmp_path)
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))
    with pytest.raises(ThalwegError, match=said) as error:
        read_evidence(path)
    assert path.name in str(error.value)
    assert read_folder(tmp_path, evidence.entry) == []


def test_unwritable_folder(tmp_path, evidence):
    (tmp_path / "file").write_text("")
    with pytest.raises(ThalwegError, match="cannot write evidence"):
        write_evidence(evidence, tmp_path / "file")


def test_the_user_folder_follows_the_environment(tmp_path, monkeypatch):
    assert user_folder() == tmp_path / "data"
    monkeypatch.delenv("THALWEG_DATA")
    monkeypatch.setenv("XDG_DATA_HOME", "/somewhere")
    assert user_folder().as_posix() == "/somewhere/thalweg"
