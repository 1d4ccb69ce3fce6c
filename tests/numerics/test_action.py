import pytest
import torch

from thalweg.numerics import Action, Group, Representation, as_action, inverses, require_orthogonal

C4 = Group.cyclic(4, rotation=True)


@pytest.mark.parametrize("group", [C4, Group.symmetric(4), Group.dihedral(5), Group.cyclic(3)])
def test_inverses(group):
    index = inverses(group)
    eye = torch.eye(group.dim).double()
    for g, i in zip(group.elements, index, strict=True):
        assert torch.allclose(g @ group.elements[i], eye, atol=1e-12)


def test_what_acts():
    x = torch.randn(5, 2)
    matrices: Representation = C4.elements
    assert torch.allclose(as_action(matrices, C4, "in_rep")(1, x), x @ C4.elements[1].T.float())
    assert as_action(None, C4, "in_rep")(3, x) is x
    flips: Action = lambda i, x: x * (-1) ** i  # noqa: E731
    assert as_action(flips, C4, "in_rep") is flips
    assert as_action(C4, C4, "in_rep")(2, x.half()).dtype == torch.float16


@pytest.mark.parametrize(
    ("rep", "said"),
    [
        (C4.elements[:2], "has 2 matrices, C4 has 4 elements"),
        (C4.elements[[0, 2, 1, 3]], "no representation of C4"),
        (2 * C4.elements, "in_rep 0 is not orthogonal"),
        (torch.ones(4, 2, 3), r"expected \(g, n, n\)"),
    ],
)
def test_what_is_no_representation(rep, said):
    with pytest.raises(ValueError, match=said):
        as_action(rep, C4, "in_rep")


def test_other_errors():
    with pytest.raises(ValueError, match="in_rep acts on 2 coordinates"):
        as_action(C4, C4, "in_rep")(1, torch.ones(5, 3))
    with pytest.raises(ValueError, match="not closed"):
        inverses(Group(C4.elements[:2], "half"))
    with pytest.raises(ValueError, match="thing 1 is not orthogonal"):
        require_orthogonal(torch.stack([torch.eye(2), torch.ones(2, 2)]), "thing")
