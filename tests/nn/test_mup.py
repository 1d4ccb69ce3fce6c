"""nn/mup.py"""

import copy
import io
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from thalweg.nn import BaseShape, MuReadout, base_shape_of, set_base_shapes

VECTORS = np.load(
    Path(__file__).parent.parent / "vectors" / "large-learning-rates.npz", allow_pickle=False
)


class Net(nn.Module):
    """The network of the vectors."""

    def __init__(self, n, **options):
        super().__init__()
        self.l1, self.l2, self.l3 = nn.Linear(8, n), nn.Linear(n, 2 * n), nn.Linear(2 * n, n)
        self.out = MuReadout(n, 3, **options)

    def forward(self, x):
        for layer in (self.l1, self.l2, self.l3):
            x = torch.relu(layer(x))
        return self.out(x)


def net_of(case):
    n, base = VECTORS[f"{case}__width_base"].tolist()
    net = Net(n, output_mult=1.5).double()
    own = {k: torch.from_numpy(VECTORS[f"{case}__init_sp__{k}"]) for k in net.state_dict()}
    net.load_state_dict(own)
    return set_base_shapes(net, Net(base), Net(2 * base))


@pytest.mark.parametrize("case", ["mup0", "mup1"])
def test_vectors(case):
    """microsoft/mup at 1981497; only products of doubles, so 1e-14."""
    net = net_of(case)
    for name, value in net.state_dict().items():
        assert np.allclose(value, VECTORS[f"{case}__init_mup__{name}"], rtol=1e-14, atol=0), name
    y = net(torch.from_numpy(VECTORS[f"{case}__x"])).detach()
    assert np.allclose(y, VECTORS[f"{case}__y_forward"], rtol=1e-12, atol=0)


def test_at_the_base_width_it_is_the_standard_parametrisation():
    torch.manual_seed(0)
    net = Net(16)
    plain = nn.Linear(16, 3)
    plain.load_state_dict(net.out.state_dict())
    before = copy.deepcopy(net.state_dict())
    set_base_shapes(net, Net(16), Net(32))
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    x = torch.randn(5, 16)
    assert torch.equal(net.out(x), plain(x)) and net.out.width_mult == 1.0


@given(seed=st.integers(0, 10**6), base=st.integers(1, 8), mult=st.integers(1, 6))
def test_the_readout_is_the_formula(seed, base, mult):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(3, base * mult), MuReadout(base * mult, 2, output_mult=0.7))
    W, b = (p.detach().clone() for p in model[1].parameters())
    shapes = [{"0.weight": (n, 3), "0.bias": (n,), "1.weight": (2, n), "1.bias": (2,)}
              for n in (base, base + 1)]  # fmt: skip
    set_base_shapes(model, *shapes)
    x = torch.randn(4, base * mult)
    expected = 0.7 / mult * x @ (mult**0.5 * W).T + mult**0.5 * b
    assert torch.allclose(model[1](x), expected, atol=1e-5)


def test_base_shapes_count_infinite_dimensions():
    shape = BaseShape((None, 4, None, None), (10, 16, 3, 3))
    assert (shape.num_infinite, shape.width_mult, shape.mult(0), shape.mult(1)) == (1, 4, 1, 4)
    assert BaseShape((2, 4), (6, 8)).width_mult == 2  # the fan-in's
    assert BaseShape((None,), (3,)).width_mult == 1
    assert base_shape_of(nn.Parameter(torch.ones(2))) is None


def test_zero_init_starts_from_zero_and_learns():
    net = set_base_shapes(Net(8, readout_zero_init=True), Net(4), Net(6))
    y = net(torch.ones(1, 8))
    assert not y.any()
    y.sum().backward()
    assert net.out.weight.grad.any()


class Everything(nn.Module):
    """Embedding, attention, normalisation, convolutions, and a readout tied to the embedding."""

    def __init__(self, n):
        super().__init__()
        self.embed = nn.Embedding(7, n)
        self.conv = nn.Conv1d(n, n, 3, padding=1)
        self.depthwise = nn.Conv1d(n, n, 3, padding=1, groups=n)
        self.block = nn.TransformerEncoderLayer(n, 2, 4 * n, batch_first=True, dropout=0.0)
        self.norm = nn.LayerNorm(n)
        self.out = MuReadout(n, 7)
        self.out.weight = self.embed.weight

    def forward(self, tokens):
        h = self.embed(tokens)
        h = self.depthwise(self.conv(h.mT)).mT
        return self.out(self.norm(self.block(h)))


def test_usable_on_any_module_and_a_tied_readout_keeps_the_embeddings_spread():
    torch.manual_seed(0)
    net = Everything(32)
    tied, conv_bias = net.embed.weight.detach().clone(), net.conv.bias.detach().clone()
    set_base_shapes(net, Everything(8), Everything(16))
    assert net.out.weight is net.embed.weight and torch.equal(net.embed.weight, tied)
    assert torch.equal(net.conv.bias, 2 * conv_bias)
    counts = {n: base_shape_of(p).num_infinite for n, p in net.named_parameters()}
    assert counts["embed.weight"] == 1 and counts["conv.weight"] == 2
    assert counts["depthwise.weight"] == 1 and counts["norm.weight"] == 1
    assert counts["block.self_attn.in_proj_weight"] == 2 and counts["out.bias"] == 0
    tokens = torch.arange(6)[None]
    net(tokens).sum().backward()
    assert torch.compile(net, backend="eager")(tokens).shape == (1, 6, 7)


def test_copies_pickles_and_assigned_weights_keep_their_base_shapes():
    net = set_base_shapes(Net(16), Net(4), Net(8))
    stream = io.BytesIO()
    torch.save(net, stream)
    stream.seek(0)
    part = copy.deepcopy(net.out)
    for other in (copy.deepcopy(net), torch.load(stream, weights_only=False)):
        assert other.out.width_mult == 4
        for (_, p), (name, q) in zip(net.named_parameters(), other.named_parameters(), strict=True):
            assert q is not p and base_shape_of(q) == base_shape_of(p), name
    assert part.width_mult == 4 and base_shape_of(part.weight) == base_shape_of(net.out.weight)
    x = torch.randn(2, 8)
    y = net(x)
    net.load_state_dict({k: v.clone() for k, v in net.state_dict().items()}, assign=True)
    assert torch.equal(net(x), y)
    assert torch.equal(torch.func.functional_call(net, dict(net.state_dict()), (x,)), y)
    again = set_base_shapes(net, Net(4), Net(8), rescale_params=False)
    assert base_shape_of(again.l2.weight) == BaseShape((8, 4), (32, 16))
    assert torch.equal(again(x), y)


def test_gradients():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 6), MuReadout(6, 2)).double()
    set_base_shapes(model, nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2)))
    x = torch.randn(3, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(model[1], (x,))


def test_a_second_call_would_rescale_twice_and_raises():
    net = set_base_shapes(Net(16), Net(4), Net(8))
    with pytest.raises(RuntimeError, match="twice"):
        set_base_shapes(net, Net(4), Net(8))
    with pytest.raises(RuntimeError, match="twice"):
        set_base_shapes(nn.Sequential(net), nn.Sequential(Net(4)), nn.Sequential(Net(8)))


class Untamed(Net):
    def __init__(self, n):
        super().__init__(n)
        self.out = nn.Linear(n, 3)


@pytest.mark.parametrize(
    ("make", "base", "delta", "said"),
    [
        (Net, Net(16), None, "same shapes"),  # base = target would silently be standard
        (Net, Net(4), Net(4), "same shapes"),
        (Untamed, Untamed(4), Untamed(8), "out leads from .* make it a MuReadout"),
        (Net, nn.Linear(8, 4), None, "different parameters, such as"),
        (Net, {**{k: v.shape for k, v in Net(4).named_parameters()}, "l1.bias": (4, 1)}, None,
         "number of dimensions"),
        (Net, {**{k: v.shape for k, v in Net(4).named_parameters()}, "l1.weight": (4, 7)}, Net(8),
         "base and delta agree in that"),
    ],
)  # fmt: skip
def test_errors(make, base, delta, said):
    net = make(16)
    before = copy.deepcopy(net.state_dict())
    if said.startswith("base and"):
        delta = {**{k: v.shape for k, v in Net(8).named_parameters()}, "l1.weight": (8, 7)}
    with pytest.raises(ValueError, match=said):
        set_base_shapes(net, base, delta)
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    assert base_shape_of(net.l1.weight) is None


def test_a_readout_without_base_shapes_raises():
    with pytest.raises(RuntimeError, match=r"set_base_shapes\(model, base, delta\)"):
        Net(4)(torch.ones(1, 8))
