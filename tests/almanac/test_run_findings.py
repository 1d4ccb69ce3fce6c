import json

import pytest
import torch

import thalweg
from thalweg.almanac import Paper
from thalweg.almanac.kept_diagnoses import Finding, is_current, keep_diagnosis, kept_diagnosis
from thalweg.almanac.paper import Near
from thalweg.almanac.run_findings import (
    RunFinding,
    concerning,
    finding_in,
    findings_of,
    reason,
    run_findings,
)
from thalweg.cli import main
from thalweg.errors import ThalwegError
from thalweg.recorder.run_files import measured_state

SPIKES = RunFinding(
    "a", "gradient_spikes", "spikes: 2 of 9 records.", ("stable-spam",), "grokalign"
)


def paper(*near, title="T", abstract=""):
    return Paper("arxiv:1", title, abstract, near=tuple(Near(slug, 1.0, "x") for slug in near))


def test_treatment_comes_before_the_result_behind_and_that_before_the_words():
    shows = "your run a shows spikes: 2 of 9 records; this paper"
    spoken = "Taming gradient norm spikes"
    assert reason(paper("relex", "stable-spam", "grokalign", title=spoken), [SPIKES]) == (
        3,
        f"{shows} is near stable-spam, which treats it",
    )
    assert reason(paper("grokalign", title=spoken), [SPIKES]) == (
        2,
        f"{shows} is near grokalign, the result behind it",
    )
    assert reason(paper("relex", title=spoken), [SPIKES]) == (
        1,
        f"{shows} speaks of 'gradient norm spikes'",
    )
    assert reason(paper("relex"), [SPIKES]) == (0, "") == reason(paper(title=spoken), [])


def test_the_closest_finding_speaks_whatever_their_order():
    far = RunFinding("b", "dead_units", "dead units", (), "relex")
    assert concerning(paper("relex", "stable-spam"), [far, SPIKES]).startswith("your run a ")
    assert concerning(paper("relex"), [far, SPIKES]).startswith("your run b ")
    # A finding without a result behind it is not near to a paper that is near to none.
    assert concerning(paper(), [RunFinding("c", "overfitting", "overfits", (), "")]) == ""


@pytest.mark.parametrize(
    ("rule", "text", "said"),
    [
        ("loss_of_plasticity", "On the Loss of Plasticity in agents", "loss of plasticity"),
        ("loss_of_plasticity", "the loss; a measure of some plasticity", ""),
        ("delayed_generalisation", "Delayed generalization is grokking", "delayed generalization"),
        ("dead_units", "A dead unit", "dead unit"),
        ("dead_units", "units that are dead", ""),
        ("vanishing_gradients", "Vanishing and exploding gradients", ""),
        ("overfitting", "overfitting again", ""),  # one word alone is in too many abstracts
        ("lr_too_low", "too low", ""),
        ("gradient_spikes", "gradient, gradient spikes", "gradient gradient spikes"),
    ],
)
def test_a_text_speaks_of_a_rule_by_its_words_side_by_side(rule, text, said):
    found = concerning(paper(abstract=text), [RunFinding("a", rule, "s", (), "")])
    assert found == (f"your run a shows s; this paper speaks of {said!r}" if said else "")


def test_the_code_of_a_treatment_leads_to_its_entries():
    cure = "`thalweg.optim.StableSPAM(model)`, or thalweg.optim.ReDo; not thalweg.nothing.Here."
    found = finding_in("a", Finding("gradient_spikes", "s", "relex", cure))
    assert found == RunFinding(
        "a", "gradient_spikes", "s", ("stable-spam", "adamo-isometry"), "relex"
    )


@pytest.fixture
def wild(tmp_path):
    torch.manual_seed(0)
    model = torch.nn.Linear(4, 1)
    optimizer = torch.optim.SGD(model.parameters(), 3.0)  # far beyond what the loss allows
    with thalweg.record(model, optimizer, tmp_path / "runs" / "wild"):
        for _ in range(60):
            optimizer.zero_grad()
            x = torch.randn(64, 4)
            ((model(x) - x.sum(1, keepdim=True)) ** 2).mean().backward()
            optimizer.step()
    (tmp_path / "runs" / "no-run").mkdir()
    return tmp_path / "runs" / "wild"


def test_a_real_run_is_examined_once_and_remembered(wild, monkeypatch):
    assert kept_diagnosis(wild) is None
    assert findings_of([wild, wild.parent / "no-run"]) == ((), ("wild",))
    found = run_findings(wild.parent)
    diagnosed = thalweg.diagnose(wild)
    assert [(f.rule, f.symptom, f.entry) for f in found] == [
        (d.rule, d.symptom, d.entry or "") for d in diagnosed
    ]
    assert found and {f.run for f in found} == {"wild"}
    assert findings_of([wild]) == (found, ())
    monkeypatch.setattr("thalweg.doctor.examination.diagnose", None)
    assert run_findings(wild.parent) == found  # is not asked again


def test_the_command_line_keeps_what_it_says(wild, capsys):
    assert main(["doctor", str(wild)]) in (0, 1)
    kept = kept_diagnosis(wild)
    assert is_current(kept, wild)
    said = capsys.readouterr().out
    assert kept.findings and all(f"[{finding.rule}]" in said for finding in kept.findings)


def test_a_run_that_has_grown_is_looked_at_again_and_another_in_its_place_is_another(wild):
    keep_diagnosis(wild, [], "of before")
    kept = kept_diagnosis(wild)
    assert kept.findings == () and not is_current(kept, wild)
    assert run_findings(wild.parent) and is_current(kept_diagnosis(wild), wild)
    header = json.loads((wild / "run.json").read_text())
    (wild / "run.json").write_text(json.dumps(header | {"created": "2001-01-01T00:00:00Z"}))
    assert kept_diagnosis(wild) is None


def test_the_state_of_a_run_is_the_same_until_it_is_written_to(wild):
    before = measured_state(wild)
    assert measured_state(wild) == before
    [file] = (wild / "measurements").iterdir()
    file.write_bytes(file.read_bytes() + b"x")
    assert measured_state(wild) != before


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"schema_version": 2}', '{"a": 1}'])
def test_what_is_no_kept_diagnosis_is_none(wild, text, tmp_path):
    keep_diagnosis(wild, [], "x")
    [file] = (tmp_path / "data" / "diagnoses").iterdir()
    file.write_text(text)
    assert kept_diagnosis(wild) is None


def test_a_folder_that_cannot_be_written_costs_nothing_but_the_memory(wild, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("THALWEG_DATA", str(tmp_path / "file"))
    keep_diagnosis(wild, [], "x")
    assert kept_diagnosis(wild) is None


def test_no_folder():
    with pytest.raises(ThalwegError, match="no such folder of runs"):
        run_findings("nowhere")
