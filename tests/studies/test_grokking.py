import pytest
import torch

from thalweg.almanac import get
from thalweg.studies import grokking, load


@pytest.mark.study
def test_smoke_the_penalty_generalises_first():
    study = load("grokking")
    config = study.config("smoke")
    figures = study.run(config, 0)
    entry = get("grokalign")
    named = {c.id: c for c in entry.claims}
    assert set(figures.samples) == set(named)
    for kind, given in (("baseline", figures.baselines), ("control", figures.controls)):
        assert set(given) == {i for i, c in named.items() if getattr(c, kind) is not None}
    assert figures.samples["sooner"] <= config.num_steps < figures.controls["sooner"]
    assert figures.samples["alignment_rises"] > 1 and figures.samples["uses_signal"] > 0
    assert figures.curves["test accuracy, penalty"][1][-1] > 0.95


def test_the_task_is_xor_of_the_first_two_signs():
    config = grokking.Config(dim=5)
    x, y = grokking._xor(config, 20, torch.Generator().manual_seed(0))
    assert torch.equal(y, x[:, 0] * x[:, 1]) and set(y.tolist()) == {-1, 1}
    assert x[:, 2:].abs().unique().tolist() == pytest.approx([config.noise])
