import pytest
import torch

from thalweg.almanac import get
from thalweg.studies import load
from thalweg.studies.digits_bandit import (
    accuracy,
    distillation_loss,
    fine_tuned,
    mirrored,
    pretrained,
    sft_loss,
    taught,
)


@pytest.mark.study
def test_smoke_the_change_is_concentrated():
    study = load("opd_geometry")
    figures = study.run(study.config("smoke"), 0)
    named = {c.id: c for c in get("opd-geometry").claims}
    assert set(figures.samples) == set(named)
    for kind, given in (("baseline", figures.baselines), ("control", figures.controls)):
        assert set(given) == {i for i, c in named.items() if getattr(c, kind) is not None}
    assert figures.samples["sparse_updates"] > 0
    assert figures.controls["concentrated"] < 1.3
    assert figures.controls["locks_early"] == pytest.approx(4 / 64, abs=0.01)
    assert figures.samples["locks_early"] > figures.controls["locks_early"]


def test_a_teacher_knows_the_domain_and_its_grades_are_learnt():
    model, upright = pretrained(0, hidden=32, num_steps=100)
    data = mirrored(upright)
    before = [p.clone() for p in model.parameters()]
    teacher = taught(model, data, seed=0, num_steps=150)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    known = {n: w.detach() for n, w in teacher.state_dict().items()}
    assert accuracy(model, known, data) > accuracy(model, model.state_dict(), data) + 0.1
    x, y = data.x[:20], data.y[:20]
    assert distillation_loss(teacher, x, y, teacher=teacher).abs() < 1e-6
    assert distillation_loss(model, x, y, teacher=teacher) > 0.01


def test_masked_training_keeps_the_rest():
    model, data = pretrained(0, hidden=8, num_steps=1)
    masks = {n: torch.zeros_like(p, dtype=torch.bool) for n, p in model.named_parameters()}
    masks["2.weight"][0] = True
    end = fine_tuned(model, sft_loss, data, lr=1e-2, num_steps=3, seed=0, keep=[3], masks=masks)[3]
    start = model.state_dict()
    assert torch.equal(end["2.weight"][1:], start["2.weight"][1:])
    assert torch.equal(end["0.weight"], start["0.weight"])
    assert not torch.equal(end["2.weight"][0], start["2.weight"][0])
