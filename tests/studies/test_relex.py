import pytest
import torch

from thalweg.almanac import get
from thalweg.studies import load
from thalweg.studies.digits_bandit import fine_tuned, grpo_loss, mirrored, pretrained


@pytest.mark.study
def test_smoke_a_prefix_tells_the_end():
    study = load("relex")
    figures = study.run(study.config("smoke"), 0)
    named = {c.id: c for c in get("relex").claims}
    assert set(figures.samples) == set(named)
    for kind, given in (("baseline", figures.baselines), ("control", figures.controls)):
        assert set(given) == {i for i, c in named.items() if getattr(c, kind) is not None}
    gain = figures.samples["prefix_predicts_end"] - figures.controls["prefix_predicts_end"]
    assert gain > 0
    assert figures.samples["one_direction_suffices"] > 0.5
    assert figures.samples["linear_coefficient"] > figures.controls["linear_coefficient"]


def test_mirroring_twice_is_nothing():
    _, data = pretrained(0, hidden=8, num_steps=1)
    twice = mirrored(mirrored(data))
    assert torch.equal(twice.x, data.x) and torch.equal(twice.x_test, data.x_test)
    assert not torch.equal(mirrored(data).x, data.x)
    assert 0 <= float(data.x.min()) and float(data.x.max()) <= 1


def test_grpo_pushes_towards_the_reward():
    model = torch.nn.Linear(2, 10)
    x, y = torch.randn(400, 2), torch.full((400,), 3)
    grpo_loss(model, x, y, generator=torch.Generator().manual_seed(0)).backward()
    push = -model.bias.grad
    assert push.argmax() == 3 and abs(float(push.sum())) < 1e-6


def test_fine_tuning_leaves_the_start_alone():
    model, data = pretrained(0, hidden=8, num_steps=1)
    before = [p.clone() for p in model.parameters()]
    kept = fine_tuned(model, grpo_loss, data, lr=1e-2, num_steps=3, seed=0, keep=[1, 3])
    assert list(kept) == [1, 3]
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    assert not torch.equal(kept[1]["0.weight"], kept[3]["0.weight"])
