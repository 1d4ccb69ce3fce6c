"""Modules at predicted weights against the same modules with these weights put in."""

import copy

import pytest
import torch
from torch import nn

from thalweg.nn import HyperModule, HyperNet, hypernetize


class Block(nn.Module):
    """A residual convolution with a normalisation that keeps no averages."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 2, 3, padding=1)
        self.norm = nn.GroupNorm(1, 2)

    def forward(self, x):
        return x + torch.relu(self.norm(self.conv(x)))


class Tied(nn.Module):
    """Two layers that share a weight."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(3, 3), nn.Linear(3, 3)
        self.b.weight = self.a.weight

    def forward(self, x):
        return self.b(torch.relu(self.a(x)))


MODULES = {
    "mlp": (lambda: nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)), (5, 3)),
    "residual block": (Block, (5, 2, 6, 6)),
    "transformer layer": (
        lambda: nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, batch_first=True),
        (5, 3, 4),
    ),
    "shared weight": (Tied, (5, 3)),
}


def put_in(module, weights, x):
    """The module with its parameters overwritten."""
    module = copy.deepcopy(module)
    with torch.no_grad():
        for name, p in module.named_parameters():
            p.copy_(weights[name])
    return module(x)


@pytest.mark.parametrize("name", MODULES)
def test_one_set_of_weights_for_each_input(name):
    make, shape = MODULES[name]
    torch.manual_seed(0)
    module = make().double()
    model = hypernetize(module, {"z": (2,)})
    z = torch.rand(4, 2, dtype=torch.float64)
    x = torch.randn(4, *shape, dtype=torch.float64)
    found = model({"z": z}, x)
    for i in range(4):
        weights = model.hypernet(z=z[i])
        expected = put_in(module, weights, x[i])
        assert torch.allclose(found[i], expected, rtol=1e-10, atol=1e-12)
        assert torch.allclose(model({"z": z[i]}, x[i]), expected, rtol=1e-10, atol=1e-12)
    loss = found.square().sum()
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("name", MODULES)
def test_without_a_last_weight_it_is_the_module_bit_for_bit(name):
    make, shape = MODULES[name]
    module, x = make(), torch.randn(*shape)
    model = hypernetize(module, {"z": ()})
    nn.init.zeros_(model.hypernet.output.weight)
    assert torch.equal(model({"z": torch.tensor(0.4)}, x), module(x))


def test_some_parameters_are_predicted_and_the_others_learn_by_themselves():
    module = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    for parameters in (r"2\..*", ["2.weight", "2.bias"]):
        model = hypernetize(module, {"z": ()}, parameters)
        owned = {n for n, _ in model.named_parameters() if not n.startswith("hypernet")}
        assert owned == {"primary.0.weight", "primary.0.bias"}
        model({"z": torch.rand(3)}, torch.randn(3, 5, 3)).sum().backward()
        assert model.primary[0].weight.grad is not None
    assert module[2].weight is not None  # the one given stays whole


def test_it_learns():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(1, 16), nn.ReLU(), nn.Linear(16, 1))
    model = hypernetize(module, {"slope": ()})
    assert isinstance(model, HyperModule)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    losses = []
    for _ in range(150):
        slope, x = torch.rand(8), torch.rand(8, 16, 1)
        loss = (model({"slope": slope}, x) - slope[:, None, None] * x).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.05 * losses[0]


def test_saved_and_loaded():
    module, z, x = nn.Linear(2, 2), torch.rand(3), torch.randn(3, 4, 2)
    a, b = hypernetize(module, {"z": ()}), hypernetize(nn.Linear(2, 2), {"z": ()})
    b.load_state_dict(a.state_dict())
    assert torch.equal(a({"z": z}, x), b({"z": z}, x))


def test_errors():
    module = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    with pytest.raises(ValueError, match=r"no parameter is called 'head.*'; there are"):
        hypernetize(module, {"z": ()}, "head.*")
    with pytest.raises(ValueError, match=r"no parameter \['head'\]"):
        hypernetize(module, {"z": ()}, ["head"])
    with pytest.raises(ValueError, match=r"no parameter \['w'\]"):
        HyperModule(module, HyperNet({"z": ()}, {"w": (2,)}))
    model = hypernetize(module, {"z": ()})
    with pytest.raises(ValueError, match=r"3 inputs need 3 groups.*got \(5, 3\)"):
        model({"z": torch.rand(3)}, torch.randn(5, 3))
