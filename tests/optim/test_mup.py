"""optim/mup.py"""

import copy
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from thalweg.nn import BaseShape, MuReadout, set_base_shapes
from thalweg.optim import MuAdam, MuAdamW, MuSGD, mup_factor, mup_param_groups

VECTORS = np.load(
    Path(__file__).parent.parent / "vectors" / "large-learning-rates.npz", allow_pickle=False
)


class Net(nn.Module):
    """The network of the vectors."""

    def __init__(self, n):
        super().__init__()
        self.l1, self.l2, self.l3 = nn.Linear(8, n), nn.Linear(n, 2 * n), nn.Linear(2 * n, n)
        self.out = MuReadout(n, 3, output_mult=1.5)

    def forward(self, x):
        for layer in (self.l1, self.l2, self.l3):
            x = torch.relu(layer(x))
        return self.out(x)


def net(n=16, base=4):
    return set_base_shapes(Net(n), Net(base), Net(2 * base))


def settings(groups):
    """Rate and decay of each parameter."""
    return {id(p): (g["lr"], g["weight_decay"]) for g in groups for p in g["params"]}


def same(found, expected):
    return all(math.isclose(a, b, rel_tol=1e-12) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("case", ["mup0", "mup1"])
@pytest.mark.parametrize(
    ("key", "make"),
    [
        ("adam", lambda p: MuAdam(p, lr=0.1, weight_decay=0.01)),
        ("adam", lambda p: MuAdamW(p, lr=0.1, weight_decay=0.01)),
        ("adamw_decoupled", lambda p: MuAdamW(p, 0.1, weight_decay=0.01, decoupled_wd=True)),
        ("sgd", lambda p: MuSGD(p, lr=0.1, weight_decay=0.01)),
    ],
)
def test_vectors(case, key, make):
    """microsoft/mup at 1981497: one product of doubles."""
    model = net(*VECTORS[f"{case}__width_base"].tolist())
    found = settings(make(model.parameters()).param_groups)
    for name, p in model.named_parameters():
        assert same(found[id(p)], VECTORS[f"{case}__{key}__{name}"]), name


def test_factors_of_a_wide_hidden_layer_and_of_the_readout():
    square, up, out = (
        BaseShape((2, 2), (8, 8)),
        BaseShape((2, 2), (16, 8)),
        BaseShape((None, 2), (3, 8)),
    )
    assert [mup_factor(s, "adam") for s in (square, up, out)] == [0.25, 0.25, 1.0]
    assert [mup_factor(s, "sgd") for s in (square, up, out)] == [1.0, 2.0, 4.0]
    assert mup_factor(BaseShape((None,), (3,)), "sgd") == 1.0


def test_factors_of_one_are_the_plain_optimizer_step_by_step():
    for ours, theirs, options in [
        (MuSGD, torch.optim.SGD, {"momentum": 0.9, "weight_decay": 0.01}),
        (MuAdam, torch.optim.Adam, {"amsgrad": True}),
        (MuAdamW, torch.optim.AdamW, {"weight_decay": 0.1}),
    ]:
        torch.manual_seed(0)
        model = net(8, 8)
        plain = copy.deepcopy(model)
        pair = (
            ours(model.parameters(), lr=0.01, **options),
            theirs(plain.parameters(), lr=0.01, **options),
        )
        for _ in range(5):
            x = torch.randn(4, 8)
            for m, optimizer in zip((model, plain), pair, strict=True):
                optimizer.zero_grad()
                m(x).square().sum().backward()
                optimizer.step()
        assert all(
            torch.equal(a, b) for a, b in zip(model.parameters(), plain.parameters(), strict=True)
        )


def test_one_step_against_the_formula():
    torch.manual_seed(0)
    for make, moved in [
        (lambda p: MuSGD(p, lr=0.1), lambda g, f: -0.1 * f * g),
        (lambda p: MuAdam(p, lr=0.1, eps=0.0), lambda g, f: -0.1 * f * g.sign()),
    ]:
        model = net().double()
        optimizer = make(model.parameters())
        model(torch.randn(64, 8, dtype=torch.float64)).square().sum().backward()
        kind = "sgd" if isinstance(optimizer, MuSGD) else "adam"
        before = [
            (p, p.detach().clone(), mup_factor(p.base_shape, kind)) for p in model.parameters()
        ]
        optimizer.step()
        for p, old, factor in before:
            live = p.grad != 0
            assert torch.allclose((p - old)[live], moved(p.grad, factor)[live], atol=1e-12)


@given(base=st.integers(1, 8), mult=st.integers(1, 8), ratio=st.integers(1, 4))
def test_rate_times_decay_does_not_depend_on_the_width(base, mult, ratio):
    shape = BaseShape((ratio * base, base), (ratio * base * mult, base * mult))
    p = nn.Parameter(torch.zeros(*shape.shape))
    p.base_shape = shape
    for kind in (MuSGD, MuAdam, MuAdamW):
        ((lr, decay),) = settings(kind([p], lr=0.1, weight_decay=0.01).param_groups).values()
        assert math.isclose(lr * decay, 0.1 * 0.01)
        assert math.isclose(lr, 0.1 if kind is MuSGD else 0.1 / mult)


def test_param_groups_drive_an_optimizer_of_any_make():
    model = net()
    for named in (model.named_parameters(), model.parameters()):
        groups = mup_param_groups(named, lr=0.1, weight_decay=0.01, kind="adam")
        optimizer = torch.optim.NAdam(groups)
        expected = settings(MuAdamW(model.parameters(), lr=0.1, weight_decay=0.01).param_groups)
        assert settings(optimizer.param_groups) == expected
    groups = mup_param_groups(model.parameters(), lr=0.1, weight_decay=0.01, decoupled_wd=True)
    assert {g["weight_decay"] for g in groups} == {0.01}
    assert settings(mup_param_groups(model.parameters(), lr=0.1, kind="sgd"))[
        id(model.out.weight)
    ] == (0.4, 0)


def test_a_base_width_alone_serves_a_chain_of_layers():
    model = net()
    for kind in ("adam", "sgd"):
        told = mup_param_groups(model.named_parameters(), lr=0.1, kind=kind)
        plain = Net(16)
        inferred = settings(mup_param_groups(plain.named_parameters(), 4, lr=0.1, kind=kind))
        expected = settings(told)
        for p, q in zip(model.parameters(), plain.parameters(), strict=True):
            assert same(inferred[id(q)], expected[id(p)])


def test_groups_with_rates_of_their_own_named_parameters_and_later_groups_are_scaled():
    model, other = net(), net()
    optimizer = MuAdamW(
        [
            {"params": model.l2.named_parameters(), "lr": 0.4},
            {"params": model.l1.named_parameters()},
        ],
        lr=0.1,
    )
    assert [g["lr"] for g in optimizer.param_groups] == [0.1, 0.4, 0.1]
    assert optimizer.param_groups[2]["param_names"] == ["weight", "bias"]
    restored = copy.deepcopy(optimizer)
    for o in (optimizer, restored):
        o.add_param_group({"params": list(other.l2.named_parameters())})
        assert [g["lr"] for g in o.param_groups[3:]] == [0.025, 0.1]
        assert [round(g["weight_decay"], 12) for g in o.param_groups[3:]] == [0.04, 0.01]


def test_schedules_and_saved_states_keep_the_factors():
    model = net()
    optimizer = MuAdam(model.parameters(), lr=0.1)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5**step)
    optimizer.step()
    schedule.step()
    rates = [g["lr"] for g in optimizer.param_groups]
    assert sorted(rates) == [0.0125, 0.05]
    again = MuAdam(model.parameters(), lr=7.0)
    again.load_state_dict(optimizer.state_dict())
    assert [g["lr"] for g in again.param_groups] == rates


def test_a_copied_model_can_be_optimized():
    model = copy.deepcopy(net())
    assert (
        settings(MuAdam(model.parameters(), lr=0.1).param_groups)[id(model.l2.weight)][0] == 0.025
    )


@pytest.mark.parametrize("kind", [MuSGD, MuAdam, MuAdamW])
def test_without_base_shapes_the_rates_would_silently_be_standard_and_it_raises(kind):
    with pytest.raises(ValueError, match="set_base_shapes"):
        kind(Net(16).parameters(), lr=0.1)
    with pytest.raises(ValueError, match="no base shape"):
        kind(net().parameters(), lr=0.1).add_param_group({"params": [nn.Parameter(torch.ones(2))]})
    with pytest.raises(ValueError, match="empty"):
        kind([], lr=0.1)
    with pytest.raises(ValueError, match="learning rate"):
        kind(net().parameters(), lr=-0.1)


def test_errors_of_factors_and_groups():
    with pytest.raises(ValueError, match="at most two infinite"):
        mup_factor(BaseShape((1, 1, 1), (2, 2, 2)), "adam")
    with pytest.raises(ValueError, match="adam"):
        mup_factor(BaseShape((1,), (2,)), "adamm")
    with pytest.raises(ValueError, match=r"parameter l1\.weight"):
        mup_param_groups(Net(16).named_parameters(), lr=0.1)
    with pytest.raises(ValueError, match="cannot be told"):
        mup_param_groups(nn.Linear(8, 16).named_parameters(), 4, lr=0.1)
    with pytest.raises(ValueError, match=r"both dimensions of 0\.weight"):
        square = nn.Sequential(nn.Linear(16, 16), nn.Linear(16, 3))
        mup_param_groups(square.named_parameters(), 4, lr=0.1)
    with pytest.raises(ValueError, match="base_width"):
        mup_param_groups(Net(16).named_parameters(), 0, lr=0.1)
    with pytest.raises(ValueError, match="no multiples of 6"):
        odd = nn.Sequential(nn.Linear(8, 6), nn.Linear(6, 9), nn.Linear(9, 6), nn.Linear(6, 5))
        mup_param_groups(odd.named_parameters(), 4, lr=0.1)
