import pytest
import torch
from torch import nn

from thalweg.optim import L2Init


def test_a_slow_reference_and_its_gradient():
    model = nn.Linear(3, 2).double()
    start = {n: p.detach().clone() for n, p in model.named_parameters()}
    regularizer = L2Init(model, weight=0.3)
    assert regularizer.penalty() == 0
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p))
    want = 0.3 * sum(((p - start[n]) ** 2).sum() for n, p in model.named_parameters())
    found = regularizer.penalty()
    assert torch.allclose(found, want)
    found.backward()
    for n, p in model.named_parameters():
        assert torch.allclose(p.grad, 0.6 * (p.detach() - start[n]))


def test_frozen_parameters_do_not_count_and_half_precision_is_added_up_in_float32():
    model = nn.Linear(3, 2).to(torch.bfloat16)
    model.bias.requires_grad_(False)
    regularizer = L2Init(model, weight=1.0)
    model.bias.data.add_(1.0)
    model.weight.data.add_(1.0)
    assert regularizer.penalty().dtype == torch.float32
    assert regularizer.penalty().item() == pytest.approx(6, rel=2e-2)


def test_a_resumed_training_keeps_its_beginning():
    model = nn.Linear(2, 2)
    first = L2Init(model)
    with torch.no_grad():
        model.weight.add_(1.0)
    resumed = L2Init(model)
    assert resumed.penalty() == 0
    resumed.load_state_dict(first.state_dict())
    assert torch.equal(resumed.penalty(), first.penalty())
    with pytest.raises(ValueError, match="the state has shapes"):
        L2Init(nn.Linear(3, 3)).load_state_dict(first.state_dict())


def test_errors():
    with pytest.raises(ValueError, match="weight must be ≥ 0"):
        L2Init(nn.Linear(2, 2), weight=-1.0)
    with pytest.raises(ValueError, match="no parameter requires grad"):
        L2Init(nn.Linear(2, 2).requires_grad_(False))
