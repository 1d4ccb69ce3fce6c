import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from thalweg.laws import Group, equivariance_error
from thalweg.nn import GroupPool, P4Conv2d, P4LiftConv2d

C4 = Group.cyclic(4, rotation=True)


def turn(i, x):
    return torch.rot90(x, i, (-2, -1))


def move(i, y):
    """Turn p4 maps: in space, and the orientations on."""
    return turn(i, y).roll(i, 2)


@given(st.integers(0, 1000), st.integers(1, 4), st.integers(0, 2), st.booleans())
def test_layers_commute_with_quarter_turns(seed, kernel, padding, bias):
    torch.manual_seed(seed)
    lift = P4LiftConv2d(2, 3, kernel, padding=padding, bias=bias).double()
    conv = P4Conv2d(3, 2, kernel, padding=padding, bias=bias).double()
    x = torch.randn(2, 2, 8, 7, dtype=torch.float64)
    square = torch.randn(2, 2, 8, 8, dtype=torch.float64)
    assert equivariance_error(lift, square, C4, turn, move) < 1e-14
    maps = lift(square)
    assert equivariance_error(conv, maps, C4, move, move) < 1e-14
    # An oblong image changes its shape with every turn, and all else goes with it.
    assert torch.allclose(lift(turn(1, x)), move(1, lift(x)), atol=1e-13)
    assert equivariance_error(GroupPool(), maps, C4, move, turn) == 0
    for reduce in ("max", "mean"):
        assert equivariance_error(GroupPool(reduce, space=True), maps, C4, move) < 1e-14


def test_a_slow_reference():
    lift, conv = P4LiftConv2d(2, 3, 3).double(), P4Conv2d(3, 2, 3).double()
    x = torch.randn(1, 2, 7, 7, dtype=torch.float64)
    y = lift(x)
    for i in range(4):
        one = nn.functional.conv2d(x, turn(i, lift.weight), lift.bias)
        assert torch.allclose(y[:, :, i], one)
    z = conv(y)
    for i in range(4):
        total = sum(
            nn.functional.conv2d(y[:, :, j], turn(i, conv.weight[:, :, (j - i) % 4]))
            for j in range(4)
        )
        assert torch.allclose(z[:, :, i], total + conv.bias[:, None, None])


def test_strides_that_fit_the_grid_are_exact_and_others_raise():
    net = nn.Sequential(P4LiftConv2d(1, 2, 3, stride=2), P4Conv2d(2, 2, 2, stride=2)).double()
    x = torch.randn(2, 1, 9, 9, dtype=torch.float64)
    assert equivariance_error(net, x, C4, turn, move) < 1e-14
    with pytest.raises(ValueError, match=r"stride 2 does not divide .* = 5"):
        net(x[:, :, :8, :8])


def test_norms_over_all_orientations_keep_it():
    net = nn.Sequential(
        P4LiftConv2d(1, 4, 3, padding=1), nn.BatchNorm3d(4), nn.ReLU(), P4Conv2d(4, 4, 3, padding=1)
    ).double()
    x = torch.randn(3, 1, 6, 6, dtype=torch.float64)
    assert equivariance_error(net, x, C4, turn, move) < 1e-14
    assert equivariance_error(net.float(), x.float(), C4, turn, move) < 1e-5


def test_sizes_of_the_weights_and_one_bias_per_channel():
    conv = P4Conv2d(8, 5, 3)
    assert conv.weight.shape == (5, 8, 4, 3, 3) and conv.bias.shape == (5,)
    assert P4LiftConv2d(3, 8, 5).weight.shape == (8, 3, 5, 5)
    assert P4Conv2d(1, 1, 3, bias=False).bias is None
    # As nn.Conv2d: uniform within 1/√fan_in.
    assert float(conv.weight.detach().abs().max()) <= 1 / (8 * 4 * 9) ** 0.5
    assert "8, 5, kernel_size=3" in repr(conv) and "'max', space=False" in repr(GroupPool())


@pytest.mark.parametrize(
    ("layer", "shape"),
    [(P4LiftConv2d(1, 2, 2), (1, 1, 3, 3)), (P4Conv2d(1, 2, 2), (1, 1, 4, 3, 3))],
)
def test_gradcheck_saving_and_dtypes(layer, shape):
    layer = layer.double()
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)

    def call(x, weight, bias):
        return torch.func.functional_call(layer, {"weight": weight, "bias": bias}, (x,))

    assert torch.autograd.gradcheck(call, (x, layer.weight, layer.bias))
    other = type(layer)(1, 2, 2, dtype=torch.float64)
    other.load_state_dict(layer.state_dict())
    assert torch.equal(other(x), layer(x))
    assert layer.bfloat16()(x.bfloat16()).dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: P4LiftConv2d(1, 0, 3), "out_channels must be an integer of at least 1"),
        (lambda: P4Conv2d(1, 1, 3, padding=-1), "padding must be"),
        (lambda: P4Conv2d(1, 1, 3, stride=(1, 2)), "stride must be .* got \\(1, 2\\)"),
        (lambda: P4LiftConv2d(1, 1, 3)(torch.ones(2, 3, 8, 8)), r"images \(B, 1, H, W\)"),
        (lambda: P4Conv2d(1, 1, 3)(torch.ones(2, 1, 8, 8)), "Start with P4LiftConv2d"),
        (lambda: GroupPool("sum"), "'max' or 'mean'"),
        (lambda: GroupPool()(torch.ones(2, 1, 3, 8, 8)), r"\(B, C, 4, H, W\)"),
    ],
)
def test_errors(call, said):
    with pytest.raises(ValueError, match=said):
        call()
