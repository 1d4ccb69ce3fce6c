import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from thalweg.nn import SKANetwork
from thalweg.optim import SKAHistory, ska_fit

VECTORS = Path(__file__).parent.parent / "vectors" / "ska.npz"
F64 = torch.float64


@pytest.fixture(scope="module")
def vectors():
    with np.load(VECTORS, allow_pickle=False) as z:
        return {name: torch.from_numpy(z[name]) for name in z.files}


def network(seed=0, sizes=(5, 4, 3), std=0.3):
    return SKANetwork(sizes, std, F64, generator=torch.Generator().manual_seed(seed))


def batch(seed=0, n=7, width=5):
    return torch.rand(n, width, generator=torch.Generator().manual_seed(seed), dtype=F64)


def test_vectors_of_the_published_code(vectors):
    lr, steps = vectors["eta_K"].tolist()
    net = SKANetwork([8, 6, 4, 3], dtype=F64)
    with torch.no_grad():
        for i, layer in enumerate(net.layers):
            layer.weight.copy_(vectors[f"W0_{i}"].T)
    seen = {}
    history = ska_fit(
        net, vectors["X"], lr=lr, steps=int(steps), callback=lambda k, z: seen.update({k: z})
    )
    # Float64 round-off over twenty steps; flow divides differences by η.
    for i, layer in enumerate(net.layers):
        assert (layer.weight.T - vectors[f"W_{i}"]).abs().max() < 1e-12
        assert (layer.bias - vectors[f"b_{i}"]).abs().max() < 1e-12
        assert (seen[int(steps) - 1][i] - vectors[f"Z_{i}"]).abs().max() < 1e-12
        for name in ("entropy", "cosine", "flow", "tensor_net", "lagrangian"):
            assert (getattr(history, name)[:, i] - vectors[f"{name}_{i}"]).abs().max() < 1e-10, name
        assert (history.z_norm[:, i] - vectors[f"z_norm_{i}"][1:]).abs().max() < 1e-12
    assert sorted(seen) == list(range(int(steps)))


def slow(net, X, lr, steps):
    """Sample by sample and unit by unit; entropies and the last weights."""
    w = [layer.weight.T.clone().tolist() for layer in net.layers]
    b = [layer.bias.tolist() for layer in net.layers]
    rows, old_d = [], None
    sigma = lambda z: 1 / (1 + math.exp(-z))  # noqa: E731
    for k in range(steps):
        d, z = [X.tolist()], []
        for weight, bias in zip(w, b, strict=True):
            z.append([[sum(a * weight[i][j] for i, a in enumerate(row)) + bias[j]
                       for j in range(len(bias))] for row in d[-1]])  # fmt: skip
            d.append([[sigma(v) for v in row] for row in z[-1]])
        if k:
            row = []
            for at in range(len(w)):
                total = 0.0
                dw = [[0.0] * len(b[at]) for _ in w[at]]
                db = [0.0] * len(b[at])
                for n in range(len(X)):
                    for j in range(len(b[at])):
                        zz, dd, old = z[at][n][j], d[at + 1][n][j], old_d[at + 1][n][j]
                        total -= zz * (dd - old) / math.log(2)
                        g = -(zz * dd * (1 - dd) + dd - old) / math.log(2)
                        db[j] += g / len(X)
                        for i, p in enumerate(old_d[at][n]):
                            dw[i][j] += p * g / len(X)
                row.append(total)
                w[at] = [[a - lr * c for a, c in zip(r, s, strict=True)]
                         for r, s in zip(w[at], dw, strict=True)]  # fmt: skip
                b[at] = [a - lr * c for a, c in zip(b[at], db, strict=True)]
            rows.append(row)
        old_d = d
    return torch.tensor(rows, dtype=F64), [torch.tensor(x, dtype=F64) for x in w]


@given(st.integers(0, 1000), st.floats(0.01, 1.0), st.integers(3, 6))
def test_a_slow_reference(seed, lr, steps):
    net, X = network(seed, (3, 2, 2)), batch(seed, 4, 3)
    entropy, weights = slow(net, X, lr, steps)
    history = ska_fit(net, X, lr=lr, steps=steps)
    assert torch.allclose(history.entropy, entropy, atol=1e-12)
    for layer, w in zip(net.layers, weights, strict=True):
        assert torch.allclose(layer.weight.T, w, atol=1e-12)


def test_the_first_step_moves_nothing_and_zero_never_moves():
    history = ska_fit(network(), batch(), steps=6)
    for name in ("entropy", "cosine", "flow", "tensor_net", "lagrangian"):
        assert not getattr(history, name)[0].any(), name
    assert history.entropy.shape == (5, 2) and history.flow[1:].min() > 0
    still = network(std=0.0)
    ska_fit(still, batch(), lr=1.0, steps=20)
    assert not any(p.any() for p in still.parameters())


@given(st.integers(0, 1000))
def test_bounds_and_the_two_signs(seed):
    code = ska_fit(network(seed), batch(seed), lr=0.2, steps=12)
    paper = ska_fit(network(seed), batch(seed), lr=0.2, steps=12, sign="paper")
    assert code.cosine.abs().max() <= 1 + 1e-12
    assert torch.equal(code.entropy, paper.entropy)
    assert torch.allclose(code.tensor_net_total[-1], code.tensor_net.sum(0))
    # Their difference is twice Σ z σ' Δz / ln 2, which is the Lagrangian but for signs and η.
    twice = -2 * 0.2 / math.log(2) * code.lagrangian
    assert torch.allclose(paper.tensor_net - code.tensor_net, twice, atol=1e-12)


def test_tensor_net_is_a_difference_of_potentials():
    net, X, seen = network(std=0.5), batch(), {}
    history = ska_fit(net, X, lr=1e-3, steps=2000, callback=lambda k, z: seen.update({k: z}))

    def potential(z, sign):
        soft = torch.nn.functional.softplus(z)
        return (soft + sign / math.log(2) * (z * torch.sigmoid(z) - soft)).sum()

    for i in range(2):
        exact = potential(seen[1999][i], -1) - potential(seen[0][i], -1)
        assert history.tensor_net_total[-1, i].item() == pytest.approx(exact.item(), rel=5e-3)


def test_weights_are_changed_in_place_without_a_graph():
    net = network()
    before = [id(p) for p in net.parameters()]
    history = ska_fit(net, batch(), steps=4)
    assert isinstance(history, SKAHistory) and not history.entropy.requires_grad
    assert [id(p) for p in net.parameters()] == before
    assert all(p.grad is None and p.requires_grad for p in net.parameters())
    low = ska_fit(SKANetwork([5, 2]), batch().float(), steps=4)
    assert low.entropy.dtype == torch.float32


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"X": torch.zeros(0, 5, dtype=F64)}, r"X \(n, 5\) with n > 0"),
        ({"X": torch.zeros(3, 4, dtype=F64)}, r"got \(3, 4\)"),
        ({"X": torch.full((3, 5), math.nan, dtype=F64)}, "not finite"),
        ({"lr": 0.0}, "lr must be positive"),
        ({"steps": 2}, "at least 3, got 2"),
        ({"sign": "minus"}, "'code' or 'paper'"),
    ],
)
def test_errors(change, message):
    settings = {"X": batch(), **change}
    with pytest.raises(ValueError, match=message):
        ska_fit(network(), settings.pop("X"), **settings)
