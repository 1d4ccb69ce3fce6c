from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from thalweg.laws import equivariance_error
from thalweg.nn import EquivariantLinear
from thalweg.numerics import Group, reynolds

VECTORS = np.load(
    Path(__file__).parents[1] / "vectors/geometric-deep-learning.npz", allow_pickle=False
)
J = torch.tensor([[[0.0, -1.0], [1.0, 0.0]]], dtype=torch.float64)
FLIP = torch.diag(torch.tensor([1.0, -1.0], dtype=torch.float64))[None]


def _generators(n):
    eye = torch.eye(n, dtype=torch.float64)
    return torch.stack([eye[[1, 0, *range(2, n)]], eye.roll(1, 0)])


def _power(stack, order):
    result = torch.ones(len(stack), 1, 1).double()
    for _ in range(order):
        result = torch.stack([torch.kron(a, b) for a, b in zip(result, stack, strict=True)])
    return result


def _dim(into, out, **settings):
    return len(EquivariantLinear(into, out, **settings).coefficients)


@pytest.mark.parametrize(("n", "dims"), [(3, (2, 2, 5, 14)), (4, (2, 2, 5, 15)), (5, (2, 2, 5))])
def test_permutations(n, dims):
    few = _generators(n)
    for (k, m), dim in zip(((1, 1), (2, 0), (2, 1), (2, 2)), dims, strict=False):
        assert _dim(_power(few, k), _power(few, m)) == dim


def test_all_elements_give_what_generators_give():
    whole, few = Group.symmetric(4).elements, _generators(4)
    for k, m in ((1, 1), (2, 1)):
        a = EquivariantLinear(_power(whole, k), _power(whole, m), dtype=torch.float64)
        b = EquivariantLinear(_power(few, k), _power(few, m), dtype=torch.float64)
        assert torch.allclose(_projector(a), _projector(b), atol=1e-10)
        # The trace of the averaging projector is the dimension.
        n, size = a.basis.shape[2], a.basis.shape[1]
        units = torch.eye(n * size).double().reshape(-1, size, n)
        trace = sum((reynolds(u, _power(whole, m), _power(whole, k)) * u).sum() for u in units)
        assert float(trace) == pytest.approx(len(a.coefficients), abs=1e-9)


def test_shifts_and_rotations():
    assert _dim(Group.cyclic(6), Group.cyclic(6)) == 6
    assert _dim(J, J) == 2
    assert _dim(torch.cat([J, FLIP]), torch.cat([J, FLIP])) == 1
    # R² ⊗ R² to frequency 2, by Lie generators.
    eye = torch.eye(2).double()
    square = (torch.kron(J[0], eye) + torch.kron(eye, J[0]))[None]
    assert _dim(square, 2 * J) == 2
    assert _dim(square, torch.zeros(1, 1, 1)) == 2  # dot and cross product


def _projector(layer):
    flat = layer.basis.flatten(1)
    return flat.T @ flat


@pytest.mark.parametrize("name", ["S_1to1", "S_2to1", "shift6", "SO2", "SO2x2_to_SO2"])
def test_the_vectors(name):
    into, out = (torch.from_numpy(VECTORS[f"{name}_{side}"]) for side in ("in", "out"))
    layer = EquivariantLinear(into, out, dtype=torch.float64)
    assert len(layer.coefficients) == VECTORS[f"{name}_dim"]
    # Null spaces of matrices of norm about 1 in float64.
    assert np.allclose(_projector(layer), VECTORS[f"{name}_projector"], atol=1e-10)


@given(st.integers(0, 1000), st.sampled_from([Group.symmetric(3), Group.dihedral(3)]))
def test_every_weight_is_equivariant_and_projecting_changes_nothing(seed, group):
    torch.manual_seed(seed)
    into = _power(group.elements, 2)
    layer = EquivariantLinear(into, group, dtype=torch.float64)
    with torch.no_grad():
        for p in layer.parameters():
            p.normal_()
    x = torch.randn(5, group.dim**2, dtype=torch.float64)
    assert equivariance_error(layer, x, group, into, group) < 1e-12
    w = layer.weight.detach().flatten()
    assert torch.allclose(_projector(layer) @ w, w, atol=1e-12)


def test_training_the_coefficients_is_training_projected_weights():
    group = Group.symmetric(4)
    layer = EquivariantLinear(group, group, bias=False, dtype=torch.float64)
    w = layer.weight.detach().clone().requires_grad_()
    x, y = torch.randn(2, 20, 4, dtype=torch.float64).unbind(0)
    ours = torch.optim.SGD(layer.parameters(), 0.1)
    for _ in range(10):
        ours.zero_grad()
        (layer(x) - y).square().mean().backward()
        ours.step()
        (gradient,) = torch.autograd.grad((x @ w.T - y).square().mean(), w)
        step = (_projector(layer) @ gradient.flatten()).reshape(4, 4)
        w = (w - 0.1 * step).detach().requires_grad_()
    assert torch.allclose(layer.weight, w, atol=1e-12)


def test_biases_are_invariant():
    both = torch.cat([torch.eye(2).double()[[1, 0]][None]])
    layer = EquivariantLinear(both, both, dtype=torch.float64)
    with torch.no_grad():
        layer.bias_coefficients.fill_(1.0)
    assert torch.allclose(layer.bias[0], layer.bias[1])
    assert EquivariantLinear(J, J).bias is None
    assert EquivariantLinear(both, both, bias=False).bias_coefficients is None
    fixed = EquivariantLinear(J, torch.block_diag(J[0], torch.zeros(1, 1))[None])
    assert len(fixed.bias_coefficients) == 1


def test_it_starts_as_large_as_a_linear_layer():
    shift = Group.cyclic(16).elements[1:2]
    with torch.no_grad():
        squares = [EquivariantLinear(shift, shift).weight.square().mean() for _ in range(50)]
    assert float(sum(squares)) / 50 == pytest.approx(1 / (3 * 16), rel=0.1)


def test_gradcheck_saving_dtypes_and_shapes():
    group = Group.symmetric(3)
    layer = EquivariantLinear(group, group, dtype=torch.float64)
    x = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    names = [n for n, _ in layer.named_parameters()]

    def call(x, *values):
        return torch.func.functional_call(layer, dict(zip(names, values, strict=True)), (x,))

    assert torch.autograd.gradcheck(call, (x, *layer.parameters()))
    other = EquivariantLinear(group, group, dtype=torch.float64)
    other.load_state_dict(layer.state_dict())
    assert torch.equal(other(x), layer(x))
    small = layer.to(torch.bfloat16)
    assert small(torch.ones(4, 5, 3).bfloat16()).dtype == torch.bfloat16
    assert EquivariantLinear(group, group)(torch.ones(4, 5, 3)).shape == (4, 5, 3)
    assert EquivariantLinear(group, group)(torch.ones(3)).shape == (3,)
    assert "in_features=3, out_features=3, dim=2, bias_dim=1" in repr(layer)
    assert isinstance(layer, nn.Module)


@pytest.mark.parametrize(
    ("into", "out", "said"),
    [
        (2 * FLIP, FLIP, "and in_rep 0 is not orthogonal"),
        (FLIP, 3 * FLIP, "and out_rep 0 is not orthogonal"),
        (0.5 * J, torch.ones(1, 1, 1), "no pair of Lie generators, and in_rep 0"),
        (J, torch.cat([J, J]), "in_rep has 1 matrices and out_rep 2"),
        (torch.ones(2, 3), J, r"in_rep must be \(g, n, n\)"),
        (torch.eye(100)[None], torch.eye(50)[None], "5000 unknowns, more than 4096"),
        (J, torch.zeros(1, 1, 1), "only W = 0"),
    ],
)
def test_errors(into, out, said):
    with pytest.raises(ValueError, match=said):
        EquivariantLinear(into, out)
