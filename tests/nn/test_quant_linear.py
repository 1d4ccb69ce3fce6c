"""Linear layers in few bits, and models made of them."""

import copy

import pytest
import torch
from torch import nn

from thalweg.nn import QuantLinear, fake_quantize, quantize_model


def test_output_and_gradients_by_hand():
    torch.manual_seed(0)
    layer = QuantLinear(6, 4, dtype=torch.float64, group_size=3)
    x = torch.randn(5, 6, dtype=torch.float64, requires_grad=True)
    up = torch.randn(5, 4, dtype=torch.float64)
    y = layer(x)
    y.backward(up)
    qw = fake_quantize(layer.weight.detach(), group_size=3)
    qx = fake_quantize(x.detach(), group_size=3, dim=-1)
    assert torch.allclose(y, qx @ qw.T + layer.bias, atol=1e-12)
    assert torch.allclose(layer.weight.grad, up.T @ qx, atol=1e-12)
    assert torch.allclose(x.grad, up @ qw, atol=1e-12)
    assert not torch.allclose(qx, x, atol=1e-3)


def test_samples_do_not_share_scales():
    layer, x = QuantLinear(6, 4), torch.randn(5, 6)
    alone = torch.cat([layer(row[None]) for row in x])
    assert torch.allclose(layer(x), alone, atol=1e-6)


def test_in_full_precision_it_is_linear():
    layer = QuantLinear(6, 4, weight_scheme=None, act_scheme=None)
    x = torch.randn(2, 6)
    assert torch.equal(layer(x), nn.functional.linear(x, layer.weight, layer.bias))


def test_settings_are_checked_when_made_and_shown():
    with pytest.raises(ValueError, match="topk"):
        QuantLinear(6, 4, group_size=2, act_topk=2)
    with pytest.raises(ValueError, match="scheme"):
        QuantLinear(6, 4, weight_scheme="int9")
    assert "act_scheme=fp4_e2m1, bits=4, group_size=64" in repr(QuantLinear(6, 4))


class Net(nn.Module):
    """An attention, a tied pair, a nested list and a head."""

    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.layers = nn.ModuleList([nn.Linear(8, 8), nn.Sequential(nn.ReLU(), nn.Linear(8, 8))])
        self.again = self.layers[0]
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        x = self.attention(x, x, x)[0]
        return self.head(self.again(self.layers[1](self.layers[0](x))))


def test_a_model_keeps_parameters_names_and_ties():
    model = Net().eval()
    params, state = list(model.parameters()), copy.deepcopy(model.state_dict())
    assert quantize_model(model) is model
    assert all(a is b for a, b in zip(model.parameters(), params, strict=True))
    assert model.state_dict().keys() == state.keys()
    model.load_state_dict(state)
    kinds = {n: type(m) for n, m in model.named_modules()}
    assert kinds["layers.0"] is kinds["layers.1.1"] is QuantLinear
    assert kinds["head"] is nn.Linear
    assert kinds["attention.out_proj"] is not QuantLinear
    assert model.again is model.layers[0] and not model.again.training
    assert model(torch.randn(2, 5, 8)).shape == (2, 5, 3)


def test_skip_by_full_name_or_last_part():
    model = quantize_model(Net(), skip=["layers.0", "1"])
    kinds = {n: type(m) for n, m in model.named_modules()}
    assert kinds["layers.0"] is nn.Linear
    assert kinds["layers.1.1"] is nn.Linear and kinds["head"] is QuantLinear


def test_nothing_to_replace_and_hooks():
    with pytest.raises(ValueError, match=r"no nn\.Linear"):
        quantize_model(nn.Sequential(nn.ReLU()))
    model = Net()
    model.layers[0].register_forward_hook(lambda *a: None)
    with pytest.raises(ValueError, match="hooks"):
        quantize_model(model)


@pytest.mark.parametrize("scheme", ["int_asym", "fp4_e2m1", "nf4"])
def test_it_learns_in_four_bits(scheme):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh())
    model.append(nn.Linear(32, 1))
    quantize_model(model, weight=scheme, act=scheme, group_size=32, skip=["4"])
    x = torch.randn(256, 4)
    y = torch.sin(x[:, :1])
    adam = torch.optim.Adam(model.parameters(), 1e-2)
    losses = []
    for _ in range(150):
        adam.zero_grad()
        loss = (model(x) - y).square().mean()
        loss.backward()
        adam.step()
        losses.append(loss.item())
    assert losses[-1] < 0.15 * losses[0]
