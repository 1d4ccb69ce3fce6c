"""Gradient norm."""

import torch
from torch import nn

from thalweg.instruments import grad_norm


def test_linear_model_in_closed_form():
    # f = w·x + b, loss ½ f²: gradient f·(x, 1).
    model = nn.Linear(3, 1).double()
    x = torch.tensor([[1.0, 2.0, 2.0]], dtype=torch.float64)
    f = model(x)
    (0.5 * f.square()).sum().backward()
    out = grad_norm(model.parameters())
    assert torch.allclose(out.each, f.abs().squeeze() * torch.tensor([3.0, 1.0]).double())
    assert torch.allclose(out.total, f.abs().squeeze() * 10**0.5)


def test_a_parameter_without_gradient_counts_zero():
    a, b = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    a.grad = torch.tensor([3.0, 4.0])
    assert grad_norm([b, a]).each.tolist() == [0.0, 5.0]
    assert grad_norm([b]).total == 0
    assert grad_norm([]).total == 0


def test_nonfinite_gradients_show():
    a = nn.Parameter(torch.ones(2))
    a.grad = torch.tensor([float("inf"), 1.0])
    assert grad_norm([a]).total.isinf()
