import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from thalweg.instruments import jacobian_spectrum
from thalweg.nn import GroupSort


def test_a_network_of_orthogonal_layers_is_an_isometry():
    model = nn.Sequential(
        *(m for _ in range(4) for m in (nn.Linear(8, 8), GroupSort(2))), nn.Linear(8, 8)
    ).double()
    for layer in model[::2]:
        nn.init.orthogonal_(layer.weight)
    x = torch.randn(5, 8, dtype=torch.float64)
    assert (jacobian_spectrum(model, x).singular_values - 1).abs().max() < 1e-12


@given(st.integers(1, 4), st.integers(1, 4), st.integers(0, 99), st.sampled_from([-1, -2, 1, 0]))
def test_a_slow_reference(group, count, seed, dim):
    shape = [3, 2, 2]
    shape[dim] = group * count
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    y, want = GroupSort(group, dim=dim)(x), torch.empty_like(x)
    for i in range(count):
        rows = torch.arange(i * group, (i + 1) * group)
        want.index_copy_(dim, rows, x.index_select(dim, rows).sort(dim).values)
    assert torch.equal(y, want)
    assert torch.allclose(y.norm(), x.norm())  # a permutation


def test_groups_of_two_are_the_minimum_and_the_maximum():
    x = torch.randn(7, 6)
    a, b = x[:, ::2], x[:, 1::2]
    y = GroupSort()(x)
    assert torch.equal(y[:, ::2], torch.minimum(a, b))
    assert torch.equal(y[:, 1::2], torch.maximum(a, b))


def test_gradcheck_dtypes_copies_and_what_it_prints():
    layer = GroupSort(3)
    assert torch.autograd.gradcheck(layer, torch.randn(2, 6, dtype=torch.float64).requires_grad_())
    assert layer(torch.ones(6, dtype=torch.bfloat16)).dtype == torch.bfloat16
    assert not layer.state_dict() and repr(copy.deepcopy(layer)) == "GroupSort(group=3, dim=-1)"
    x = torch.randn(4, 6)
    assert torch.equal(torch.compile(layer, backend="eager")(x), layer(x))
    assert torch.equal(layer.train()(x), layer.eval()(x))


def test_errors():
    with pytest.raises(ValueError, match="groups of 4 do not divide 6"):
        GroupSort(4)(torch.ones(2, 6))
    with pytest.raises(ValueError, match="group must be at least 1"):
        GroupSort(0)
