"""A mask in front of an optimizer: what it leaves out stays, bit for bit."""

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from thalweg.optim import MaskedOptimizer

KINDS = {
    "SGD": lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, weight_decay=0.1),
    "Adam": lambda p: torch.optim.Adam(p, 0.1, weight_decay=0.1),
    "AdamW": lambda p: torch.optim.AdamW(p, 0.1, weight_decay=0.1),
    "LBFGS": lambda p: torch.optim.LBFGS(p, 0.1),
}


def fit(optimizer, model, steps=5):
    g = torch.Generator().manual_seed(0)
    x = torch.randn(8, 3, generator=g)

    def closure():
        optimizer.zero_grad()
        loss = (model(x) - 1).square().mean()
        loss.backward()
        return loss

    for _ in range(steps):
        optimizer.step(closure)


@pytest.mark.parametrize("kind", KINDS)
def test_a_full_mask_is_the_optimizer(kind):
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    other = copy.deepcopy(model)
    fit(KINDS[kind](model.parameters()), model)
    masks = {p: torch.ones_like(p, dtype=torch.bool) for p in other.parameters()}
    fit(MaskedOptimizer(KINDS[kind](other.parameters()), masks), other)
    assert torch.equal(model.weight, other.weight) and torch.equal(model.bias, other.bias)


@given(kind=st.sampled_from(list(KINDS)), seed=st.integers(0, 999), foreach=st.booleans())
def test_what_is_left_out_never_moves(kind, seed, foreach):
    torch.manual_seed(seed)
    model = nn.Linear(3, 2)
    before = model.weight.detach().clone()
    mask = torch.rand(2, 3) < 0.5
    inner = KINDS[kind](model.parameters())
    if "foreach" in inner.defaults:
        inner.param_groups[0]["foreach"] = foreach
    optimizer = MaskedOptimizer(inner, {"weight": mask}, model=model)
    fit(optimizer, model)
    assert torch.equal(model.weight[~mask], before[~mask])
    assert not mask.any() or not torch.equal(model.weight[mask], before[mask])


def test_a_broken_gradient_outside_the_mask_does_no_harm():
    p = nn.Parameter(torch.ones(2))
    optimizer = MaskedOptimizer(torch.optim.Adam([p], 0.1), {p: torch.tensor([True, False])})
    p.grad = torch.tensor([1.0, float("nan")])
    optimizer.step()
    assert p[1] == 1 and p[0].item() == pytest.approx(0.9)
    assert optimizer.state[p]["exp_avg"].isfinite().all()


def test_a_scheduler_and_named_parameters():
    model = nn.Linear(3, 2)
    inner = torch.optim.SGD(model.named_parameters(), 0.1)
    optimizer = MaskedOptimizer(inner, {"bias": torch.tensor([False, False])})
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)
    bias = model.bias.detach().clone()
    fit(optimizer, model, 1)
    scheduler.step()
    assert inner.param_groups[0]["lr"] == 0.05 and torch.equal(model.bias, bias)


def test_errors():
    model = nn.Linear(3, 2)
    inner = torch.optim.SGD(model.parameters(), 0.1)
    with pytest.raises(ValueError, match=r"'weight' is no parameter.*named_parameters"):
        MaskedOptimizer(inner, {"weight": torch.ones(2, 3).bool()})
    with pytest.raises(TypeError, match="not bool"):
        MaskedOptimizer(inner, {model.weight: torch.ones(2, 3)})
    with pytest.raises(ValueError, match=r"shape \(3, 2\), the parameter \(2, 3\)"):
        MaskedOptimizer(inner, {model.weight: torch.ones(3, 2).bool()})
    with pytest.raises(ValueError, match=r"a parameter of shape \(1,\)"):
        MaskedOptimizer(inner, {torch.ones(1): torch.ones(1).bool()})
