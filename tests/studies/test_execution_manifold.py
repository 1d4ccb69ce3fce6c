import pytest
import torch

from thalweg.almanac import get
from thalweg.studies import execution_manifold, load


@pytest.mark.study
def test_smoke_paths_have_fewer_dimensions_than_noise():
    study = load("execution_manifold")
    figures = study.run(study.config("smoke"), 0)
    named = {c.id: c for c in get("execution-manifold").claims}
    assert set(figures.samples) == set(named)
    for kind, given in (("baseline", figures.baselines), ("control", figures.controls)):
        assert set(given) == {i for i, c in named.items() if getattr(c, kind) is not None}
    assert figures.samples["low_rank_paths"] < figures.controls["low_rank_paths"]
    assert figures.samples["prefers_manifold"] > figures.controls["prefers_manifold"]
    assert figures.controls["defect_grows"] == 0
    lagged = figures.curves["preference, earlier steps only"][1]
    assert lagged != figures.curves["preference for the subspace"][1]


def test_attention_looks_back_only():
    torch.manual_seed(0)
    model = execution_manifold.Transformer(execution_manifold.Config(width=8, heads=2))
    x = torch.randint(32, (2, 12))
    model(x)
    attn = model.layers[0].attn
    assert attn is not None and attn.shape == (2, 2, 12, 12)
    torch.testing.assert_close(attn.sum(-1), torch.ones(2, 2, 12))
    assert torch.equal(attn, attn.tril())
