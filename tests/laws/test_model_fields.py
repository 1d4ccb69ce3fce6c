import itertools

import pytest
import torch
from torch import nn

from thalweg.laws import conservation_laws, fields_from_model
from thalweg.numerics import Group


def _draw(*shape, classes=None):
    def sample(g):
        x = torch.randn(8, *shape, generator=g)
        y = torch.randint(classes, (8,), generator=g) if classes else torch.randn(8, 1, generator=g)
        return x, y

    return sample


def _linear(*widths, bias=False):
    return nn.Sequential(*[nn.Linear(a, b, bias=bias) for a, b in itertools.pairwise(widths)])


class Attention(nn.Module):
    def __init__(self, dim, head, bias):
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(dim, head, bias=bias) for _ in range(3))
        self.o = nn.Linear(head, dim, bias=False)

    def forward(self, x):
        q, k, v = self.q(x), self.k(x), self.v(x)
        return self.o((q @ k.transpose(-1, -2)).softmax(-1) @ v)


class SwiGLU(nn.Module):
    def __init__(self, dim, hidden):
        super().__init__()
        self.gate, self.up = nn.Linear(dim, hidden, bias=False), nn.Linear(dim, hidden, bias=False)
        self.down = nn.Linear(hidden, dim, bias=False)

    def forward(self, x):
        return self.down(nn.functional.silu(self.gate(x)) * self.up(x))


def test_a_linear_network_by_its_gradients_is_the_one_by_its_map():
    family = fields_from_model(_linear(2, 2, 2), "any", _draw(2))
    assert family.whole and family.count == 4  # the entries of the product
    report = conservation_laws(family)
    assert (report.n_laws, report.complete) == (3, True)
    assert report.formulas[0].count("[") == 4 and "0.weight[" in report.formulas[0]


@pytest.mark.parametrize(("head", "bias", "laws"), [(1, False, 2), (1, True, 3), (2, False, 6)])
def test_softmax_attention(head, bias, laws):
    family = fields_from_model(Attention(2, head, bias), "any", _draw(3, 2))
    report = conservation_laws(family)
    assert (report.n_laws, report.complete) == (laws, True)


def test_swiglu_keeps_its_linear_branch_and_gelu_keeps_nothing():
    report = conservation_laws(fields_from_model(SwiGLU(2, 3), "any", _draw(2)))
    assert (report.n_laws, report.complete) == (3, True)
    gelu = nn.Sequential(nn.Linear(2, 2), nn.GELU(), nn.Linear(2, 1))
    assert conservation_laws(fields_from_model(gelu, "any", _draw(2))).n_laws == 0


def test_the_output_layer_of_a_softmax_keeps_column_sums():
    model = nn.Linear(2, 3)
    report = conservation_laws(
        fields_from_model(model, "cross-entropy", _draw(2, classes=3)), degree=1
    )
    assert (report.n_laws, report.complete) == (3, True)
    assert "weight[0,0] + weight[1,0] + weight[2,0]" in report.formulas


def test_kinks_are_found_and_refused_in_brackets():
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1))
    family = fields_from_model(model, "any", _draw(2))
    assert family.kink == "relu in '1'"
    with pytest.raises(ValueError, match=r"kinks \(relu in '1'\)"):
        conservation_laws(family, method="brackets")
    report = conservation_laws(family)
    assert (report.method, report.lower) == ("poly", 2)


def test_a_callable_loss_and_a_fixed_sample():
    x, y = torch.randn(24, 2), torch.randn(24, 1)

    def huber(prediction, target):
        return nn.functional.mse_loss(prediction, target) ** 2

    report = conservation_laws(fields_from_model(_linear(2, 2, 1), huber, (x, y)))
    assert report.lower == 3 and report.n_laws >= 3


def test_the_users_model_is_left_alone():
    model = _linear(2, 2, 1)
    before = {n: p.clone() for n, p in model.named_parameters()}
    fields_from_model(model, "mse", _draw(2))
    assert all(torch.equal(before[n], p) and p.grad is None for n, p in model.named_parameters())
    assert model[0].weight.dtype == torch.float32


NORM = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
GROUP = Group.symmetric(2)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: fields_from_model(nn.ReLU(), "any", _draw(2)), "no trainable parameters"),
        (lambda: fields_from_model(nn.Sequential(nn.Linear(2, 1), nn.Dropout()), "mse", _draw(2)),
         "not deterministic.*dropout in 1"),
        (lambda: fields_from_model(NORM, "any", _draw(2)), "changes the buffer '1.running_mean'"),
        (lambda: fields_from_model(_linear(2, 2), "mse", _draw(2)), "targets have 1 components"),
        (lambda: fields_from_model(_linear(2, 1), "hinge", _draw(2)), "loss must be"),
        (lambda: fields_from_model(_linear(2, 1), "logistic", _draw(2)), r"targets \+1 or -1"),
        (lambda: fields_from_model(_linear(3, 1), "mse", _draw(3), GROUP), "acts on 2 coordinates"),
        (lambda: fields_from_model(_linear(2, 2), "cross-entropy", _draw(2, classes=2), GROUP),
         "say how the group acts on targets"),
        (lambda: fields_from_model(_linear(2, 2), "cross-entropy", _draw(2, classes=2), GROUP,
                                   torch.eye(2)[None]), r"out_rep must have shape \(2, 2, 2\)"),
        (lambda: fields_from_model(_linear(2, 1), "any", _draw(2), GROUP), "loss='any'"),
    ],
)  # fmt: skip
def test_errors(call, said):
    with pytest.raises(ValueError, match=said):
        call()
