"""No instrument changes weights, gradients, buffers, random state or mode."""

import copy

import pytest
import torch
from torch import nn

from thalweg import instruments
from thalweg.numerics import hessian_operator


class Net(nn.Module):
    """Everything that a careless evaluation would disturb: BatchNorm, dropout, attention."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(6, 8)
        self.norm = nn.BatchNorm1d(8)
        self.drop = nn.Dropout(0.3)
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        h = self.drop(torch.tanh(self.norm(self.inner(x))))
        q = h.view(1, len(h), 1, 8).transpose(1, 2)
        h = nn.functional.scaled_dot_product_attention(q, q, q).view(len(h), 8)
        return self.head(h)


def closure_of(model, x, y):
    return lambda: nn.functional.cross_entropy(model(x), y)


CLOSURE = {
    "sharpness": lambda c, p, m, x: instruments.sharpness(c, p, max_matvecs=30),
    "hessian_trace": lambda c, p, m, x: instruments.hessian_trace(c, p, max_matvecs=20),
    "hessian_density": lambda c, p, m, x: instruments.hessian_density(
        c, p, num_probes=2, lanczos_steps=5
    ),
    "critical_sharpness": lambda c, p, m, x: instruments.critical_sharpness(
        c, p, [-0.1 * t.grad for t in p]
    ),
    "isometry_defect": lambda c, p, m, x: instruments.isometry_defect(p),
    "grad_noise_scale": lambda c, p, m, x: instruments.grad_noise_scale(
        [[t.grad + i for t in p] for i in range(3)]
    ),
}
SIMPLE = {
    "weight_norm": lambda c, p, m, x: instruments.weight_norm(p),
    "grad_norm": lambda c, p, m, x: instruments.grad_norm(p),
    "update_norm": lambda c, p, m, x: instruments.update_norm(p, [t.detach() + 1 for t in p]),
    "update_ratio": lambda c, p, m, x: instruments.update_ratio(p, [t.detach() + 1 for t in p]),
    "distance_from_init": lambda c, p, m, x: instruments.distance_from_init(
        p, [t.detach() + 1 for t in p]
    ),
    "stability_threshold": lambda c, p, m, x: instruments.stability_threshold(
        torch.optim.SGD(p, 0.1)
    ),
    **{
        name: lambda c, p, m, x, name=name: getattr(instruments, name)(x)
        for name in (
            *("activation_rms", "dormant_fraction", "effective_rank", "stable_rank"),
            *("frobenius_rank", "layer_statistics"),
        )
    },
}
EVAL = {
    "entk": lambda c, p, m, x: instruments.entk(m, x[:3]),
    "entk_rank": lambda c, p, m, x: instruments.entk_rank(m, x[:3]),
    "jacobian_spectrum": lambda c, p, m, x: instruments.jacobian_spectrum(m, x[:3]),
}


ALL = {**SIMPLE, **CLOSURE, **EVAL}


def test_every_instrument_has_its_row():
    marked = {n for n in instruments.__all__ if hasattr(getattr(instruments, n), "needs")}
    assert marked == set(ALL)


def test_marking_is_a_note_and_nothing_else():
    @instruments.instrument("params", cost=3)
    def thing(params):
        return len(params)

    assert thing.needs == ("params",) and thing.cost == 3 and thing([]) == 0


@pytest.mark.parametrize("name", ALL)
def test_everything_is_as_it_was(name):
    torch.manual_seed(0)
    model = Net()
    x, y = torch.randn(16, 6), torch.randint(3, (16,))
    if name in EVAL:
        model.eval()
    closure, params = closure_of(model, x, y), list(model.parameters())
    closure().backward()
    pending = closure()  # a graph of the training loop's own, not yet used
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    before = {k: (id(t), t.data_ptr(), t._version, t.detach().clone()) for k, t in tensors.items()}
    grads = [(p.grad, p.grad._version, p.grad.clone()) for p in params]
    state, modes = torch.get_rng_state(), [m.training for m in model.modules()]
    hooks = sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())

    ALL[name](closure, params, model, x)

    after = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    for key, (identity, pointer, version, value) in before.items():
        t = after[key]
        assert (id(t), t.data_ptr(), t._version) == (identity, pointer, version), key
        assert torch.equal(t, value), key
    for p, (grad, version, value) in zip(params, grads, strict=True):
        assert p.grad is grad and grad._version == version and torch.equal(grad, value)
    assert torch.equal(state, torch.get_rng_state())
    assert modes == [m.training for m in model.modules()]
    assert hooks == sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())
    assert not nn.modules.module._global_forward_pre_hooks
    pending.backward()


class Tied(nn.Module):
    """Two names for one weight."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.head = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 3)
        self.b.weight = self.a.weight

    def forward(self, x):
        return self.head(torch.tanh(self.b(torch.tanh(self.a(x)))))


def mlp():
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))


def frozen():
    model = mlp()
    model[0].weight.requires_grad_(False)
    return model


KINDS = {
    "float64": (lambda: mlp().double(), torch.float64, 1e-3),
    "bfloat16": (lambda: mlp().bfloat16(), torch.bfloat16, 0.1),
    "float16": (lambda: mlp().half(), torch.float16, 0.1),
    "tied": (Tied, torch.float32, 1e-3),
    "frozen": (frozen, torch.float32, 1e-3),
}


@pytest.mark.parametrize("kind", KINDS)
def test_curvature_of_every_kind_of_network(kind):
    """Against the dense Hessian of a copy in double precision."""
    make, dtype, close = KINDS[kind]
    torch.manual_seed(0)
    model, x, y = make(), torch.randn(24, 6, dtype=dtype), torch.randint(3, (24,))
    double = copy.deepcopy(model).double()
    wanted = [p for p in double.parameters() if p.requires_grad]
    H = hessian_operator(closure_of(double, x.double(), y), wanted).dense()
    top = torch.linalg.eigvalsh(H)[-1].item()
    closure, params = closure_of(model, x, y), list(model.parameters())

    found = instruments.sharpness(closure, params)
    assert found.value == pytest.approx(top, rel=2 * close)
    assert found.status == "ok" or "not converged" in found.status
    assert found.status == "ok" or dtype in (torch.bfloat16, torch.float16)
    total = instruments.hessian_trace(closure, params, num_matvecs=H.shape[0])
    assert total.value == pytest.approx(H.trace().item(), rel=2 * close) and total.status == "ok"
    spread = instruments.hessian_density(closure, params, num_probes=1, lanczos_steps=4)
    assert spread.status == "ok" and spread.density is not None
    assert spread.density.nodes.max().item() <= top * (1 + 2 * close)


def test_complex_weights_are_refused_by_name():
    w = torch.ones(2, dtype=torch.complex64, requires_grad=True)
    with pytest.raises(ValueError, match="real"):
        instruments.sharpness(lambda: w.abs().square().sum(), [w])
    assert instruments.weight_norm([w]).total.item() == pytest.approx(2**0.5)


def test_batch_norm_in_training_mode_is_the_loss_that_is_measured():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1)).double()
    x = torch.randn(20, 3).double()
    params = list(model.parameters())
    trained = instruments.hessian_trace(lambda: model(x).square().mean(), params, num_matvecs=64)
    model.eval()
    fixed = instruments.hessian_trace(lambda: model(x).square().mean(), params, num_matvecs=64)
    assert abs(trained.value - fixed.value) > 1e-3
