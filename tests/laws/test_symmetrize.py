import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from thalweg.laws import Group, Symmetrized, equivariance_error, symmetrize
from thalweg.numerics import reynolds

C4 = Group.cyclic(4, rotation=True)


def _net(seed, n, m):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(n, 8), nn.Tanh(), nn.Linear(8, m)).double()


@given(st.integers(0, 1000), st.sampled_from([Group.symmetric(3), Group.dihedral(4), C4]))
def test_it_is_equivariant_and_averaging_again_changes_nothing(seed, group):
    net = _net(seed, group.dim, group.dim)
    x = torch.randn(6, group.dim, dtype=torch.float64)
    once = symmetrize(net, group, out_rep=group)
    assert equivariance_error(once, x, group, out_rep=group) < 1e-12
    assert torch.allclose(symmetrize(once, group, out_rep=group)(x), once(x), atol=1e-12)
    invariant = symmetrize(net, group)
    assert equivariance_error(invariant, x, group) < 1e-12


def test_of_a_linear_map_it_is_the_projection_on_the_commutant():
    group = Group.symmetric(4)
    layer = nn.Linear(4, 4, bias=False).double()
    average = reynolds(layer.weight.detach(), group.elements)
    x = torch.randn(5, 4, dtype=torch.float64)
    assert torch.allclose(symmetrize(layer, group, out_rep=group)(x), x @ average.T, atol=1e-12)


def test_images():
    turn = lambda i, x: torch.rot90(x, i, (-2, -1))  # noqa: E731
    conv = nn.Conv2d(1, 2, 3, padding=1).double()
    x = torch.randn(2, 1, 5, 5, dtype=torch.float64)
    average = symmetrize(conv, C4, turn, turn)
    assert equivariance_error(average, x, C4, turn, turn) < 1e-14
    assert equivariance_error(conv, x, C4, turn, turn) > 0.1


def test_it_trains_and_saves_as_the_model():
    net = _net(0, 3, 1)
    average: Symmetrized = symmetrize(net, Group.symmetric(3))
    assert {k.removeprefix("model.") for k in average.state_dict()} == set(net.state_dict())
    average(torch.randn(4, 3, dtype=torch.float64)).sum().backward()
    assert all(p.grad is not None for p in net.parameters())
    other = symmetrize(_net(1, 3, 1), Group.symmetric(3))
    other.load_state_dict(average.state_dict())
    x = torch.randn(4, 3, dtype=torch.float64)
    assert torch.equal(other(x), average(x))
    assert "order=6" in repr(average)


def test_errors():
    with pytest.raises(ValueError, match="out_rep has 2 matrices"):
        symmetrize(nn.Identity(), C4, out_rep=C4.elements[:2])
    with pytest.raises(ValueError, match="in_rep acts on 2 coordinates"):
        symmetrize(nn.Identity(), C4)(torch.ones(1, 3))
    with pytest.raises(ValueError, match="40320 elements"):
        symmetrize(nn.Identity(), Group.symmetric(8))
