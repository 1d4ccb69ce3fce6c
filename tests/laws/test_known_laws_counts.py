"""Are known laws complete? Their number against the Lie rank, an upper bound on any law."""

import itertools

import pytest
import torch
from torch import nn

from thalweg.laws import (
    conservation_laws,
    fields_from_map,
    fields_from_model,
    generic_point,
    known_laws,
    path_map,
)


def independent(model, laws):
    """Rank of the gradients of all laws at a generic point."""
    sizes = {n: p.numel() for n, p in model.named_parameters()}
    gen = torch.Generator().manual_seed(0)
    theta = generic_point(sum(sizes.values()), generator=gen)
    parts = dict(zip(sizes, theta.split(list(sizes.values())), strict=True))
    p = {n: parts[n].reshape(q.shape) for n, q in model.named_parameters()}
    rows = [
        torch.cat([moved.get(n, torch.zeros_like(q)).reshape(-1) for n, q in p.items()])
        for law in laws
        for moved in (law.generator(p, c) for c in torch.eye(law.count(p), dtype=torch.float64))
    ]
    return int(torch.linalg.matrix_rank(torch.stack(rows), rtol=1e-9)) if rows else 0


def mlp(widths, activation=nn.Identity, bias=False):
    layers = []
    for a, b in itertools.pairwise(widths):
        layers += [nn.Linear(a, b, bias=bias), activation()]
    return nn.Sequential(*layers[:-1])


@pytest.mark.parametrize(
    ("widths", "bias", "expected"),
    [
        ([2, 2, 2], False, 3),
        ([2, 3, 2], False, 6),
        ([2, 5, 1], False, 12),
        ([1, 3, 1], False, 5),
        ([2, 1, 3], False, 1),
        ([2, 2, 3, 2], False, 9),
        ([2, 2, 2], True, 3),
    ],
)
def test_linear_nets(widths, bias, expected):
    model = mlp(widths, bias=bias)

    def sample(g):
        return torch.randn(8, widths[0], generator=g), torch.randn(8, widths[-1], generator=g)

    report = conservation_laws(fields_from_model(model, "any", sample))
    laws = known_laws(model, torch.randn(5, widths[0]))
    assert independent(model, laws) == report.n_laws == expected and report.complete


@pytest.mark.parametrize(
    ("widths", "bias"), [([2, 3, 2], False), ([2, 2, 2], True), ([2, 2, 2, 1], True)]
)
def test_relu_nets(widths, bias):
    model = mlp(widths, nn.ReLU, bias)
    report = conservation_laws(fields_from_map(*path_map(widths, bias=bias)))
    laws = known_laws(model, torch.randn(5, widths[0]))
    assert independent(model, laws) == report.n_laws == sum(widths[1:-1]) and report.complete


def test_convolutions_with_relu():
    model = nn.Sequential(nn.Conv1d(1, 2, 2), nn.ReLU(), nn.Conv1d(2, 1, 2))

    def paths(theta):
        """Products along paths through a channel, whose gates are free at every place."""
        w1, b1, w2, b2 = theta.split([4, 2, 4, 1])
        w1, w2 = torch.cat([w1.reshape(2, 2), b1[:, None]], 1), w2.reshape(2, 2)
        return torch.cat([(w1[:, :, None] * w2[:, None, :]).reshape(-1), b2])

    report = conservation_laws(fields_from_map(paths, 11))
    laws = known_laws(model, torch.randn(3, 1, 5))
    assert independent(model, laws) == report.n_laws == 2 and report.complete


class Attention(nn.Module):
    def __init__(self, width, inner, out, bias, heads=1, kv=1, rope=False):
        super().__init__()
        self.heads, self.kv, self.rope = heads, kv, rope
        self.q = nn.Linear(width, heads * inner, bias)
        self.k, self.v = (nn.Linear(width, kv * inner, bias) for _ in range(2))
        self.o = nn.Linear(heads * inner, out, bias)

    def forward(self, x):
        q, k, v = (
            y.unflatten(-1, (n, -1)).transpose(1, 2)
            for y, n in ((self.q(x), self.heads), (self.k(x), self.kv), (self.v(x), self.kv))
        )
        if self.rope:
            angle = torch.arange(x.shape[1], dtype=x.dtype)[:, None]
            q, k = (
                torch.cat([-y[..., 1:], y[..., :1]], -1) * angle.sin() + y * angle.cos()
                for y in (q, k)
            )
        k, v = (y.repeat_interleave(self.heads // self.kv, 1) for y in (k, v))
        mixed = (q @ k.mT).softmax(-1) @ v
        return self.o(mixed.transpose(1, 2).flatten(2))[:, 0]


class SwiGLU(nn.Module):
    def __init__(self):
        super().__init__()
        self.w1, self.w2 = nn.Linear(2, 2, False), nn.Linear(2, 2)
        self.w3 = nn.Linear(2, 1, False)

    def forward(self, x):
        return self.w3(nn.functional.silu(self.w1(x)) * self.w2(x))


class Skip(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = (nn.Linear(2, 2, False) for _ in range(3))
        self.head = nn.Linear(2, 1, False)

    def forward(self, x):
        x = self.a(x)
        return self.head(x + self.c(nn.functional.softplus(self.b(x))))


SMOOTH = {
    "attention (2, 1, 1)": (Attention(2, 1, 1, False), (3, 2), 2),
    "attention (2, 2, 2)": (Attention(2, 2, 2, False), (3, 2), 6),
    "attention (2, 1, 1) with biases": (Attention(2, 1, 1, True), (3, 2), 3),
    "attention (2, 2, 2) with biases": (Attention(2, 2, 2, True), (3, 2), 8),
    "two heads": (Attention(2, 1, 1, False, heads=2, kv=2), (3, 2), 4),
    "grouped heads": (Attention(2, 1, 1, False, heads=2), (3, 2), 2),
    "grouped heads (2, 2, 2)": (Attention(2, 2, 2, False, heads=2), (3, 2), 6),
    "rotary": (Attention(2, 2, 1, False, rope=True), (3, 2), 4),
    "rotary with biases": (Attention(2, 2, 1, True, rope=True), (3, 2), 4),
    "swiglu": (SwiGLU(), (2,), 2),
    "gelu": (nn.Sequential(nn.Linear(2, 2), nn.GELU(), nn.Linear(2, 1)), (2,), 0),
    "layer norm gain": (nn.Sequential(nn.LayerNorm(3), nn.Linear(3, 2)), (3,), 3),
    "rms norm gain": (nn.Sequential(nn.RMSNorm(3), nn.Linear(3, 2)), (3,), 3),
    "a stream across a skip": (Skip(), (2,), 3),
}


@pytest.mark.parametrize("name", SMOOTH)
def test_smooth_architectures(name):
    model, shape, expected = SMOOTH[name]
    out = model.double()(torch.randn(1, *shape).double()).shape[-1]

    def sample(g):
        return torch.randn(8, *shape, generator=g), torch.randn(8, out, generator=g)

    report = conservation_laws(fields_from_model(model, "any", sample), method="brackets")
    laws = known_laws(model, torch.randn(4, *shape))
    # The Lie rank bounds all laws from above, whatever their form: none is missing.
    assert independent(model, laws) == report.n_laws == expected


def test_before_a_layer_norm():
    # Gains 3, the scale of what is normalised 1, and sums over its rows and bias 3.
    model = nn.Sequential(nn.Linear(2, 3), nn.LayerNorm(3, eps=1e-14), nn.Linear(3, 2))

    def sample(g):
        return torch.randn(8, 2, generator=g), torch.randn(8, 2, generator=g)

    report = conservation_laws(fields_from_model(model, "any", sample), method="linear")
    assert independent(model, known_laws(model, torch.randn(4, 2))) == report.n_laws == 7
