import pytest
import torch
from torch import nn

from thalweg.nn import fresh_weights
from thalweg.optim import ShrinkPerturb


def test_a_slow_reference():
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Conv1d(2, 2, 2))
    model[1].running_mean.fill_(7.0)
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    fresh = fresh_weights(model, generator=torch.Generator().manual_seed(3))
    ShrinkPerturb(model, shrink=0.4, noise=0.1, generator=torch.Generator().manual_seed(3)).apply()
    for n, p in model.named_parameters():
        assert torch.allclose(p, 0.4 * before[n] + 0.1 * fresh[n], atol=1e-7)
    assert (model[1].running_mean == 7).all()


def test_it_comes_at_intervals_with_new_draws_and_leaves_frozen_parameters():
    model = nn.Linear(4, 3)
    model.bias.requires_grad_(False)
    bias = model.bias.detach().clone()
    treatment = ShrinkPerturb(model, shrink=0.0, noise=1.0, every=3)
    seen = []
    for _ in range(6):
        treatment.after_step()
        seen.append(model.weight.detach().clone())
    assert torch.equal(seen[0], seen[1]) and torch.equal(seen[2], seen[4])
    assert not torch.equal(seen[1], seen[2]) and not torch.equal(seen[4], seen[5])
    assert torch.equal(model.bias, bias)


def test_making_one_does_not_touch_the_global_random_state():
    state = torch.get_rng_state()
    ShrinkPerturb(nn.LayerNorm(2))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("options", [{"shrink": 1.5}, {"noise": -1.0}, {"every": 0}])
def test_settings_out_of_range(options):
    with pytest.raises(ValueError, match=f"{next(iter(options))} must be"):
        ShrinkPerturb(nn.Linear(2, 2), **options)
