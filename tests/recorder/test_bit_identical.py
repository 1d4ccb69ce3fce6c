"""Training under the recorder ends in exactly the state that it ends in without."""

import copy
import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import thalweg
from thalweg.optim import AccumulationContext

STEPS = 30


def _mlp(record):
    model = nn.Sequential(
        nn.Linear(20, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(0.3), nn.Linear(32, 5)
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    x, y = torch.randn(64, 20), torch.randint(0, 5, (64,))

    def step(i):
        optimizer.zero_grad()
        model.train()
        F.cross_entropy(model(x), y).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()
        if i % 10 == 9:
            model.eval()
            with torch.no_grad():
                F.cross_entropy(model(x), y)

    return _train(step, [model], [optimizer], record)


def _transformer(record):
    layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.1, batch_first=True)
    model = nn.Sequential(nn.Embedding(11, 16), nn.TransformerEncoder(layer, 2), nn.Linear(16, 11))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    tokens = torch.randint(0, 11, (8, 9))

    def step(i):
        for part in tokens.chunk(4):  # accumulation
            out = model(part[:, :-1])
            loss = F.cross_entropy(out.flatten(0, 1), part[:, 1:].flatten())
            (loss / 4).backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)

    return _train(step, [model], [optimizer], record)


def _two_optimizers(record):
    g = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 2))
    d = nn.Sequential(nn.Linear(2, 16), nn.LeakyReLU(0.2), nn.Linear(16, 1))
    og, od = torch.optim.Adam(g.parameters(), 1e-3), torch.optim.RMSprop(d.parameters(), 1e-3)

    def step(i):
        fake = g(torch.randn(16, 4))
        real = torch.randn(16, 2)
        od.zero_grad()
        (F.softplus(-d(real)).mean() + F.softplus(d(fake.detach())).mean()).backward()
        od.step()
        og.zero_grad()
        F.softplus(-d(fake)).mean().backward()
        og.step()

    return _train(step, [g, d], [og, od], record)


def _lbfgs(record):
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 1))
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=5, line_search_fn="strong_wolfe")
    x = torch.randn(32, 6)
    y = x.square().sum(1, keepdim=True)

    def closure():
        optimizer.zero_grad()
        loss = F.mse_loss(model(x), y)
        loss.backward()
        return loss

    return _train(lambda i: optimizer.step(closure), [model], [optimizer], record)


def _uneven(record):
    model = nn.Sequential(nn.Embedding(11, 16), nn.Dropout(0.1), nn.Linear(16, 11))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    weight = torch.rand(11) + 0.5
    tokens = torch.randint(0, 11, (12, 9))
    kept = torch.arange(9) < torch.randint(1, 10, (12, 1))
    labels = tokens.where(kept, -100)

    def loss(x, y, reduction):
        return F.cross_entropy(model(x).mT, y, weight, reduction=reduction)

    def step(i):
        parts = zip(tokens.chunk(4), labels.chunk(4), strict=True)
        if i % 2:
            with AccumulationContext(model, optimizer, 4) as scale:
                for x, y in parts:
                    scale(loss(x, y, "sum"), (y != -100).sum()).backward()
        else:
            optimizer.zero_grad()
            for x, y in parts:
                (loss(x, y, "mean") / 4).backward()
        optimizer.step()

    return _train(step, [model], [optimizer], record)


def _train(step, models, optimizers, record):
    if record is None:
        for i in range(STEPS):
            step(i)
    else:
        # All the budget there is: every capture runs on (almost) every step.
        with thalweg.record(models, optimizers, record, overhead=50.0):
            for i in range(STEPS):
                step(i)
    state = [copy.deepcopy(m.state_dict()) for m in models]
    state += [copy.deepcopy(o.state_dict()) for o in optimizers]
    numpy_state = np.random.get_state()[1].tolist()  # noqa: NPY002 - the global one
    return state, (torch.get_rng_state(), random.getstate(), numpy_state)


def _equal(a, b):
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(_equal(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(_equal(x, y) for x, y in zip(a, b, strict=True))
    return a == b


@pytest.mark.parametrize("training", [_mlp, _transformer, _two_optimizers, _lbfgs, _uneven])
def test_weights_buffers_optimizer_and_random_state_are_identical(training, run_dir):
    ends = []
    for record in (None, run_dir):
        torch.manual_seed(7)
        random.seed(7)
        np.random.seed(7)  # noqa: NPY002 - the global state is what is checked
        ends.append(training(record))
    assert _equal(*ends)
    assert torch.overrides._len_torch_function_stack() == 0
    run = thalweg.Run(run_dir)
    assert run.header["status"] == "closed"
    assert len(run.steps) >= STEPS
    assert run.header["blackbox"] == {"kept": []}  # it was on, and nothing happened
    assert len(run.series("grad_norm")[0]) >= STEPS // 2  # the comparison was not with nothing


def test_hooks_and_wrappers_are_gone_afterwards(run_dir):
    before = (torch.autograd.backward, F.cross_entropy, nn.Module.zero_grad, torch.jit.script)
    model = nn.Linear(2, 1)
    sgd = torch.optim.SGD(model.parameters(), 0.1)
    with thalweg.record(model, sgd, run_dir, overhead=50.0):
        assert torch.autograd.backward is not before[0]
        for _ in range(4):
            model(torch.ones(1, 2)).sum().backward()
            sgd.step()
    assert (
        torch.autograd.backward,
        F.cross_entropy,
        nn.Module.zero_grad,
        torch.jit.script,
    ) == before
    assert not model._forward_hooks and not model._forward_pre_hooks
    assert torch.overrides._len_torch_function_stack() == 0
