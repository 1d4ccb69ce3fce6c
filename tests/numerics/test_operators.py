import pytest
import torch

from thalweg.numerics import LinearOperator, as_operator


def test_the_three_forms_multiply_alike():
    A = torch.tensor([[2.0, 1.0], [1.0, 3.0]])
    v, V = torch.tensor([1.0, -1.0]), torch.randn(2, 3)
    forms = [A, lambda u: A @ u, LinearOperator(lambda u: A @ u, 2)]
    for op in (
        as_operator(f, None if isinstance(f, (torch.Tensor, LinearOperator)) else 2) for f in forms
    ):
        torch.testing.assert_close(op.matvec(v), A @ v)
        torch.testing.assert_close(op.matmat(V), A @ V)
        torch.testing.assert_close(op.dense(), A)
        assert op.num_matvecs == 1 + 3 + 2


def test_an_operator_is_handed_on_and_half_is_computed_in_single():
    op = LinearOperator(lambda v: v, 3)
    assert as_operator(op) is op
    assert as_operator(torch.eye(2, dtype=torch.bfloat16)).dtype == torch.float32
    assert as_operator(torch.eye(2, dtype=torch.float64)).dtype == torch.float64


def test_symmetry_is_noticed():
    assert as_operator(torch.eye(2)).symmetric
    assert not as_operator(torch.tensor([[0.0, 1.0], [0.0, 0.0]])).symmetric


@pytest.mark.parametrize(
    ("A", "dim", "what"),
    [
        (torch.ones(2, 3), None, "square"),
        (torch.ones(0, 0), None, "square"),
        (torch.ones(2, 2, dtype=torch.int64), None, "floating"),
        (torch.full((2, 2), float("nan")), None, "nan"),
        (torch.eye(2), 3, "dim=3"),
        (lambda v: v, None, "dim="),
    ],
)
def test_what_is_no_operator_is_refused(A, dim, what):
    with pytest.raises(ValueError, match=what):
        as_operator(A, dim)


def test_wrong_types_are_refused():
    with pytest.raises(TypeError, match="LinearOperator"):
        as_operator("A")  # pyright: ignore
    with pytest.raises(ValueError, match="dim"):
        LinearOperator(lambda v: v, 0)
