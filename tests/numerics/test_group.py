import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from thalweg.numerics import Group
from thalweg.numerics.group import Isotype, commutant, isotypic, reynolds


def _quaternions():
    """The quaternion group acting on itself, 8 elements of dimension 4."""
    i = torch.tensor([[0, -1, 0, 0], [1, 0, 0, 0], [0, 0, 0, -1], [0, 0, 1, 0]])
    j = torch.tensor([[0, 0, -1, 0], [0, 0, 0, 1], [1, 0, 0, 0], [0, -1, 0, 0]])
    return Group.from_generators([i.double(), j.double()])


@pytest.mark.parametrize(
    ("group", "order", "parts"),
    [
        (Group.symmetric(4), 24, [(1, 1, "real"), (3, 1, "real")]),
        (Group.cyclic(4), 4, [(1, 1, "real"), (1, 1, "real"), (2, 1, "complex")]),
        (Group.cyclic(5), 5, [(1, 1, "real"), (2, 1, "complex"), (2, 1, "complex")]),
        (Group.cyclic(6, rotation=True), 6, [(2, 1, "complex")]),
        (Group.cyclic(2, rotation=True), 2, [(1, 2, "real")]),
        (Group.dihedral(5), 10, [(2, 1, "real")]),
        (Group.cyclic(1), 1, [(1, 1, "real")]),
        (_quaternions(), 8, [(4, 1, "quaternionic")]),
    ],
)
def test_known_decompositions(group, order, parts):
    assert group.order == order
    found = isotypic(group.elements)
    assert [(t.dim, t.multiplicity, t.kind) for t in found] == parts
    total = sum(t.projector for t in found)
    assert torch.allclose(total, torch.eye(group.dim).double(), atol=1e-10)


@pytest.mark.parametrize("copies", [1, 2, 3])
def test_copies_are_counted(copies):
    rep = torch.stack([torch.block_diag(*[g] * copies) for g in Group.symmetric(3).elements])
    found: list[Isotype] = isotypic(rep)
    assert [(t.dim, t.multiplicity, t.trivial) for t in found] == [
        (1, copies, True), (2, copies, False)
    ]  # fmt: skip


@pytest.mark.parametrize(("n", "dims"), [(3, (2, 5, 14)), (4, (2, 5, 15))])
def test_equivariant_maps_of_permutations(n, dims):
    one = Group.symmetric(n).elements
    two = torch.stack([torch.kron(g, g) for g in one])
    trivial = torch.ones(len(one), 1, 1).double()
    assert len(commutant(one)) == dims[0]
    assert len(commutant(trivial, two)) == 2
    assert len(commutant(one, two)) == dims[1]
    assert len(commutant(two)) == dims[2]


def test_shifts_commute_with_circulants():
    maps = commutant(Group.cyclic(6).elements)
    assert len(maps) == 6
    for w in maps:
        assert torch.allclose(w.roll((1, 1), (0, 1)), w, atol=1e-10)


@given(
    st.integers(0, 1000), st.sampled_from([Group.symmetric(3), Group.dihedral(4), Group.cyclic(5)])
)
def test_averaging_is_the_projection_on_equivariant_maps(seed, group):
    gen = torch.Generator().manual_seed(seed)
    m = torch.randn(group.dim, group.dim, generator=gen, dtype=torch.float64)
    once = reynolds(m, group.elements)
    assert torch.allclose(reynolds(once, group.elements), once, atol=1e-12)
    assert torch.allclose(group.elements @ once, once @ group.elements, atol=1e-12)
    basis = commutant(group.elements)
    projected = torch.einsum("kij,kab,ab->ij", basis, basis, m)
    assert torch.allclose(projected, once, atol=1e-9)


def test_groups_from_generators_and_elements():
    turn = Group.cyclic(4, rotation=True).elements[1]
    flip = torch.diag(torch.tensor([1.0, -1.0]).double())
    assert Group.from_generators([turn, flip]).order == Group.dihedral(4).order == 8
    assert Group.of(Group.dihedral(3).elements).order == 6


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Group.symmetric(8), "40320 elements"),
        (lambda: Group.cyclic(0), "at least 1"),
        (lambda: Group.of(2 * torch.eye(2)[None]), "element 0 is not orthogonal"),
        (lambda: Group.of(Group.cyclic(4, rotation=True).elements[:2]), "not closed"),
        (lambda: Group.from_generators([_rotation(1.0)], max_order=100), "more than 100 elements"),
        (lambda: isotypic(torch.ones(2, 3, 2)), r"expected \(g, n, n\)"),
    ],
)
def test_errors(make, said):
    with pytest.raises(ValueError, match=said):
        make()


def _rotation(angle):
    c, s = math.cos(angle), math.sin(angle)
    return torch.tensor([[c, -s], [s, c]], dtype=torch.float64)
