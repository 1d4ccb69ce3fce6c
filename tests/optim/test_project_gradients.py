"""Gradients within a subspace, by hooks and by hand."""

import pytest
import torch
from torch import nn

from thalweg.optim import ProjectGradients


def frame(n, r, seed=0, dtype=torch.float32):
    g = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(n, r, generator=g, dtype=torch.float64)).Q.to(dtype)


@pytest.mark.parametrize("side", ["right", "left"])
def test_both_ways_are_the_definition(side):
    model = nn.Sequential(nn.Linear(5, 4), nn.Linear(4, 2))
    F = frame(5 if side == "right" else 4, 2)
    x = torch.randn(3, 5)
    model(x).square().sum().backward()
    raw, bias = model[0].weight.grad.clone(), model[0].bias.grad.clone()
    expected = raw @ F @ F.T if side == "right" else F @ F.T @ raw
    project = ProjectGradients(model, {"0.weight": F}, side=side)
    project.apply()
    torch.testing.assert_close(model[0].weight.grad, expected)
    assert torch.equal(model[0].bias.grad, bias)
    model.zero_grad()
    with project:
        model(x).square().sum().backward()
        torch.testing.assert_close(model[0].weight.grad, expected)
        model(x).square().sum().backward()  # accumulates
        torch.testing.assert_close(model[0].weight.grad, 2 * expected)
    model.zero_grad()
    model(x).square().sum().backward()
    torch.testing.assert_close(model[0].weight.grad, raw)


def test_sgd_stays_in_the_subspace():
    model = nn.Linear(6, 3).double()
    start, F = model.weight.detach().clone(), frame(6, 2, dtype=torch.float64)
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    with ProjectGradients(model, {"weight": F}):
        for _ in range(5):
            optimizer.zero_grad()
            model(torch.randn(4, 6).double()).square().sum().backward()
            optimizer.step()
    moved = model.weight.detach() - start
    assert moved.norm() > 0.01
    torch.testing.assert_close(moved @ F @ F.T, moved)


def test_convolutions_half_precision_and_no_gradient():
    model = nn.Conv2d(2, 3, 2).bfloat16()
    project = ProjectGradients(model, {"weight": frame(8, 8)})
    project.apply()  # no gradient yet
    model.weight.grad = torch.randn(3, 2, 2, 2).bfloat16()
    before = model.weight.grad.clone()
    project.apply()
    torch.testing.assert_close(model.weight.grad, before, rtol=1e-2, atol=1e-2)
    assert model.weight.grad.dtype == torch.bfloat16


def test_errors():
    model = nn.Linear(5, 4)
    with pytest.raises(ValueError, match=r"no parameter 'w'; it has, e\.g\., weight"):
        ProjectGradients(model, {"w": frame(5, 2)})
    with pytest.raises(ValueError, match=r"right frame must be \(5, r\)"):
        ProjectGradients(model, {"weight": frame(4, 2)})
    with pytest.raises(ValueError, match="matrix"):
        ProjectGradients(model, {"bias": frame(4, 2)})
    with pytest.raises(ValueError, match="orthonormal"):
        ProjectGradients(model, {"weight": 2 * frame(5, 2)})
    with pytest.raises(ValueError, match="side right or left"):
        ProjectGradients(model, {}, side="top")
