import copy
from pathlib import Path

import pytest
import torch
from torch import nn

from thalweg.cli import main
from thalweg.instruments import AccumulationReport, check_accumulation, simulate_ddp
from thalweg.optim import AccumulationContext, count_tokens


class Tokens(nn.Module):
    """A small language model; ``loss`` is the token mean, ``pair`` the sum and its count."""

    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Embedding(11, 5), nn.Linear(5, 11)
        self.double()

    def pair(self, batch):
        logits = self.head(torch.tanh(self.embed(batch["x"])))[:, :-1].flatten(0, 1)
        wanted = batch["labels"][:, 1:].flatten()
        total = nn.functional.cross_entropy(logits, wanted, reduction="sum")
        return total, count_tokens(batch["labels"])

    def loss(self, batch):
        total, count = self.pair(batch)
        return total / count


def tokens(lengths=(2, 9, 3, 8, 4, 5, 6, 7)):
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(11, (len(lengths), max(lengths)), generator=generator)
    keep = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    return {"x": x, "labels": torch.where(keep, x, -100)}


def mean_loss(model, batch):
    return model.loss(batch)


def test_counts_are_named_and_measured():
    batch = tokens()
    report = check_accumulation(Tokens(), mean_loss, batch, splits=(4,))
    assert isinstance(report, AccumulationReport)
    assert (report.ok, report.cause) == (False, "count-normalisation")
    assert 0.01 < report.error < 1 and set(report.errors) == {"4"}
    counts = torch.tensor([count_tokens(c) for c in batch["labels"].chunk(4)]).double()
    assert torch.allclose(torch.tensor(report.weights).double(), counts / counts.sum(), atol=1e-9)
    assert set(report.per_param) == {"embed.weight", "head.weight", "head.bias"}


def test_the_expected_bias_is_minus_the_covariance_of_mean_and_count():
    model, batch = Tokens(), tokens()
    report = check_accumulation(model, mean_loss, batch, splits=(4,))
    parts = [{k: v[i : i + 2] for k, v in batch.items()} for i in range(0, 8, 2)]
    means = torch.stack([model.loss(p) for p in parts]).detach()
    counts = torch.stack([model.pair(p)[1] for p in parts]).double()
    assert report.expected_bias == pytest.approx(
        (means * (1 - counts / counts.mean())).mean().item(), rel=1e-8
    )
    assert report.expected_bias == pytest.approx(
        (means.mean() - model.loss(batch)).item(), rel=1e-8
    )


def test_equal_lengths_and_counted_losses_are_fine():
    assert check_accumulation(Tokens(), mean_loss, tokens((5,) * 8), splits=(2, 4, 8)).ok
    report = check_accumulation(Tokens(), lambda m, b: m.pair(b), tokens())
    assert report.ok and report.cause == "ok" and report.error < 1e-13
    summed = check_accumulation(Tokens(), lambda m, b: m.pair(b)[0], tokens())
    assert summed.ok and set(summed.errors) == {"2", "4", "ragged"}


def net(*layers):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), *layers, nn.Linear(6, 3)).double()


def data(n=12):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(n, 4, generator=generator, dtype=torch.float64)
    return x, torch.randint(3, (n,), generator=generator)


def classify(model, batch):
    return nn.functional.cross_entropy(model(batch[0]), batch[1])


def contrast(model, batch):
    z = nn.functional.normalize(model(batch[0]), dim=1)
    return nn.functional.cross_entropy(z @ z.T / 0.1, torch.arange(len(z)))


@pytest.mark.parametrize(
    ("model", "loss_fn", "splits", "cause"),
    [
        (net(nn.Tanh()), classify, (2, 4), "ok"),
        (net(nn.Tanh()), classify, ("ragged",), "count-normalisation"),
        (net(nn.BatchNorm1d(6)), classify, (2, 4), "batch-norm"),
        (net(nn.BatchNorm1d(6)).eval(), classify, (2, 4), "ok"),
        (net(nn.Dropout(0.5)), classify, (2, 4), "ok"),
        (net(nn.Tanh()), contrast, (2, 4), "non-decomposable"),
    ],
)
def test_causes(model, loss_fn, splits, cause):
    report = check_accumulation(model, loss_fn, data(), splits)
    if isinstance(model[1], nn.Dropout):
        # Masks drawn row by row happen to come in the same order; see the next test.
        assert report.cause in ("ok", "dropout/RNG")
    else:
        assert report.cause == cause and report.ok == (cause == "ok")


def test_dropout_that_draws_in_another_order():
    report = check_accumulation(net(nn.Dropout(0.5), nn.Tanh(), nn.Dropout(0.5)), classify, data())
    assert report.cause == "dropout/RNG" and not report.weights


def test_a_kernel_that_does_not_repeat_itself():
    calls = []

    def loss_fn(model, batch):
        calls.append(1)
        return classify(model, batch) * (1 + 0.01 * len(calls))

    assert check_accumulation(net(), loss_fn, data()).cause == "nondeterministic kernel"


def test_a_loop_of_ones_own():
    model, batch = Tokens(), tokens()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)

    def right(model, parts):
        with AccumulationContext(model, optimizer, len(parts)) as scale:
            for part in parts:
                scale(*model.pair(part)).backward()

    def undivided(model, parts):
        model.zero_grad()
        for part in parts:
            model.loss(part).backward()

    def never_cleared(model, parts):
        for part in parts:
            (model.loss(part) / len(parts)).backward()

    found = [
        check_accumulation(model, mean_loss, batch, accumulate=loop)
        for loop in (right, undivided, never_cleared)
    ]
    assert [r.cause for r in found] == ["ok", "count-normalisation", "missing zero_grad"]
    assert found[1].error > 1  # k times too large


def test_nothing_is_left_behind():
    model = net(nn.BatchNorm1d(6), nn.Dropout(0.5))
    model[1].eval()
    classify(model, data()).backward()
    before = copy.deepcopy(model.state_dict())
    grads = [p.grad for p in model.parameters()]
    values = [g.clone() for g in grads]
    state, modes = torch.get_rng_state(), [m.training for m in model.modules()]
    check_accumulation(model, classify, data())
    simulate_ddp(model, classify, [data(4), data(6)])
    assert torch.equal(torch.get_rng_state(), state)
    assert [m.training for m in model.modules()] == modes
    for p, g, v in zip(model.parameters(), grads, values, strict=True):
        assert p.grad is g and torch.equal(g, v)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_float32_and_a_tolerance_of_ones_own():
    report = check_accumulation(
        net(nn.Tanh()).float(), classify, (data()[0].float(), data()[1]), (4,)
    )
    assert report.ok and 1e-9 < report.error < 2e-5
    strict = (data()[0].float(), data()[1])
    assert not check_accumulation(net(nn.Tanh()).float(), classify, strict, (4,), rtol=1e-12).ok


def test_ranks_are_averaged():
    model, batch = Tokens(), tokens()
    ranks = [{k: v[i : i + 2] for k, v in batch.items()} for i in range(0, 8, 2)]
    total = count_tokens(batch["labels"])
    model.loss(batch).backward()
    right = simulate_ddp(model, lambda m, b: 4 * m.pair(b)[0] / total, ranks)
    wrong = simulate_ddp(model, mean_loss, ranks)
    for name, p in model.named_parameters():
        assert (right[name] - p.grad).norm() < 1e-13 * p.grad.norm()
        assert (wrong[name] - p.grad).norm() > 1e-2 * p.grad.norm()


def llama():
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=16, hidden_size=8, intermediate_size=16, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=2, attn_implementation="eager",
    )  # fmt: skip
    batch = tokens((2, 6, 3, 6, 4, 5, 6, 2))
    return LlamaForCausalLM(config).double(), {
        "input_ids": batch["x"],
        "labels": batch["labels"],
    }


def test_a_causal_lm_of_transformers():
    model, batch = llama()
    naive = check_accumulation(model, lambda m, b: m(**b).loss, batch)
    assert naive.cause == "count-normalisation" and naive.error > 0.01
    total = count_tokens(batch["labels"])
    right = check_accumulation(model, lambda m, b: m(**b, num_items_in_batch=total).loss, batch)
    assert right.ok and right.error < 1e-5  # its loss is in float32


BUILD = """
import sys; sys.path.insert(0, {here!r})
from test_check_accumulation import classify, data, llama, net
def lm(): return llama()
def good():
    return net(), lambda m, b: classify(m, b) * len(b[1]), data()
def bad(): return 3
"""


def test_the_command_line(tmp_path, capsys):
    script = tmp_path / "train.py"
    script.write_text(BUILD.format(here=str(Path(__file__).parent)))

    def thalweg(*words):
        code = main(["check-accumulation", *words])
        return code, capsys.readouterr()

    code, said = thalweg(f"{script}:lm")
    assert code == 1 and "cause: count-normalisation" in said.out
    assert "AccumulationContext" in said.out
    assert max(map(len, said.out.splitlines())) <= 80
    code, said = thalweg(f"{script}:good", "--splits", "3", "--json")
    assert code == 0 and '"cause": "ok"' in said.out
    code, said = thalweg(f"{script}:bad")
    assert code == 2 and "it returned int" in said.err


@pytest.mark.parametrize(
    ("batch", "splits", "said"),
    [
        (data(1), (2,), "at least 2"),
        ((torch.ones(3, 4), torch.ones(2)), (2,), r"got \[2, 3\]"),
        (data(), ("even",), "a number from 1 on, or 'ragged', got 'even'"),
        (data(), (0,), "got 0"),
        (data(), (), "at least one split"),
    ],
)
def test_errors(batch, splits, said):
    with pytest.raises(ValueError, match=said):
        check_accumulation(net(), classify, batch, splits)


def test_losses_and_models_that_cannot_be_checked():
    with pytest.raises(ValueError, match="must return a scalar that depends on the parameters"):
        check_accumulation(net(), lambda m, b: b[0].sum(), data())
    with pytest.raises(ValueError, match="no parameter that requires a gradient"):
        check_accumulation(net().requires_grad_(False), classify, data())
    with pytest.raises(ValueError, match="one batch for each rank"):
        simulate_ddp(net(), classify, [])
