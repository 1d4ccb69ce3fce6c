import pytest
import torch

from thalweg.laws import LinearSymmetries, fields_from_map, linear_symmetries


def _linear(m, r, n):
    dim = (m + n) * r
    return fields_from_map(lambda t: t[: m * r].reshape(m, r) @ t[m * r :].reshape(n, r).T, dim)


@pytest.mark.parametrize(
    ("shape", "counts"), [((2, 2, 2), (4, 3, 1)), ((2, 3, 2), (9, 6, 3)), ((3, 2, 1), (7, 3, 1))]
)
def test_published_counts(shape, counts):
    found: LinearSymmetries = linear_symmetries(_linear(*shape))
    assert found.counts == counts
    assert found.gap > 1e6


def test_elements_annihilate_the_fields_and_have_their_kind():
    family = _linear(2, 2, 2)
    found = linear_symmetries(family)
    theta = torch.randn(8, dtype=torch.float64)
    for kind, sign in ((found.symmetric, 1), (found.antisymmetric, -1)):
        assert torch.allclose(kind.transpose(1, 2), sign * kind, atol=1e-8)
        assert (kind @ theta @ family.at(theta).T).abs().max() < 1e-8


def test_dependent_laws_are_counted_once():
    found = linear_symmetries(_linear(1, 3, 1))
    assert found.independent == 5 < len(found.symmetric)
