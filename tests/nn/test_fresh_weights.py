import pytest
import torch
from torch import nn

from thalweg.nn import fresh_weights


def test_it_is_the_draw_of_the_constructor():
    def make():
        return nn.Sequential(
            nn.Linear(5, 4), nn.Conv2d(2, 3, 3), nn.LayerNorm(4), nn.Embedding(7, 2)
        )

    model = make()
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    found = fresh_weights(model, generator=torch.Generator().manual_seed(0))
    assert found.keys() == before.keys()
    for name, p in model.named_parameters():
        assert torch.equal(p, before[name]) and found[name].shape == p.shape
    assert torch.equal(found["2.weight"], torch.ones(4))
    bound = 1 / 5**0.5  # that of nn.Linear
    seeds = (torch.Generator().manual_seed(i) for i in range(50))
    draws = torch.stack([fresh_weights(model, generator=g)["0.weight"] for g in seeds])
    assert draws.abs().max() <= bound and draws.abs().max() > 0.95 * bound
    assert draws.std().item() == pytest.approx(bound / 3**0.5, rel=0.05)


def test_a_generator_makes_it_repeatable_and_leaves_the_global_state():
    layer = nn.Linear(3, 3)
    state = torch.get_rng_state()
    first, second = (
        fresh_weights(layer, generator=torch.Generator().manual_seed(5))["weight"] for _ in range(2)
    )
    assert torch.equal(first, second) and torch.equal(torch.get_rng_state(), state)
    fresh_weights(layer)
    assert not torch.equal(torch.get_rng_state(), state)


def test_attention_ties_hooks_buffers_and_dtypes():
    tied = nn.Linear(4, 4)
    model = nn.Sequential(nn.MultiheadAttention(4, 2), tied, tied, nn.BatchNorm1d(4)).double()
    model.register_forward_hook(lambda *_: 1 / 0)
    model[0].out_proj.bias.data.fill_(3.0)
    model[3].running_mean.fill_(2.0)
    found = fresh_weights(model)
    assert found["0.in_proj_weight"].isfinite().all() and not found["0.out_proj.bias"].any()
    assert (model[0].out_proj.bias == 3).all() and (model[3].running_mean == 2).all()
    assert {t.dtype for t in found.values()} == {torch.float64}
    assert found.keys() == dict(model.named_parameters()).keys()


def test_a_layer_that_does_not_say_how_is_refused():
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(2))

    with pytest.raises(ValueError, match=r"\['1.scale'\].*reset_parameters"):
        fresh_weights(nn.Sequential(nn.Linear(2, 2), Own()))
