import pytest
import torch

import thalweg
from thalweg.almanac import Paper
from thalweg.almanac.paper import Near
from thalweg.almanac.run_entries import concerning
from thalweg.almanac.run_entries import run_entries as entries_of
from thalweg.errors import ThalwegError


def test_the_join_goes_by_entry_and_then_by_topic():
    near = Paper("arxiv:1", "T", near=(Near("grokalign", 1.0, "x"),))
    runs = [("a", "matching-principle", "first"), ("b", "grokalign", "second")]
    assert concerning(near, runs) == "your run b: second (grokalign)"
    topical = concerning(near, [("c", "malignant-tail", "third")])
    assert topical == "" or topical.startswith("your run c: third (both on ")
    assert concerning(near, []) == "" and concerning(Paper("arxiv:2", "T"), runs) == ""
    same = [("d", "grokalign", "s")]
    far = Paper("arxiv:3", "T", near=(Near("opd-geometry", 1.0, "x"),))
    assert concerning(far, same) in ("", "your run d: s (both on geometry)")


def test_a_real_run_whose_diagnosis_names_an_entry(tmp_path):
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
    found = entries_of(tmp_path / "runs")
    diagnosed = [d for d in thalweg.diagnose(tmp_path / "runs" / "wild") if d.entry]
    assert found == [("wild", d.entry, d.symptom) for d in diagnosed]
    assert diagnosed


def test_no_folder():
    with pytest.raises(ThalwegError, match="no such folder of runs"):
        entries_of("nowhere")
