import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from thalweg.instruments import critical_sharpness

CI = settings(max_examples=25, deadline=None, derandomize=True)


@CI
@given(seed=st.integers(0, 10**6), log_lr=st.floats(-3, 1))
def test_along_the_gradient_of_a_quadratic_it_is_the_rayleigh_quotient(seed, log_lr):
    g = torch.Generator().manual_seed(seed)
    h, lr = torch.rand(6, generator=g).double() + 0.1, 10**log_lr
    w = torch.randn(6, generator=g).double().requires_grad_()
    passes = 0

    def closure():
        nonlocal passes
        passes += 1
        return 0.5 * (h * w**2).sum()

    grad = h * w.detach()
    found = critical_sharpness(closure, [w], [-lr * grad], lr=lr)
    rayleigh = ((h * grad**2).sum() / (grad**2).sum()).item()
    assert found.status == "ok" and abs(found.value - rayleigh) <= 1.1 * found.uncertainty
    assert found.uncertainty <= 0.011 * found.value
    assert passes <= 6 + abs(math.log2(2 / (rayleigh * lr)))


def test_a_loss_that_blows_up_is_bracketed():
    w = torch.tensor([1.0], requires_grad=True)

    def closure():  # falls until 2, infinite from there on
        return -torch.log(2.0 - (w - 1).sum()) - (w - 1).sum()

    found = critical_sharpness(closure, [w], [torch.tensor([1.0])])
    assert found.status == "ok" and 1.0 <= found.value <= 2.0


def test_no_figure_where_there_is_none():
    w = torch.tensor([1.0], requires_grad=True)
    up, down = [torch.tensor([1.0])], [torch.tensor([-1.0])]
    rising = critical_sharpness(lambda: w.square().sum(), [w], up)
    assert "does not lower" in rising.status and math.isnan(rising.value)
    assert "falls all along" in critical_sharpness(lambda: w.sum(), [w], down).status
    assert critical_sharpness(lambda: w.sum() * math.nan, [w], up).status == "nonfinite"


def test_weights_keep_their_storage_and_version():
    w = torch.tensor([2.0], requires_grad=True)
    out = w.square().sum()  # a graph that is still to be used
    at, version = w.data_ptr(), w._version
    critical_sharpness(lambda: w.square().sum(), [w], [torch.tensor([-0.1])])
    assert (w.data_ptr(), w._version, w.item()) == (at, version, 2.0)
    out.backward()

    def broken():
        raise KeyError

    with pytest.raises(KeyError):
        critical_sharpness(broken, [w], [torch.tensor([-0.1])])
    assert w.data_ptr() == at


def test_errors():
    w = torch.ones(2, requires_grad=True)
    with pytest.raises(ValueError, match="match"):
        critical_sharpness(lambda: w.sum(), [w], [torch.ones(3)])
    with pytest.raises(ValueError, match="lr"):
        critical_sharpness(lambda: w.sum(), [w], [w], lr=0.0)
