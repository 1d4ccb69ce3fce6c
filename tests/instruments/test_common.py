"""No instrument changes weights, gradients, buffers, random state or mode."""

import pytest
import torch
from torch import nn

from thalweg import instruments


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


def test_batch_norm_in_training_mode_is_the_loss_that_is_measured():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1)).double()
    x = torch.randn(20, 3).double()
    params = list(model.parameters())
    trained = instruments.hessian_trace(lambda: model(x).square().mean(), params, num_matvecs=64)
    model.eval()
    fixed = instruments.hessian_trace(lambda: model(x).square().mean(), params, num_matvecs=64)
    assert abs(trained.value - fixed.value) > 1e-3
