import pytest
import torch
from torch import nn

from thalweg.nn.parameter_choice import chosen_parameters, groups_of


def model():
    return nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))


@pytest.mark.parametrize(
    ("include", "exclude", "names"),
    [
        (None, None, ["0.weight", "0.bias", "2.weight", "2.bias"]),
        ("0", None, ["0.weight", "0.bias"]),
        ("*.weight", None, ["0.weight", "2.weight"]),
        (["0.weight", r"2\.b.*"], None, ["0.weight", "2.bias"]),
        ("2", "bias", ["2.weight"]),
    ],
)
def test_parts_globs_and_expressions(include, exclude, names):
    assert list(chosen_parameters(model(), include, exclude)) == names


def test_a_number_is_a_part_and_not_the_beginning_of_one():
    assert list(chosen_parameters(nn.ParameterDict({"l1": nn.Parameter(torch.ones(1))}), "l1"))
    with pytest.raises(ValueError, match="include='l' matches no parameter"):
        chosen_parameters(nn.ParameterDict({"l1": nn.Parameter(torch.ones(1))}), "l")


def test_groups():
    names = ["emb.weight", "layer.1.a.weight", "layer.1.b.bias", "layer.10.a.weight", "head.bias"]
    assert groups_of(names, "layer") == [0, 1, 1, 2, 3]
    assert groups_of(names, "tensor") == [0, 1, 2, 3, 4]
    assert groups_of(names, lambda n: n.endswith("bias")) == [0, 0, 1, 0, 1]
    with pytest.raises(ValueError, match="said_groups"):
        groups_of(names, "block")


def test_errors():
    with pytest.raises(ValueError, match=r"exclude='3\.\*' matches no parameter"):
        chosen_parameters(model(), exclude="3.*")
    with pytest.raises(ValueError, match="no parameter is left"):
        chosen_parameters(model(), exclude="*")
    with pytest.raises(ValueError, match="no parameter is left"):
        chosen_parameters(model().requires_grad_(False))
    with pytest.raises(ValueError, match="complex64"):
        chosen_parameters(nn.ParameterList([nn.Parameter(torch.ones(1, dtype=torch.complex64))]))
