"""Means of means over uneven micro-batches, on series made up and on trainings really recorded."""

import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import thalweg
from thalweg.doctor.accumulation import uneven_accumulation
from thalweg.optim import AccumulationContext, count_tokens, normalized_backward


def _run(make_run, items, weights, losses=None):
    """A run of (T, k) items and weights of an item."""
    items, weights = np.broadcast_arrays(np.array(items, float), np.array(weights, float))
    losses = np.ones_like(items) if losses is None else np.broadcast_to(losses, items.shape)
    series = {}
    for i in range(items.shape[1]):
        part = f"micro-batch {i + 1}"
        series |= {
            ("micro_batch_items", part): items[:, i],
            ("micro_batch_loss", part): losses[:, i],
            ("item_weight", part): weights[:, i],
        }
    return make_run(series)


def test_known_answer(make_run):
    # Counts 1 and 3, means 4 and 2: the mean is 2.5, of means 3. Shares 1/2, due 1/4 and 3/4.
    items = np.array([[1, 3]] * 5)
    (found,) = uneven_accumulation(_run(make_run, items, 1 / (2 * items), [4, 2]))
    spread, misplaced, error, offset = found.evidence
    assert found.severity == "warning" and found.entry == "gradient-accumulation"
    assert "count 1, 3 items" in spread.text and spread.value == 3
    assert misplaced.value == pytest.approx(1 / 4)
    # Σ(w − v)² N/n = (1/16)(4 + 4/3); the same as mean(n̄/n) − 1.
    assert error.value == pytest.approx((1 / 3) ** 0.5)
    assert error.value**2 == pytest.approx(np.mean(2 / np.array([1, 3])) - 1)
    assert offset.value == pytest.approx(0.5 / 3)
    assert "steps=2" in found.treatment


def test_the_expected_error_is_that_of_independent_items():
    """Naive and right gradients of items of pure noise, drawn many times."""
    rng = np.random.default_rng(0)
    items = np.array([2, 5, 9])
    which = np.repeat(np.arange(3), items)
    g = rng.standard_normal((20_000, items.sum()))
    means = np.stack([g[:, which == i].mean(1) for i in range(3)], 1)
    gap, right = means.mean(1) - g.mean(1), g.mean(1)
    expected = np.mean(items.mean() / items) - 1
    assert np.square(gap).mean() / np.square(right).mean() == pytest.approx(expected, rel=0.05)


EVEN = [[20, 20, 20, 20]] * 9
UNEVEN = [[20, 5, 40, 11]] * 9


@pytest.mark.parametrize(
    ("items", "weights"),
    [
        (EVEN, 1 / 80),
        (UNEVEN, 1 / 76),  # by counts
        (UNEVEN, 3e-5),  # ... and any factor
        ([[20, 21, 20, 19]] * 9, 1 / (4 * np.array([20, 21, 20, 19]))),  # hardly uneven
        ([[20] * 4] * 8 + UNEVEN[:1], 1 / (4 * np.array([[20] * 4] * 8 + UNEVEN[:1]))),  # the last
        (UNEVEN[:2], 1 / (4 * np.array(UNEVEN[:2]))),  # too few records
        (UNEVEN, [[0.7, 0.9, 0.1, 0.02]] * 9),  # chosen
        ([[20, 0, 40, 11]] * 9, 1 / 71),  # one micro-batch without a target
        (UNEVEN, np.nan),
    ],
)
def test_no_alarm(make_run, items, weights):
    assert uneven_accumulation(_run(make_run, items, weights)) == []


def test_a_missing_division_is_still_a_mean_of_means(make_run):
    assert uneven_accumulation(_run(make_run, UNEVEN, 1 / np.array(UNEVEN)))


def test_runs_without_micro_batches_are_not_judged(make_run):
    run = make_run({("loss", ""): [1.0, 0.5]})
    assert "uneven_accumulation" in thalweg.doctor.examine(run).skipped


class LanguageModel(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(20, 16)
        self.gru = nn.GRU(16, 16, batch_first=True)
        self.head = nn.Linear(16, 20)

    def forward(self, x):
        return self.head(self.gru(self.embed(x))[0])


def _naive(model, optimizer, parts):
    optimizer.zero_grad()
    for x, y in parts:
        (_loss(model, x, y) / len(parts)).backward()


def _divided_sum(model, optimizer, parts):
    optimizer.zero_grad()
    for x, y in parts:
        (_loss(model, x, y, "sum") / count_tokens(y) / len(parts)).backward()


def _context(model, optimizer, parts):
    with AccumulationContext(model, optimizer, len(parts), count_fn=count_tokens) as scale:
        for x, y in parts:
            scale(_loss(model, x, y, "sum"), y).backward()


def _normalized(model, optimizer, parts):
    optimizer.zero_grad()
    total = sum(count_tokens(y) for _, y in parts)
    for x, y in parts:
        normalized_backward(_loss(model, x, y, "sum"), count_tokens(y), total)


def _reweighted_means(model, optimizer, parts):
    optimizer.zero_grad()
    total = sum(count_tokens(y) for _, y in parts)
    for x, y in parts:
        (_loss(model, x, y) * count_tokens(y) / total).backward()


def _whole(model, optimizer, parts):
    optimizer.zero_grad()
    _loss(model, *(torch.cat(part) for part in zip(*parts, strict=True))).backward()


def _loss(model, x, y, reduction="mean"):
    logits = model(x)[:, :-1].flatten(0, 1)
    return F.cross_entropy(logits, y[:, 1:].flatten(), reduction=reduction)


def _recorded(path, accumulate, *, equal=False, steps=12):
    torch.manual_seed(0)
    model = LanguageModel()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    with thalweg.record(model, optimizer, path, overhead=1e6):
        for _ in range(steps):
            lengths = torch.full((8,), 20) if equal else torch.randint(3, 25, (8,))
            x = torch.randint(0, 20, (8, 24))
            y = torch.where(torch.arange(24) < lengths[:, None], x, -100)
            accumulate(model, optimizer, list(zip(x.chunk(4), y.chunk(4), strict=True)))
            optimizer.step()
    return {finding.rule for finding in thalweg.diagnose(path)}


@pytest.mark.parametrize("accumulate", [_naive, _divided_sum])
def test_a_mean_of_means_over_sequences_of_many_lengths_is_found(run_dir, accumulate):
    assert _recorded(run_dir, accumulate) == {"uneven_accumulation"}


@pytest.mark.parametrize("accumulate", [_context, _normalized, _reweighted_means, _whole])
def test_right_accumulation_raises_no_alarm(run_dir, accumulate):
    assert _recorded(run_dir, accumulate) == set()


def test_sequences_of_one_length_raise_no_alarm(run_dir):
    assert _recorded(run_dir, _naive, equal=True) == set()


@pytest.mark.filterwarnings("ignore")  # the framework's own, at import and in use
@pytest.mark.parametrize("counts", [True, False])
def test_transformers(tmp_path, counts):
    """Its Trainer passes ``num_items_in_batch`` to models that take it; others get means."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments

    config = GPT2Config(
        vocab_size=17, n_positions=24, n_embd=16, n_layer=2, n_head=2, bos_token_id=0,
        eos_token_id=0,
    )  # fmt: skip
    torch.manual_seed(0)
    tokens = torch.randint(0, 17, (96, 24))
    kept = torch.arange(24) < torch.randint(3, 25, (96, 1))
    data = [
        {"input_ids": x, "labels": y} for x, y in zip(tokens, tokens.where(kept, -100), strict=True)
    ]
    arguments = TrainingArguments(
        tmp_path / "out", max_steps=10, per_device_train_batch_size=2,
        gradient_accumulation_steps=4, report_to=[], use_cpu=True, disable_tqdm=True,
        save_strategy="no", dataloader_pin_memory=False,
    )  # fmt: skip
    callback = thalweg.TransformersCallback(tmp_path / "run", overhead=1e6)
    trainer = Trainer(GPT2LMHeadModel(config), arguments, train_dataset=data, callbacks=[callback])
    trainer.model_accepts_loss_kwargs = counts
    trainer.train()
    run = thalweg.Run(tmp_path / "run")
    assert len(run.series("item_weight", "micro-batch 4")[0]) >= 8
    found = {finding.rule for finding in thalweg.diagnose(run)}
    assert ("uneven_accumulation" in found) is not counts
