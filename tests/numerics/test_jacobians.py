from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from thalweg.numerics import entk_gram, jacobian

CI = settings(max_examples=25, deadline=None, derandomize=True)
VECTORS = Path(__file__).parents[1] / "vectors" / "grokalign.npz"


def per_sample_loop(model, x):
    """The slow reference: one backward pass per sample and output."""
    params = [p for p in model.parameters() if p.requires_grad]
    rows = []
    for sample in x:
        for out in model(sample[None]).reshape(-1):
            grads = torch.autograd.grad(out, params, retain_graph=True, materialize_grads=True)
            rows.append(torch.cat([g.reshape(-1) for g in grads]))
    return torch.stack(rows)


class TwoPaths(nn.Module):
    """A layer used twice: its gradients add up, which the product form does not see."""

    def __init__(self):
        super().__init__()
        self.a = nn.Linear(4, 4)

    def forward(self, x):
        return self.a(torch.tanh(self.a(x)))


class Tied(nn.Module):
    """Two Linear layers that share a weight."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2)
        self.b.weight = self.a.weight

    def forward(self, x):
        return self.c(torch.tanh(self.b(torch.tanh(self.a(x)))))


class Unhooked(nn.Module):
    """Uses a layer's weight once through the layer and once without it."""

    def __init__(self):
        super().__init__()
        self.a = nn.Linear(4, 4)

    def forward(self, x):
        return torch.tanh(self.a(x)) @ self.a.weight.T


class Mixing(nn.Module):
    """Centres over the batch: samples alone are zero."""

    def __init__(self):
        super().__init__()
        self.a = nn.Linear(4, 3)

    def forward(self, x):
        return self.a(x - x.mean(0))


def frozen():
    model = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 2))
    model[0].weight.requires_grad_(False)
    model[2].bias.requires_grad_(False)
    return model


MODELS = {
    "mlp": lambda: nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)),
    "no bias": lambda: nn.Sequential(nn.Linear(4, 6, bias=False), nn.ReLU(), nn.Linear(6, 1)),
    "frozen": frozen,
    "norm": lambda: nn.Sequential(nn.Linear(4, 6), nn.LayerNorm(6), nn.Linear(6, 3)),
    "twice": TwoPaths,
    "mixing": Mixing,
    "tied": Tied,
    "used without its layer": Unhooked,
    "tokens": lambda: nn.Sequential(
        nn.Unflatten(1, (2, 2)), nn.Linear(2, 3), nn.Tanh(), nn.Flatten(), nn.Linear(6, 2)
    ),
    "conv": lambda: nn.Sequential(
        nn.Unflatten(1, (1, 2, 2)), nn.Conv2d(1, 2, 2), nn.Flatten(), nn.Linear(2, 2)
    ),
}


@pytest.mark.parametrize("kind", MODELS)
def test_the_kernel_is_that_of_the_loop(kind):
    torch.manual_seed(0)
    model, x = MODELS[kind]().double(), torch.randn(7, 4).double()
    J = per_sample_loop(model, x)
    for limit in (1 << 29, 500):
        torch.testing.assert_close(entk_gram(model, x, max_bytes=limit), J @ J.T)
    total = J.view(len(x), -1, J.shape[1]).sum(1)
    torch.testing.assert_close(entk_gram(model, x, outputs="sum"), total @ total.T)
    torch.testing.assert_close(jacobian(model, x, wrt="params").flatten(0, 1), J)


def test_input_jacobian_vectors():
    data = np.load(VECTORS, allow_pickle=False)
    layers = [nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 7), nn.ReLU(), nn.Linear(7, 3)]
    model = nn.Sequential(*layers).double()
    keys = [k for k in data.files if k.startswith("param_")]
    model.load_state_dict({k.removeprefix("param_"): torch.from_numpy(data[k]) for k in keys})
    x = torch.from_numpy(data["x"])
    J = jacobian(model, x)
    np.testing.assert_allclose(J, data["jacobian"], atol=1e-14)
    np.testing.assert_allclose(J.flatten(1).norm(dim=1), data["fro"])
    assert not x.requires_grad and all(p.grad is None for p in model.parameters())


@CI
@given(seed=st.integers(0, 10**6), n=st.integers(1, 5))
def test_bias_free_relu_nets_are_their_jacobian(seed, n):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(3, 8, bias=False), nn.ReLU(), nn.Linear(8, 2, bias=False))
    model, x = model.double(), torch.randn(n, 3).double()
    out = torch.einsum("ncd,nd->nc", jacobian(model, x), x)
    torch.testing.assert_close(out, model(x).detach(), atol=1e-12, rtol=0)


def test_errors():
    model = nn.Linear(2, 1)
    with pytest.raises(ValueError, match="sample"):
        jacobian(model, torch.ones(0, 2))
    with pytest.raises(ValueError, match="wrt"):
        jacobian(model, torch.ones(1, 2), wrt="x")
    with pytest.raises(ValueError, match="dtype"):
        jacobian(model, torch.ones(1, 2, dtype=torch.int64))
    with pytest.raises(ValueError, match="outputs"):
        entk_gram(model, torch.ones(1, 2), outputs="each")
    with pytest.raises(ValueError, match="requires grad"):
        entk_gram(nn.ReLU(), torch.ones(1, 2))
