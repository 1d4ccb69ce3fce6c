import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from thalweg.laws import EquivarianceMonitor, Group, equivariance_error, lie_derivative_error

SIGN = Group.from_generators([-torch.eye(3)])
C4 = Group.cyclic(4, rotation=True)
J = torch.tensor([[0.0, -1.0], [1.0, 0.0]], dtype=torch.float64)


def turn(i, x):
    return torch.rot90(x, i, (-2, -1))


def test_known_errors():
    x = torch.randn(16, 3)
    assert equivariance_error(lambda x: x.norm(dim=1), x, SIGN) == 0
    assert equivariance_error(lambda x: x, x, SIGN) == 2
    assert equivariance_error(lambda x: x, x, SIGN, out_rep=SIGN) == 0
    plane = torch.randn(16, 2, dtype=torch.float64)
    # Turns by 90°, 180°, 270° move a point by √2, 2, √2 times its length.
    expected = (2 * math.sqrt(2) + 2) / 3
    assert equivariance_error(lambda x: x, plane, C4).item() == pytest.approx(expected, rel=1e-12)


def test_the_largest_and_the_centred():
    x = torch.tensor([[1.0, 0, 0], [0, 3.0, 0]])
    assert equivariance_error(lambda x: x, x, SIGN, reduce="max") == 3  # 6 ÷ mean(1, 3)
    big = lambda x: x[:, :1] + 1000.0  # noqa: E731
    y = torch.randn(64, 3)
    assert equivariance_error(big, y, SIGN) < 0.01
    assert equivariance_error(big, y, SIGN, reduce="centred") > 1.5
    # Nothing at all: 0 of 0.
    assert equivariance_error(lambda x: x * 0, y, SIGN).isnan()
    assert equivariance_error(lambda x: x[:, :1] * 0 + 1, y, SIGN, reduce="centred").isnan()


def test_images_turn_by_an_action():
    x = torch.randn(4, 1, 6, 6, dtype=torch.float64)
    kernel = torch.tensor([[0.0, 1, 0], [1, -4, 1], [0, 1, 0]], dtype=torch.float64)[None, None]
    laplacian = lambda x: nn.functional.conv2d(x, kernel, padding=1)  # noqa: E731
    assert equivariance_error(laplacian, x, C4, turn, turn) < 1e-15
    assert equivariance_error(laplacian, x, C4, turn) > 0.5


def _slow(f, x, rep_in, rep_out):
    changes = []
    for a, b in zip(rep_in[1:], rep_out[1:], strict=True):
        for s in x:
            changes.append((torch.linalg.inv(b) @ f((a @ s)[None])[0] - f(s[None])[0]).norm())
    return torch.stack(changes).mean() / torch.stack([f(s[None])[0].norm() for s in x]).mean()


@given(st.integers(0, 1000))
def test_it_is_the_definition_and_knows_no_scale(seed):
    gen = torch.Generator().manual_seed(seed)
    group = Group.symmetric(3)
    w = torch.randn(3, 3, generator=gen, dtype=torch.float64)
    x = torch.randn(5, 3, generator=gen, dtype=torch.float64)
    f = lambda x: torch.tanh(x @ w.T)  # noqa: E731
    error = equivariance_error(f, x, group, out_rep=group)
    assert torch.allclose(error, _slow(f, x, group.elements, group.elements), rtol=1e-10)
    scaled = equivariance_error(lambda x: 7 * f(x), x, group, out_rep=group)
    assert torch.allclose(error, scaled, rtol=1e-10)
    assert equivariance_error(f, x, group, reduce="max") >= equivariance_error(f, x, group)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_dtypes(dtype):
    x = torch.randn(4, 3).to(dtype)
    error = equivariance_error(lambda x: x, x, SIGN)
    assert error == 2 and error.ndim == 0
    assert error.dtype == (dtype if dtype.itemsize > 2 else torch.float32)


def test_lie_derivatives():
    x = torch.randn(50, 2, dtype=torch.float64)
    assert lie_derivative_error(lambda x: x.norm(dim=1), x, J) < 1e-30
    assert lie_derivative_error(lambda x: x, x, J, J) == 0
    assert lie_derivative_error(lambda x: x, x, J).item() == pytest.approx(1)
    # A frequency-2 output turns twice as fast.
    double = lambda x: torch.stack([x[:, 0] ** 2 - x[:, 1] ** 2, 2 * x[:, 0] * x[:, 1]], 1)  # noqa: E731
    assert lie_derivative_error(double, x, J, 2 * J) < 1e-30
    both = lie_derivative_error(double, x, torch.stack([J, 2 * J]), torch.stack([2 * J, 2 * J]))
    assert both[0] < 1e-30 and both[1].item() == pytest.approx(4)
    largest = lie_derivative_error(double, x, J, reduce="max")
    assert largest > lie_derivative_error(double, x, J)
    shifted = lambda x: x[:, 0] + 100.0  # noqa: E731
    assert lie_derivative_error(shifted, x, J) < 1e-3
    assert lie_derivative_error(shifted, x, J, reduce="centred") > 0.3


def test_lie_generators_may_be_functions():
    x = torch.randn(10, 3, 2, dtype=torch.float64)  # three points of the plane
    energy = lambda x: x.square().sum((1, 2))  # noqa: E731
    assert lie_derivative_error(energy, x, lambda x: x @ J.T) < 1e-30
    shift = [torch.ones_like, lambda x: x @ J.T]
    errors = lie_derivative_error(energy, x, shift)
    assert errors[0] > 0.1 and errors[1] < 1e-30


def test_the_lie_derivative_is_the_limit_of_small_turns():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 3)).double()
    x = torch.randn(20, 2, dtype=torch.float64)
    eps = 1e-5
    small = torch.linalg.matrix_exp(eps * J)
    with torch.no_grad():
        change = (net(x @ small.T) - net(x @ small)) / (2 * eps)
        expected = change.square().sum(1).mean() / net(x).square().sum(1).mean()
    assert torch.allclose(lie_derivative_error(net, x, J)[0], expected, rtol=1e-7)


def test_the_model_is_left_as_it_was():
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    before = {k: v.clone() for k, v in net.state_dict().items()}
    state = torch.get_rng_state()
    equivariance_error(net, torch.randn(8, 3, generator=torch.Generator()), SIGN)
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    assert net.training and torch.equal(torch.get_rng_state(), state)
    assert all(p.grad is None for p in net.parameters())


def test_the_monitor_follows_a_training():
    net = nn.Sequential(nn.Linear(3, 16), nn.Dropout(0.5), nn.Linear(16, 1))
    x = torch.randn(32, 3)
    monitor = EquivarianceMonitor(net, x, SIGN, every=20)
    optimizer = torch.optim.Adam(net.parameters(), 0.01)
    for step in range(101):
        monitor(step)
        optimizer.zero_grad()
        (net(torch.cat([x, -x])) - 1).square().mean().backward()
        optimizer.step()
    assert monitor.steps == [0, 20, 40, 60, 80, 100]
    assert net.training and net[1].training
    assert monitor.errors[-1] < 0.2 * monitor.errors[0]
    with pytest.raises(ValueError, match="every must be at least 1"):
        EquivarianceMonitor(net, x, SIGN, every=0)


@pytest.mark.parametrize(
    ("call", "kind", "said"),
    [
        (lambda x: equivariance_error(lambda x: x.argmax(1), x, SIGN), TypeError, "argmax"),
        (lambda x: equivariance_error(lambda x: (x, x), x, SIGN), TypeError, "one tensor"),
        (lambda x: equivariance_error(nn.Dropout(0.5), x, SIGN), ValueError, "model.eval"),
        (lambda x: equivariance_error(nn.Identity(), x, SIGN, reduce="mean"), ValueError,
         "'ratio', 'max' or 'centred'"),
        (lambda x: equivariance_error(nn.Identity(), x, C4), ValueError, "acts on 2 coordinates"),
        (lambda x: equivariance_error(nn.Identity(), x, SIGN, lambda i, x: -x), ValueError,
         "must be the identity"),
        (lambda x: equivariance_error(nn.Identity(), x, Group.cyclic(1)), ValueError,
         "only the identity"),
        (lambda x: equivariance_error(lambda x: x.sum(0), x, SIGN), ValueError, "8 samples gave"),
        (lambda x: equivariance_error(nn.Identity(), x, SIGN, out_rep=lambda i, y: y[:, :1]),
         ValueError, "out_rep gives"),
        (lambda x: lie_derivative_error(nn.Identity(), x, torch.ones(2, 3)), ValueError,
         r"must be \(k, n, n\)"),
        (lambda x: lie_derivative_error(nn.Identity(), x, J), ValueError, "act on 2 coordinates"),
        (lambda x: lie_derivative_error(nn.Identity(), x, torch.zeros(2, 3, 3), torch.zeros(3, 3)),
         ValueError, "2 generators, but 1"),
    ],
)  # fmt: skip
def test_errors(call, kind, said):
    with pytest.raises(kind, match=said):
        call(torch.randn(8, 3))
