"""Gradient flow in float64 keeps every known law to the integrator's error, and moves the rest."""

import pytest
import torch
from torch import nn
from torch.func import functional_call, grad

from thalweg.laws import known_laws


def flow(model, loss, *, time, steps):
    """Start and end of θ' = −∇L by classical Runge–Kutta, as parameters by name."""
    p = {n: x.detach().clone() for n, x in model.named_parameters()}
    start, h = dict(p), time / steps
    slope = grad(loss)

    def moved(by, at):
        return {n: p[n] - by * at[n] for n in p}

    for _ in range(steps):
        a = slope(p)
        b = slope(moved(h / 2, a))
        c = slope(moved(h / 2, b))
        d = slope(moved(h, c))
        p = {n: p[n] - h / 6 * (a[n] + 2 * b[n] + 2 * c[n] + d[n]) for n in p}
    return start, p


def drifts(model, laws, loss, *, time=1.0, steps=150):
    """Largest change of the laws that are exact, of those that hold up to ε, and of a control."""
    start, end = flow(model, loss, time=time, steps=steps)
    exact = [
        float((law.fn(end) - law.fn(start)).abs().max()) for law in laws if "eps" not in law.note
    ]
    near = [float((law.fn(end) - law.fn(start)).abs().max()) for law in laws if "eps" in law.note]
    # The control: squared norms of all parameters, the same functions without the balance.
    control = max(abs(float((end[n] ** 2).sum() - (start[n] ** 2).sum())) for n in start)
    return max(exact), max(near, default=0.0), control


class Block(nn.Module):
    def __init__(self, activation, groups=1):
        super().__init__()
        self.ln1, self.ln2 = nn.LayerNorm(8), nn.LayerNorm(8)
        self.attn = nn.MultiheadAttention(8, 2, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(8, 12), activation, nn.Linear(12, 8))

    def forward(self, x):
        y = self.ln1(x)
        x = x + self.attn(y, y, y, need_weights=False)[0]
        return x + self.mlp(self.ln2(x))


class Transformer(nn.Module):
    def __init__(self):
        super().__init__()
        self.tok, self.pos = nn.Embedding(7, 8), nn.Parameter(torch.randn(5, 8))
        self.block = Block(nn.Softplus())
        self.norm, self.head = nn.LayerNorm(8), nn.Linear(8, 7)

    def forward(self, ids):
        return self.head(self.norm(self.block(self.tok(ids) + self.pos)))


def test_a_transformer_under_cross_entropy():
    torch.manual_seed(0)
    model = Transformer().double()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.3 * torch.randn_like(p))  # no zero biases, no unit gains
    ids, y = torch.randint(7, (6, 5)), torch.randint(7, (6, 5))

    def loss(p):
        out = functional_call(model, p, (ids,))
        return nn.functional.cross_entropy(out.flatten(0, 1), y.flatten())

    laws = known_laws(model, ids, loss="cross-entropy")
    kinds = {law.name.split(":")[0] for law in laws}
    assert kinds == {"scale", "gain", "query/key", "value/output", "sums", "key bias"}
    exact, near, control = drifts(model, laws, loss)
    assert exact < 1e-8 and near < 1e-4 and control > 0.1


def test_cross_entropy_laws_drift_under_squared_error():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 4)).double()
    x, y = torch.randn(8, 3).double(), torch.randn(8, 4).double()
    laws = known_laws(model, x, loss="cross-entropy")
    right = drifts(
        model, laws, lambda p: nn.functional.cross_entropy(functional_call(model, p, (x,)),
                                                           y.argmax(1)))  # fmt: skip
    wrong = drifts(model, laws, lambda p: (functional_call(model, p, (x,)) - y).square().mean())
    assert right[0] < 1e-12 and wrong[0] > 1e-2


def _squared(model, x, y):
    return lambda p: (functional_call(model, p, (x,)) - y).square().sum() / len(x)


def test_a_deep_linear_net_and_an_attention_head():
    torch.manual_seed(1)
    linear = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 5), nn.Linear(5, 2)).double()
    x, y = torch.randn(9, 3).double(), torch.randn(9, 2).double()
    exact, _, control = drifts(linear, known_laws(linear, x), _squared(linear, x, y))
    assert exact < 1e-8 and control > 0.1


class Square(nn.Module):
    """Squared ReLU: homogeneous of degree two, and smooth enough for Runge–Kutta."""

    def forward(self, x):
        return torch.relu(x) ** 2


def test_batch_norm_and_a_homogeneous_activation_in_a_convolutional_net():
    torch.manual_seed(2)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3, bias=False), nn.BatchNorm2d(4, track_running_stats=False), Square(),
        nn.Conv2d(4, 3, 3), Square(), nn.Flatten(), nn.Linear(12, 2),
    ).double()  # fmt: skip
    x, y = torch.randn(6, 1, 6, 6).double(), 3 * torch.randn(6, 2).double()
    laws = known_laws(model, x)
    assert len(laws) == 3
    exact, near, control = drifts(model, laws, _squared(model, x, y), time=0.1, steps=250)
    assert exact < 1e-6 and near < 1e-4 and control > 0.1


def test_relu_up_to_what_its_kinks_cost_the_integrator():
    torch.manual_seed(2)
    model = nn.Sequential(nn.Linear(3, 6), nn.ReLU(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 2))
    x, y = torch.randn(5, 3).double(), torch.randn(5, 2).double()
    laws, loss = known_laws(model.double(), x), _squared(model, x, y)
    exact, _, control = drifts(model, laws, loss, time=0.5, steps=1000)
    assert exact < 1e-5 and control > 0.1


def test_the_naive_balance_across_a_skip_drifts():
    torch.manual_seed(3)

    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = nn.Linear(3, 4), nn.Linear(4, 6), nn.Linear(4, 2)
            self.d = nn.Linear(6, 4)

        def forward(self, x):
            x = self.a(x)
            return self.c(x + self.d(nn.functional.gelu(self.b(x))))

    model = Residual().double()
    x, y = torch.randn(9, 3).double(), torch.randn(9, 2).double()
    (law,) = known_laws(model, x)
    start, end = flow(model, _squared(model, x, y), time=1.0, steps=150)

    def naive(p):
        return (p["c.weight"] ** 2).sum(0) - (p["a.weight"] ** 2).sum(1) - p["a.bias"] ** 2

    # What b reads from the stream and d writes to it belongs to the balance.
    assert float((naive(end) - naive(start)).abs().max()) > 1e-2
    assert float((law.fn(end) - law.fn(start)).abs().max()) < 1e-8


@pytest.mark.parametrize("zero", [True, False])
def test_what_eps_leaves_is_what_the_note_says(zero):
    torch.manual_seed(4)
    norm = nn.LayerNorm(5, eps=1e-12 if zero else 1e-2)
    model = nn.Sequential(nn.Linear(3, 5), norm, nn.Tanh(), nn.Linear(5, 2)).double()
    x, y = torch.randn(9, 3).double(), torch.randn(9, 2).double()
    laws = known_laws(model, x)
    _, near, control = drifts(model, laws, _squared(model, x, y))
    rate = float(next(law.note for law in laws if "eps" in law.note).split()[-1])
    assert control > 0.1
    assert (near < 1e-7 and rate < 1e-9) if zero else (near > 1e-4 and rate > 1e-4)
