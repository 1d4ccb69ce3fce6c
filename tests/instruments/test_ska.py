import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from thalweg.instruments import (
    SKAMonitor,
    bernoulli_entropy_change,
    is_null_lagrangian,
    ska_lagrangian,
)
from thalweg.nn import SKANetwork
from thalweg.optim import ska_fit

F64 = torch.float64


def test_known_entropies():
    def bits(a, b):
        one = [torch.tensor([x], dtype=F64) for x in (a, b)]
        return bernoulli_entropy_change(*one).item()

    assert bits(0.0, 1e4) == pytest.approx(-1)
    assert bits(-3.0, 3.0) == 0
    assert bits(0.0, math.log(3)) == pytest.approx(-0.188722, abs=1e-6)
    # Saturated: h ≈ z e^{-z}/ln 2, where 1 − σ(z) is long 0 in float64.
    assert bits(800.0, 40.0) == pytest.approx(41 * math.exp(-40) / math.log(2), rel=1e-6)
    with pytest.raises(ValueError, match="one shape"):
        bernoulli_entropy_change(torch.zeros(2), torch.zeros(3))


@given(st.lists(st.floats(-20, 20), min_size=1, max_size=5), st.floats(-20, 20))
def test_entropy_change_is_that_of_the_definition_and_adds_up(values, other):
    a = torch.tensor(values, dtype=F64)
    b = torch.full_like(a, other)

    def bits(z):
        p, q = torch.sigmoid(z), torch.sigmoid(-z)
        return (torch.special.entr(p) + torch.special.entr(q)).sum() / math.log(2)

    change = bernoulli_entropy_change(a, b)
    assert change.item() == pytest.approx((bits(b) - bits(a)).item(), abs=1e-12)
    back = bernoulli_entropy_change(b, a)
    assert change.item() == pytest.approx(-back.item(), abs=1e-14)


def test_summed_entropy_is_that_change_on_any_path_to_first_order():
    errors = []
    for num in (2000, 4000):
        # Out to 6, back to −2 and on to 1: only the ends count.
        t = torch.linspace(0, 1, num, dtype=F64)
        z = torch.where(t < 0.4, 15 * t, torch.where(t < 0.8, 14 - 20 * t, 15 * t - 14))
        summed = -(z[1:] * torch.sigmoid(z).diff()).sum() / math.log(2)
        exact = bernoulli_entropy_change(z[:1], z[-1:])
        errors.append(abs(summed - exact).item())
    assert errors[1] < 0.01 and errors[0] / errors[1] == pytest.approx(2, rel=0.1)


def test_the_action_selects_nothing():
    assert is_null_lagrangian()
    assert is_null_lagrangian(dim=1)
    assert is_null_lagrangian(lambda z, v: (2 * z * v).sum())  # d/dt z²
    assert is_null_lagrangian(lambda z, v: z[0] * v[1] + z[1] * v[0], 2)  # d/dt z₀z₁
    assert not is_null_lagrangian(lambda z, v: z[0] * v[1] - z[1] * v[0], 2)
    assert not is_null_lagrangian(lambda z, v: (v**2).sum())
    assert not is_null_lagrangian(lambda z, v: ska_lagrangian(z, v) + 1e-3 * (z**2).sum())
    with pytest.raises(ValueError, match="at least 1"):
        is_null_lagrangian(num_samples=0)
    with pytest.raises(ValueError, match="one number"):
        is_null_lagrangian(lambda z, v: z * v)


def test_the_monitor_reads_what_the_fit_measures():
    net = SKANetwork([5, 4, 3], 0.3, F64)
    x = torch.rand(7, 5, dtype=F64)
    monitor = SKAMonitor(net, ["layers.0", "layers.1"])
    history = ska_fit(net, x, lr=0.1, steps=8, callback=lambda k, z: monitor.after_step(x, lr=0.1))
    seen = monitor.history()
    for name in ("entropy", "cosine", "flow", "z_norm", "tensor_net", "tensor_net_total"):
        assert torch.allclose(getattr(seen, name), getattr(history, name), atol=1e-12), name
    # The fit notes the weights after the step, the monitor those that the forward pass used.
    assert torch.allclose(seen.weight_norm[1:], history.weight_norm[:-1])


def test_the_monitor_follows_any_optimizer_and_disturbs_nothing():
    model = nn.Sequential(
        nn.Linear(4, 6), nn.Sigmoid(), nn.BatchNorm1d(6), nn.Dropout(0.5), nn.Linear(6, 2)
    ).double()
    optimizer = torch.optim.Adam(model.parameters(), 0.05)
    x, y = torch.randn(9, 4, dtype=F64), torch.randint(2, (9,))
    monitor = SKAMonitor(model, ["0"])
    with torch.no_grad():
        first = model[0](x)
    for _ in range(5):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
        before = {n: t.clone() for n, t in model.state_dict().items()}
        state = torch.get_rng_state()
        monitor.after_step(x, lr=0.05)
        assert torch.equal(torch.get_rng_state(), state) and model.training
        assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())
        assert all(p.grad is not None for p in model.parameters())
    assert monitor.history().entropy.shape == (4, 1)
    assert monitor.history().flow.min() > 0 and first.shape == (9, 6)
    assert not model[0]._forward_hooks


def test_errors_of_the_monitor():
    model = nn.Sequential(nn.Linear(2, 2), nn.LSTM(2, 2))
    with pytest.raises(ValueError, match=r"layers must be names of modules, got \['9'\]"):
        SKAMonitor(model, ["9"])
    with pytest.raises(ValueError, match="names of modules"):
        SKAMonitor(model, [])
    with pytest.raises(ValueError, match="'code' or 'paper'"):
        SKAMonitor(model, ["0"], sign="other")
    monitor = SKAMonitor(model, ["0"])
    with pytest.raises(ValueError, match="at least twice"):
        monitor.history()
    with pytest.raises(ValueError, match="lr must be positive"):
        monitor.after_step(torch.zeros(3, 2), lr=0.0)
    monitor.after_step(torch.zeros(3, 2))
    with pytest.raises(ValueError, match="same batch"):
        monitor.after_step(torch.zeros(4, 2))
    with pytest.raises(ValueError, match="'1' returns tuple"):
        SKAMonitor(model, ["1"]).after_step(torch.zeros(3, 2))
