import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from thalweg.optim import AccumulationContext, count_tokens, normalized_backward

VECTORS = np.load(
    Path(__file__).parents[1] / "vectors" / "gradient-accumulation.npz", allow_pickle=False
)


class Bigram(nn.Module):
    def __init__(self, E, W):
        super().__init__()
        self.E, self.W = (nn.Parameter(torch.as_tensor(t).clone()) for t in (E, W))

    def forward(self, x):
        return torch.tanh(self.E[x]) @ self.W.T


def loss_sum(model, x, labels):
    logits = model(x)[:, :-1].flatten(0, 1)
    return nn.functional.cross_entropy(logits, labels[:, 1:].flatten(), reduction="sum")


def accumulated(model, x, labels, k, steps=None):
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    context = AccumulationContext(model, optimizer, steps or k, count_fn=count_tokens)
    with context as scale:
        for part, want in zip(x.chunk(k), labels.chunk(k), strict=True):
            scale(loss_sum(model, part, want), want).backward()
    return context


def relative(a, b):
    return float((a - b).norm() / b.norm())


@pytest.mark.parametrize("k", [2, 3, 6])
def test_vectors(k):
    model = Bigram(VECTORS["E"], VECTORS["W"])
    x, labels = torch.from_numpy(VECTORS["x"]), torch.from_numpy(VECTORS["labels"])
    context = accumulated(model, x, labels, k)
    for name in ("E", "W"):
        full = torch.from_numpy(VECTORS[f"g{name}_full"])
        assert relative(getattr(model, name).grad, full) < 1e-14
        naive = torch.from_numpy(VECTORS[f"g{name}_naive_k{k}"])
        assert relative(naive, full) > 1e-3
    assert context.loss.item() == pytest.approx(float(VECTORS["loss_full"]), rel=1e-14)
    assert context.total.item() == VECTORS["count_full"]
    counts = [count_tokens(part).item() for part in labels.chunk(k)]
    assert counts == VECTORS[f"counts_k{k}"].tolist()


def test_known_answers():
    theta = nn.Parameter(torch.ones((), dtype=torch.float64))
    for count, x in ((1, 4.0), (3, 6.0)):
        part = normalized_backward(theta * x, count, 4)
    assert theta.grad == 2.5 and part == 1.5 and not part.requires_grad
    # Two ranks with one micro-batch each, averaged: the same.
    ranks = []
    for count, x in ((1, 4.0), (3, 6.0)):
        theta.grad = None
        normalized_backward(theta * x, count, 4, world_size=2)
        ranks.append(theta.grad)
    assert sum(ranks) / 2 == 2.5


def test_class_weights_are_counts():
    weight = torch.tensor([1.0, 3.0, 0.5], dtype=torch.float64)
    layer = nn.Linear(4, 3).double()
    x, y = torch.randn(8, 4).double(), torch.randint(3, (8,))
    cross = nn.functional.cross_entropy
    cross(layer(x), y, weight=weight).backward()
    want = layer.weight.grad.clone()
    optimizer = torch.optim.SGD(layer.parameters(), 0.1)
    with AccumulationContext(layer, optimizer, 3) as scale:
        for rows in torch.arange(8).split([5, 2, 1]):
            total = cross(layer(x[rows]), y[rows], weight=weight, reduction="sum")
            scale(total, weight[y[rows]].sum()).backward()
    assert relative(layer.weight.grad, want) < 1e-14


@given(seed=st.integers(0, 10_000), k=st.integers(1, 6), more=st.integers(0, 3))
def test_any_split_and_a_ragged_window_are_the_whole_batch(seed, k, more):
    generator = torch.Generator().manual_seed(seed)
    E, W = torch.randn(2, 7, 3, generator=generator, dtype=torch.float64)
    x = torch.randint(7, (k, 5), generator=generator)
    labels = torch.where(torch.rand(k, 5, generator=generator) < 0.4, -100, x)
    labels[0, 1] = 3
    whole, parts = Bigram(E, W), Bigram(E, W)
    (loss_sum(whole, x, labels) / count_tokens(labels)).backward()
    parts.E.grad = torch.ones_like(parts.E)  # what a step left behind is cleared
    accumulated(parts, x, labels, k, steps=k + more)
    assert relative(parts.E.grad, whole.E.grad) < 1e-13


@given(seed=st.integers(0, 10_000), shift=st.booleans())
def test_counting(seed, shift):
    labels = torch.randint(3, (4, 6), generator=torch.Generator().manual_seed(seed)) - 100
    rows = [row[1:] if shift else row for row in labels.tolist()]
    want = sum(t != -100 for row in rows for t in row)
    assert count_tokens(labels, shift=shift) == want
    assert count_tokens(labels, shift=shift).dtype == torch.int64


def test_half_precision_does_not_overflow():
    """Sums of a million would be infinite in float16; their gradients are scaled before."""
    layer = nn.Linear(1, 1, bias=False).half()
    optimizer = torch.optim.SGD(layer.parameters(), 0.1)
    with AccumulationContext(layer, optimizer, 2) as scale:
        for _ in range(2):
            loss = 1000 * layer(torch.ones(1, 1).half()).sum()
            scale(50.0 * loss, 1000).backward()
    assert layer.weight.grad.item() == pytest.approx(50.0, rel=1e-3)  # eps of float16


DDP = """
import sys, torch, torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from thalweg.optim import AccumulationContext, count_tokens
rank = int(sys.argv[1])
dist.init_process_group("gloo", init_method="file://" + sys.argv[2], rank=rank, world_size=2)
torch.manual_seed(0)
net = nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 9)).double()
x = torch.randint(9, (6, 5)); labels = torch.where(torch.rand(6, 5) < 0.4, -100, x)
def total(model, x, labels):
    return nn.functional.cross_entropy(
        model(x)[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), reduction="sum")
(total(net, x, labels) / count_tokens(labels)).backward()
want = [p.grad.clone() for p in net.parameters()]
ddp = DistributedDataParallel(net)
optimizer = torch.optim.SGD(ddp.parameters(), 0.1)
mine = range(0, 4, 2) if rank == 0 else range(4, 6)   # two micro-batches of two rows; two of one
size = 2 if rank == 0 else 1
context = AccumulationContext(ddp, optimizer, 2, count_fn=count_tokens)
for silent in (False, True):
    with context as scale:
        for i, start in enumerate(mine):
            rows = slice(start, start + size)
            if silent and i == 0:
                with ddp.no_sync():
                    scale(total(ddp, x[rows], labels[rows]), labels[rows]).backward()
            else:
                scale(total(ddp, x[rows], labels[rows]), labels[rows]).backward()
    for p, w in zip(net.parameters(), want):
        assert (p.grad - w).norm() / w.norm() < 1e-13, (silent, (p.grad - w).norm())
    assert context.total == count_tokens(labels)
dist.barrier()
dist.destroy_process_group()
"""


def test_two_processes_with_different_counts(tmp_path):
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", DDP, str(rank), str(tmp_path / "meet")],
            env=env,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    for process in started:
        _, err = process.communicate(timeout=120)
        assert process.returncode == 0, err


def test_errors():
    layer = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(layer.parameters(), 0.1)
    x = torch.ones(2, 1)
    with pytest.raises(ValueError, match="steps must be at least 1, got 0"):
        AccumulationContext(layer, optimizer, 0)
    with pytest.raises(ValueError, match="no micro-batch was accumulated"):
        with AccumulationContext(layer, optimizer, 1):
            pass
    with pytest.raises(ValueError, match="no counted item in the whole step"):
        with AccumulationContext(layer, optimizer, 1) as scale:
            scale(0 * layer(x).sum(), 0).backward()
    with pytest.raises(ValueError, match="more than steps=1 micro-batches"):
        with AccumulationContext(layer, optimizer, 1) as scale:
            scale(layer(x).sum(), 2), scale(layer(x).sum(), 2)
    with pytest.raises(ValueError, match=r"must be a scalar, got shape \(2, 1\)"):
        normalized_backward(layer(x), 1, 1)
    for count, total in ((1, 0), (3, 2), (-1, 2)):
        with pytest.raises(ValueError, match="0 ≤ count ≤ total_count"):
            normalized_backward(layer(x).sum(), count, total)
    with pytest.raises(ValueError, match="got a single number"):
        count_tokens(torch.tensor(3))
    with pytest.raises(KeyError):  # the loop's own error comes through
        with AccumulationContext(layer, optimizer, 1):
            raise KeyError("x")
