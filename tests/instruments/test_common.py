"""What every instrument promises: it measures and changes nothing."""

import pytest
import torch
from torch import nn

import thalweg.instruments as instruments
from thalweg.instruments import (
    Reading,
    activation_rms,
    distance_from_init,
    dormant_fraction,
    grad_norm,
    instrument,
    update_norm,
    update_ratio,
    weight_norm,
)

# One row per instrument: how it is called on (model, earlier weights, activations).
CALLS = {
    weight_norm: lambda m, before, h: weight_norm(m.parameters()),
    grad_norm: lambda m, before, h: grad_norm(m.parameters()),
    update_norm: lambda m, before, h: update_norm(list(m.parameters()), before),
    update_ratio: lambda m, before, h: update_ratio(list(m.parameters()), before),
    distance_from_init: lambda m, before, h: distance_from_init(list(m.parameters()), before),
    activation_rms: lambda m, before, h: activation_rms(h),
    dormant_fraction: lambda m, before, h: dormant_fraction(h),
}


@pytest.mark.parametrize("measure", CALLS, ids=lambda f: f.__name__)
def test_nothing_is_changed(measure):
    model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 2))
    h = model(torch.randn(8, 4))
    h.square().mean().backward()
    before = [p.detach() + 1 for p in model.parameters()]
    kept = [t.clone() for t in [*model.state_dict().values(), *before, h.detach()]]
    grads = [p.grad.clone() for p in model.parameters()]
    random, training = torch.get_rng_state(), model.training
    CALLS[measure](model, before, h)
    now = [*model.state_dict().values(), *before, h.detach()]
    assert all(torch.equal(a, b) for a, b in zip(kept, now, strict=True))
    assert all(torch.equal(g, p.grad) for g, p in zip(grads, model.parameters(), strict=True))
    assert torch.equal(random, torch.get_rng_state()) and model.training == training


def test_every_cheap_instrument_is_in_the_table():
    marked = {f for n in instruments.__all__ if hasattr(f := getattr(instruments, n), "needs")}
    assert {f for f in marked if "closure" not in f.needs} <= CALLS.keys()


def test_marking_and_reading():
    @instrument("params", cost=3)
    def thing(params):
        return 1

    assert thing.needs == ("params",) and thing.cost == 3 and thing([]) == 1
    assert Reading(1.0).status == "ok" and Reading(1.0).uncertainty != Reading(1.0).uncertainty
