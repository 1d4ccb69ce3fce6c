from thalweg.almanac import get, standings
from thalweg.almanac.evidence import write_evidence
from thalweg.almanac.results_page import results_page


def test_the_page_says_what_the_evidence_says(tmp_path, monkeypatch, evidence):
    monkeypatch.setattr(standings, "SHIPPED", tmp_path)
    entries = [get("conservation-laws"), get("muon-hamiltonian")]
    assert "| untested | 2 |" in results_page(entries)
    write_evidence(evidence, tmp_path)
    page = results_page(entries)
    assert "`conservation-laws`: **partly**" in page  # its other claims are untested
    assert "1.33e-15 (2.77e-15), 3 seeds" in page
    assert "| 0.5 | 0.133 | pass |" in page
    assert "`muon-hamiltonian`" in page.split("## Untested")[1]
