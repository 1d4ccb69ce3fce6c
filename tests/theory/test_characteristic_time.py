import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from thalweg.nn import SKANetwork
from thalweg.optim import ska_fit
from thalweg.theory import characteristic_time

F64 = torch.float64


def test_the_first_layer_grows_at_the_rate_of_its_second_moments():
    x = torch.randn(40, 6, generator=torch.Generator().manual_seed(0), dtype=F64)
    top = torch.linalg.eigvalsh(x.T @ x / 40)[-1]
    tau = characteristic_time(x, [6, 3])
    assert tau.shape == (1,) and tau.dtype == F64
    assert tau.item() == pytest.approx(4 * math.log(2) / top.item())


@given(st.floats(0.1, 10), st.integers(1, 200))
def test_it_is_not_universal(scale, width):
    x = torch.rand(10, 4, generator=torch.Generator().manual_seed(1), dtype=F64)
    sizes = [4, width, 3]
    base, scaled = characteristic_time(x, sizes, 0.0), characteristic_time(scale * x, sizes, 0.0)
    assert scaled[0].item() == pytest.approx(base[0].item() / scale**2)
    assert base[1].item() == pytest.approx(16 * math.log(2) / width)


def test_larger_initial_weights_start_later_layers_sooner():
    x = torch.ones(5, 3, dtype=F64)
    small, large = (characteristic_time(x, [3, 8, 2], std) for std in (0.0, 1.0))
    assert small[0] == large[0] and large[1] < small[1]
    # σ(z) for z ~ N(0, 3): variance against a plain average over many draws.
    z = torch.randn(2_000_000, generator=torch.Generator().manual_seed(2), dtype=F64) * 3**0.5
    variance = torch.sigmoid(z).var().item()
    assert 4 * math.log(2) / large[1].item() == pytest.approx(2 + variance, rel=1e-3)


def test_the_fit_grows_as_predicted_and_the_biases_count():
    x = torch.rand(50, 10, generator=torch.Generator().manual_seed(3), dtype=F64)
    sizes = [10, 20, 15]
    with_bias = characteristic_time(x, sizes, 1e-9, bias=True)
    net = SKANetwork(sizes, 1e-9, F64, generator=torch.Generator().manual_seed(4))
    lr = 0.005
    history = ska_fit(net, x, lr=lr, steps=800)
    growth = (history.z_norm[-1] / history.z_norm[-201]).log() / (200 * lr)
    # Small weights stay in the linear regime; the stale input and ΔD are of first order in lr.
    assert torch.allclose(growth * with_bias, torch.ones(2, dtype=F64), rtol=0.02)
    without = characteristic_time(x, sizes, 1e-9)
    assert (growth * without > 1.1).all()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ((torch.zeros(0, 3), [3, 2]), "n > 0"),
        ((torch.zeros(2, 4), [3, 2]), r"got \(2, 4\)"),
        ((torch.full((2, 3), math.inf), [3, 2]), "not finite"),
        ((torch.ones(2, 3), [3]), "sizes"),
        ((torch.ones(2, 3), [3, 0]), "sizes"),
        ((torch.ones(2, 3), [3, 2], -1.0), "init_std"),
    ],
)
def test_errors(args, message):
    with pytest.raises(ValueError, match=message):
        characteristic_time(*args)
