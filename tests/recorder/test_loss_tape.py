"""A captured loss, evaluated again, is the loss that was captured, at any weights."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from thalweg.numerics import untouched
from thalweg.recorder.loss_tape import LossTape


def _captured(models, step):
    tape = LossTape(models)
    tape.open()
    roots = step()
    for root in roots if isinstance(roots, list) else [roots]:
        root.backward()
        tape.backward(root, None)
    tape.close()
    return tape


def _check(tape, models, fresh):
    """The closure follows the weights: value and gradient, there and elsewhere."""
    assert tape.closure is not None, tape.why_not
    for _ in range(2):
        params = [p for m in models for p in m.parameters() if p.requires_grad]
        want, got = fresh(), tape.closure()
        assert got.item() == pytest.approx(want.item(), rel=1e-6)
        a = torch.autograd.grad(want, params, allow_unused=True)
        b = torch.autograd.grad(got, params, allow_unused=True)
        for x, y in zip(a, b, strict=True):
            assert (x is None) == (y is None)
            assert x is None or torch.allclose(x, y, atol=1e-6)
        with torch.no_grad():
            for p in params:
                p.add_(0.1 * torch.randn_like(p))


@pytest.fixture
def data():
    return torch.randn(16, 5), torch.randint(0, 3, (16,))


def test_functional_loss_with_its_targets(data):
    x, y = data
    model = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3))
    tape = _captured([model], lambda: F.cross_entropy(model(x), y, label_smoothing=0.1))
    _check(tape, [model], lambda: F.cross_entropy(model(x), y, label_smoothing=0.1))
    assert tape.closure.description == "Sequential -> cross_entropy"


def test_loss_written_by_hand_with_a_penalty(data):
    x, _ = data
    model = nn.Linear(5, 2)

    def loss():
        fit = ((model(x) - 1) ** 2).sum(1).mean()
        return 0.5 * fit + 1e-2 * sum(p.square().sum() for p in model.parameters())

    _check(_captured([model], loss), [model], loss)


def test_accumulated_micro_batches_add_up(data):
    x, y = data
    model = nn.Linear(5, 3)

    def parts():
        return [F.cross_entropy(model(a), b) / 2 for a, b in zip(x.chunk(2), y.chunk(2))]  # noqa: B905

    _check(_captured([model], parts), [model], lambda: sum(parts()))


def test_what_is_divided_after_all_is_divided_in_the_closure(data):
    x, y = data
    model = nn.Linear(5, 3)
    tape = LossTape([model])
    tape.open()
    for a, b, scale in zip(x.chunk(2), y.chunk(2), (None, torch.tensor(4.0)), strict=True):
        root = F.cross_entropy(model(a), b, reduction="sum") * (1.0 if scale is None else scale)
        root.backward()
        tape.backward(root, scale)
    tape.rescale(torch.tensor(16.0))
    tape.close()
    _check(tape, [model], lambda: F.cross_entropy(model(x), y))


def test_loss_computed_inside_the_model(data):
    class WithLoss(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Linear(5, 3)

        def forward(self, x, targets=None):
            logits = self.net(x)
            return {"logits": logits, "loss": F.cross_entropy(logits, targets)}

    model = WithLoss()
    x, y = data
    tape = _captured([model], lambda: model(x, targets=y)["loss"])
    _check(tape, [model], lambda: model(x, targets=y)["loss"])


def test_two_models_in_a_row(data):
    x, y = data
    a, b = nn.Linear(5, 4), nn.Linear(4, 3)
    loss = lambda: F.cross_entropy(b(torch.tanh(a(x))), y)  # noqa: E731
    _check(_captured([a, b], loss), [a, b], loss)


def test_closure_leaves_buffers_and_random_state_alone(data):
    x, y = data
    model = nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 3))
    closure = _captured([model], lambda: F.cross_entropy(model(x), y)).closure
    buffers = {n: b.clone() for n, b in model.named_buffers()}
    state = torch.get_rng_state()
    values = []
    for _ in range(2):
        with untouched(list(model.parameters())):
            values.append(closure().item())
    assert values[0] == values[1]
    assert torch.equal(torch.get_rng_state(), state)
    for n, b in model.named_buffers():
        assert torch.equal(b, buffers[n])


def test_what_cannot_be_captured_is_said(data):
    x, _ = data
    model = nn.Linear(5, 5)

    def written_into():
        out = model(x).clone()
        out[0] = 0.0
        return out.sum()

    tape = _captured([model], written_into)
    assert tape.closure is None and "writes into" in tape.why_not

    outside = torch.randn(3, requires_grad=True)
    tape = _captured([model], lambda: (outside.exp()).sum())
    assert tape.closure is None and "not seen computed from the model" in tape.why_not

    tape = LossTape([model])
    tape.open()
    tape.close()
    assert tape.closure is None and "no backward" in tape.why_not


def test_tape_keeps_no_graph_alive(data):
    x, y = data
    model = nn.Linear(5, 3)
    tape = LossTape([model])
    tape.open()
    import weakref

    logits = model(x)
    gone = weakref.ref(logits)
    loss = F.cross_entropy(logits, y)
    loss.backward()
    tape.backward(loss, None)
    tape.close()
    del logits, loss
    assert gone() is None
