import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from thalweg.laws import Fields, fields_from_map, generic_point, path_map


def test_fields_are_the_gradients_of_the_components():
    family = fields_from_map(lambda t: torch.stack([t[0] * t[1], t[2] ** 2]), 3)
    theta = torch.tensor([2.0, 3.0, 5.0])
    assert torch.equal(family.at(theta), torch.tensor([[3.0, 2, 0], [0, 0, 10]]))
    mixed = family.combine(theta, torch.tensor([1.0, -1.0]))
    assert torch.equal(mixed, torch.tensor([3.0, 2, -10]))
    assert (family.dim, family.count) == (3, 2)


@given(st.integers(0, 1000), st.sampled_from([(2, 3, 1), (3, 2, 2, 1), (1, 2, 2, 2)]))
def test_paths_give_the_output_of_a_relu_network(seed, widths):
    """Where every unit is active, the output is the sum over paths of path × input."""
    torch.manual_seed(seed)
    layers = [nn.Linear(a, b) for a, b in itertools.pairwise(widths)]
    model = nn.Sequential(*layers).double()
    phi, dim = path_map(widths, bias=True)
    theta = torch.cat([p.detach().reshape(-1) for p in model.parameters()])
    assert len(theta) == dim
    x = torch.randn(widths[0], dtype=torch.float64)
    paths = phi(theta)
    # Paths are listed output by output within each start; those from inputs come first.
    jacobian = torch.autograd.functional.jacobian(model, x)
    ones = int(torch.tensor(widths[1:-1]).prod()) if len(widths) > 2 else 1
    from_inputs = paths[: widths[-1] * widths[0] * ones].reshape(widths[-1], -1)
    assert torch.allclose(from_inputs.sum(1), jacobian.sum(1))
    assert torch.allclose(paths.reshape(-1).sum(), jacobian.sum() + model(0 * x).sum())


def test_a_generic_point_has_no_zeros_or_ties():
    theta = generic_point(50, generator=torch.Generator().manual_seed(0))
    assert len(theta.abs().unique()) == 50 and theta.abs().min() >= 0.5 and theta.min() < 0
    again = generic_point(50, generator=torch.Generator().manual_seed(0))
    assert torch.equal(theta, again)


def test_callables_become_a_family():
    family = Fields.of([lambda t: t, lambda t: t.flip(0)], 2)
    assert torch.equal(family.at(torch.tensor([1.0, 2.0])), torch.tensor([[1.0, 2], [2, 1]]))
    with pytest.raises(ValueError, match="theta has 3 coordinates, the fields have 2"):
        Fields.of(family, 3)
