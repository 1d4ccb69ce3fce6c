"""What is recorded of each micro-batch of an accumulated step."""

import math
import weakref

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import thalweg
from thalweg.optim import AccumulationContext
from thalweg.recorder.micro_batches import items_of
from thalweg.recorder.plan import MICRO_BATCHES

EVERYTHING = 1e6
STEPS = 4


@given(
    seed=st.integers(0, 2**31),
    name=st.sampled_from(["cross_entropy", "nll_loss"]),
    weighted=st.booleans(),
    ignore=st.sampled_from([-100, 1]),
    length=st.sampled_from([None, 3]),
)
def test_items_times_the_mean_is_the_sum(seed, name, weighted, ignore, length):
    g = torch.Generator().manual_seed(seed)
    shape = (6,) if length is None else (6, length)
    logits = torch.randn(6, 4, *shape[1:], generator=g, dtype=torch.float64).log_softmax(1)
    target = torch.randint(0, 4, shape, generator=g)
    target[torch.rand(shape, generator=g) < 0.4] = ignore
    target[0] = 0  # at least one counts
    weight = torch.rand(4, generator=g, dtype=torch.float64) + 0.1 if weighted else None
    kwargs = {"weight": weight, "ignore_index": ignore}
    items, mean, kind = items_of(name, (logits, target), kwargs)
    assert mean and kind == (name, True, 4)
    loss = getattr(F, name)
    total = loss(logits, target, reduction="sum", **kwargs)
    assert float(items * loss(logits, target, **kwargs)) == pytest.approx(float(total))


@pytest.mark.parametrize("name", ["mse_loss", "l1_loss", "binary_cross_entropy_with_logits"])
def test_other_losses_count_the_numbers_in_the_target(name):
    out = torch.randn(2, 5, 3)
    items, mean, kind = items_of(name, (out, torch.zeros(2, 5, 3)), {"reduction": "sum"})
    assert items == 30 and not mean
    assert kind == items_of(name, (out, torch.zeros(4, 7, 3)), {"reduction": "sum"})[2]
    assert kind != items_of(name, (out, torch.zeros(2, 5, 4)), {"reduction": "sum"})[2]


def test_targets_that_are_distributions_count_as_one_each():
    out = torch.randn(6, 4)
    items, _, _ = items_of("cross_entropy", (out, out.softmax(1)), {})
    assert items == 6


@pytest.mark.parametrize(
    ("name", "args", "kwargs"),
    [
        ("cross_entropy", (torch.zeros(2, 3), torch.zeros(2, dtype=torch.long)), {"reduce": False}),
        ("mse_loss", (torch.zeros(2), torch.zeros(2)), {"reduction": "none"}),
        ("triplet_margin_loss", (torch.zeros(2, 3),) * 3, {}),
        ("kl_div", (torch.zeros(2, 3), torch.zeros(2, 3)), {"reduction": "batchmean"}),
    ],
)
def test_other_reductions_are_left_alone(name, args, kwargs):
    assert items_of(name, args, kwargs) is None


def _batches(seed=0):
    """Four micro-batches of four sequences each, of very different lengths."""
    g = torch.Generator().manual_seed(seed)
    x = torch.randint(0, 11, (16, 9), generator=g)
    lengths = torch.randint(2, 10, (16,), generator=g)
    y = torch.where(torch.arange(9) < lengths[:, None], x, -100)
    return list(zip(x.chunk(4), y.chunk(4), strict=True))


def _model():
    torch.manual_seed(1)
    return nn.Sequential(nn.Embedding(11, 8), nn.Tanh(), nn.Linear(8, 11))


def _loss(model, batch, reduction="mean"):
    out = model(batch[0]).flatten(0, 1)
    return F.cross_entropy(out, batch[1].flatten(), reduction=reduction)


def _train(run_dir, step, instruments=None, optimizer=torch.optim.SGD):
    model = _model()
    sgd = optimizer(model.parameters(), lr=0.1)
    with thalweg.record(model, sgd, run_dir, overhead=EVERYTHING, instruments=instruments):
        for i in range(STEPS):
            step(model, sgd, _batches(i))
            sgd.step()
            sgd.zero_grad()
    return thalweg.Run(run_dir)


def _row(run, name, step):
    """Figures of the micro-batches at a step."""
    found = []
    for i in range(1, 5):
        steps, values = run.series(name, f"micro-batch {i}")
        found.append(values[steps.tolist().index(step)])
    return torch.tensor(found, dtype=torch.float64)


def test_naive_accumulation_is_recorded_as_it_is(run_dir):
    losses = []

    def step(model, sgd, batches):
        for batch in batches:
            loss = _loss(model, batch)
            losses.append(loss.item())
            (loss / 4).backward()

    run = _train(run_dir, step)
    for i in range(2, STEPS + 1):  # the optimizer is not known before its first step
        counts = torch.tensor([(y != -100).sum() for _, y in _batches(i - 1)], dtype=torch.float64)
        assert _row(run, "micro_batch_items", i).equal(counts)
        torch.testing.assert_close(_row(run, "item_weight", i), 1 / (4 * counts), rtol=1e-5, atol=0)
        want = torch.tensor(losses[4 * i - 4 : 4 * i], dtype=torch.float64)
        torch.testing.assert_close(_row(run, "micro_batch_loss", i), want, rtol=1e-6, atol=0)


def test_sums_over_the_count_of_all_weigh_every_item_alike(run_dir):
    def step(model, sgd, batches):
        total = sum((y != -100).sum() for _, y in batches)
        for batch in batches:
            (_loss(model, batch, "sum") / total).backward()

    run = _train(run_dir, step)
    weight, items = _row(run, "item_weight", 3), _row(run, "micro_batch_items", 3)
    torch.testing.assert_close(weight, torch.full_like(weight, 1 / items.sum()), rtol=1e-5, atol=0)
    assert _row(run, "micro_batch_loss", 3).max() < 2 * math.log(11)  # of an item, not their sum


def test_a_gradient_scaler_and_a_regulariser_do_not_hide_the_loss(run_dir):
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)

    def step(model, sgd, batches):
        for batch in batches:
            decay = sum(p.square().sum() for p in model.parameters())
            scaler.scale((_loss(model, batch) + 1e-6 * decay) / 4).backward()
        scaler.unscale_(sgd)
        scaler.update()

    run = _train(run_dir, step)
    mean = _row(run, "item_weight", 3) * _row(run, "micro_batch_items", 3)
    torch.testing.assert_close(mean, torch.full_like(mean, 0.25), rtol=1e-3, atol=0)


def test_gradients_may_be_cleared_after_the_loss_is_computed(run_dir):
    def step(model, sgd, batches):
        for i, batch in enumerate(batches):
            loss = _loss(model, batch)
            if i == 0:
                sgd.zero_grad()
            (loss / 4).backward()

    assert len(_train(run_dir, step).series("item_weight", "micro-batch 4")[0]) == STEPS - 1


def _whole(model, sgd, batches):
    x, y = (torch.cat(part) for part in zip(*batches, strict=True))
    _loss(model, (x, y)).backward()


def _two_losses(model, sgd, batches):
    for batch in batches:
        (_loss(model, batch) + _loss(model, batch)).backward()


def _two_tasks(model, sgd, batches):
    _loss(model, batches[0]).backward()
    F.mse_loss(model(batches[1][0]), torch.zeros(4, 9, 11)).backward()


def _by_hand(model, sgd, batches):
    for x, y in batches:
        logs = model(x).log_softmax(-1)
        keep = y != -100
        (-logs.gather(-1, y.where(keep, 0)[..., None])[..., 0][keep].mean() / 4).backward()


@pytest.mark.parametrize("step", [_whole, _two_losses, _two_tasks, _by_hand])
def test_nothing_is_said_where_there_is_nothing_to_compare(run_dir, step):
    assert not set(MICRO_BATCHES) & set(_train(run_dir, step).instruments)


def test_only_what_was_asked_for(run_dir):
    def step(model, sgd, batches):
        for batch in batches:
            (_loss(model, batch) / 4).backward()

    run = _train(run_dir, step, instruments=["loss", "item_weight"])
    assert set(run.instruments) == {"loss", "item_weight"}


def test_no_graph_is_kept_alive(run_dir):
    freed = []

    class Probe(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            weakref.finalize(ctx, freed.append, True)
            return x.clone()

        @staticmethod
        def backward(ctx, g):
            return g

    def step(model, sgd, batches):
        for x, y in batches:
            loss = F.cross_entropy(Probe.apply(model(x).flatten(0, 1)), y.flatten())
            before = len(freed)
            del loss  # never used: gone at once, though its items are remembered
            assert len(freed) == before + 1
            (_loss(model, (x, y)) / 4).backward()

    run = _train(run_dir, step)
    assert len(run.series("item_weight", "micro-batch 4")[0]) == STEPS - 1


def test_what_an_accumulation_context_divides_at_the_end_is_known(run_dir):
    means = []

    def step(model, sgd, batches):
        with AccumulationContext(model, sgd, 4) as scale:
            for batch in batches:
                count = (batch[1] != -100).sum()
                scale(_loss(model, batch, "sum"), count).backward()
        x, y = (torch.cat(part) for part in zip(*batches, strict=True))
        with torch.enable_grad():
            whole = F.cross_entropy(model(x).flatten(0, 1), y.flatten())
        norm = torch.cat([g.flatten() for g in torch.autograd.grad(whole, [*model.parameters()])])
        means.append((whole.item(), norm.norm().item()))

    run = _train(run_dir, step)
    for i, (mean, norm) in enumerate(means):
        assert run.series("loss")[1][i] == pytest.approx(mean, rel=1e-5)
        assert run.series("grad_norm")[1][i] == pytest.approx(norm, rel=1e-5)
    assert run.series("grad_norm_preclip")[1] == pytest.approx(run.series("grad_norm")[1][1:])
    weight = _row(run, "item_weight", 3)
    torch.testing.assert_close(weight, weight[:1].expand(4), rtol=1e-5, atol=0)
