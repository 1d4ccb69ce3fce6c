"""ELR against the vectors of its authors' code, its definition, and closed forms."""

import copy
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import thalweg
from thalweg.losses import ELRLoss, elr_regularizer

VECTORS = np.load(
    Path(__file__).parents[1] / "vectors" / "early-learning-regularization.npz", allow_pickle=False
)


def case(name):
    keys = ("index", "logits", "labels", "loss", "grad_logits", "target_final")
    return {k: torch.from_numpy(VECTORS[f"{name}__{k}"]) for k in keys} | {
        k: float(VECTORS[f"{name}__{k}"]) for k in ("beta", "lam")
    }


def slow(logits, labels, index, table, lam, beta, clamp=1e-4):
    """The definition by autograd, an example at a time; loss of each, and the new table."""
    table, losses = table.clone(), []
    for z, y, i in zip(logits, labels.tolist(), index.tolist(), strict=True):
        p = torch.softmax(z, 0)
        kept = torch.clamp(p, clamp, 1 - clamp)
        q = (kept / kept.sum()).detach()
        t = beta * table[i] + (1 - beta) * q
        table[i] = t
        losses.append(-torch.log_softmax(z, 0)[y] + lam * torch.log(1 - (t * kept).sum()))
    return torch.stack(losses), table


def batch(seed=0, size=6, classes=5, examples=9, scale=3.0, dtype=torch.float64):
    g = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(size, classes, generator=g, dtype=dtype)
    labels = torch.randint(classes, (size,), generator=g)
    return logits, labels, torch.randperm(examples, generator=g)[:size]


# Known answers


def test_the_first_visit():
    loss_fn = ELRLoss(4, 5, lam=2.0, beta=0.9, dtype=torch.float64)
    logits, labels, index = batch(size=3, examples=4, scale=1.0)
    p = logits.softmax(1)
    expected = -logits.log_softmax(1).gather(1, labels[:, None]).mean()
    expected = expected + 2 * torch.log(1 - 0.1 * p.square().sum(1)).mean()
    assert torch.allclose(loss_fn(logits, labels, index), expected, rtol=1e-13)
    assert torch.allclose(loss_fn.targets[index], 0.1 * p, rtol=1e-13)
    untouched = sorted(set(range(4)) - set(index.tolist()))
    assert not loss_fn.targets[untouched].any()


def test_even_predictions_after_m_visits():
    loss_fn = ELRLoss(1, 8, lam=1.0, beta=0.7, dtype=torch.float64)
    for m in range(1, 6):
        loss = loss_fn(torch.zeros(1, 8).double(), torch.tensor([0]), torch.tensor([0]))
        assert loss.item() == pytest.approx(math.log(8) + math.log(1 - (1 - 0.7**m) / 8))
        assert loss_fn.targets.sum().item() == pytest.approx(1 - 0.7**m)


def test_weight_0_is_cross_entropy_and_the_table_goes_on():
    loss_fn = ELRLoss(9, 5, lam=0.0, dtype=torch.float64)
    logits, labels, index = batch()
    mine, theirs = (logits.clone().requires_grad_() for _ in range(2))
    loss = loss_fn(mine, labels, index)
    expected = nn.functional.cross_entropy(theirs, labels)
    loss.backward()
    expected.backward()
    assert torch.allclose(loss, expected, rtol=1e-14)
    assert torch.allclose(mine.grad, theirs.grad, rtol=1e-12, atol=1e-16)
    assert loss_fn.targets[index].any(1).all()


def test_beta_0_keeps_the_present_prediction():
    loss_fn = ELRLoss(9, 5, beta=0.0, dtype=torch.float64)
    logits, labels, index = batch(scale=1.0)
    loss_fn(logits + 1, labels, index)
    loss_fn(logits, labels, index)
    assert torch.allclose(loss_fn.targets[index], logits.softmax(1), rtol=1e-13)


def test_the_regulariser_by_hand():
    p, t = torch.tensor([[0.25, 0.75]]), torch.tensor([[0.0, 0.8]])
    assert elr_regularizer(p, t).item() == pytest.approx(math.log(0.4))
    both = torch.cat([p, p]), torch.cat([t, 0 * t])
    assert elr_regularizer(*both, reduction="none").tolist() == pytest.approx([math.log(0.4), 0])
    assert elr_regularizer(*both, reduction="sum").item() == pytest.approx(math.log(0.4))


def test_the_pull_cancels_a_false_label():
    """A confident target of class 1 under the label 0: the gradient no longer asks for class 0."""
    z = torch.tensor([[0.0, 3.0]], dtype=torch.float64, requires_grad=True)
    label, i = torch.tensor([0]), torch.tensor([0])
    nn.functional.cross_entropy(z, label).backward()
    assert z.grad[0, 0] < -0.9
    loss_fn = ELRLoss(1, 2, lam=7.0, dtype=torch.float64)
    for _ in range(20):
        z.grad = None
        loss_fn(z, label, i).backward()
    assert z.grad[0, 0] > 0


# The definition, the authors' numbers


@pytest.mark.parametrize("name", ["b07_l3", "b09_l1", "saturated"])
def test_vectors_of_the_official_code(name):
    v = case(name)
    loss_fn = ELRLoss(*v["target_final"].shape, lam=v["lam"], beta=v["beta"], dtype=torch.float64)
    for step in range(len(v["loss"])):
        z = v["logits"][step].clone().requires_grad_()
        loss = loss_fn(z, v["labels"][step], v["index"][step])
        loss.backward()
        # float64: the closed form and autograd round differently.
        assert torch.allclose(loss, v["loss"][step], rtol=1e-13, atol=1e-13)
        assert torch.allclose(z.grad, v["grad_logits"][step], rtol=1e-12, atol=1e-13)
    assert torch.allclose(loss_fn.targets, v["target_final"], rtol=1e-13, atol=1e-15)


@given(
    seed=st.integers(0, 10**6),
    scale=st.sampled_from([0.1, 3.0, 30.0]),
    beta=st.sampled_from([0.0, 0.7, 0.99]),
    lam=st.sampled_from([0.0, 1.0, 7.0]),
)
def test_value_gradient_and_table_are_those_of_the_definition(seed, scale, beta, lam):
    logits, labels, index = batch(seed, scale=scale)
    loss_fn = ELRLoss(9, 5, lam=lam, beta=beta, reduction="none", dtype=torch.float64)
    start = torch.rand(9, 5, generator=torch.Generator().manual_seed(seed)).double()
    loss_fn.targets.copy_(start / start.sum(1, keepdim=True))
    mine, theirs = (logits.clone().requires_grad_() for _ in range(2))
    expected, table = slow(theirs, labels, index, loss_fn.targets, lam, beta)
    losses = loss_fn(mine, labels, index)
    weights = torch.linspace(-1, 2, len(logits)).double()
    (weights * losses).sum().backward()
    (weights * expected).sum().backward()
    assert torch.allclose(losses, expected, rtol=1e-11, atol=1e-12)
    assert torch.allclose(mine.grad, theirs.grad, rtol=1e-9, atol=1e-12)
    assert torch.allclose(loss_fn.targets, table, rtol=1e-13)


# Properties


@given(seed=st.integers(0, 10**6), scale=st.sampled_from([0.1, 10.0, 1e3]))
def test_the_regulariser_is_bounded(seed, scale):
    logits, labels, index = batch(seed, scale=scale, dtype=torch.float32)
    loss_fn = ELRLoss(9, 5, lam=1.0, beta=0.5, reduction="none")
    for _ in range(30):
        losses = loss_fn(logits, labels, index)
    term = losses - nn.functional.cross_entropy(logits, labels, reduction="none")
    # float32 of 1 − 1e-4, and the difference of two large losses
    assert (term <= 1e-3).all() and (term >= math.log(1e-4) - 0.01).all()
    assert (loss_fn.targets >= 0).all() and (loss_fn.targets.sum(1) <= 1 + 1e-6).all()


@given(seed=st.integers(0, 10**6))
def test_the_order_of_batches_does_not_matter(seed):
    g = torch.Generator().manual_seed(seed)
    logits, labels = torch.randn(12, 4, generator=g), torch.randint(4, (12,), generator=g)
    tables = []
    for size in (5, 12):
        loss_fn = ELRLoss(12, 4)
        for rows in torch.randperm(12, generator=g).split(size):
            loss_fn(logits[rows], labels[rows], rows)
        tables.append(loss_fn.targets)
    assert torch.allclose(*tables, rtol=1e-6)


def test_first_and_second_derivatives():
    logits, labels, index = batch(scale=1.0)
    loss_fn = ELRLoss(9, 5, lam=2.0, beta=0.5, dtype=torch.float64)
    for i in range(3):  # targets that are not the present predictions
        loss_fn(logits + i, labels, index)
    rows = loss_fn.targets[index]

    def fixed(z):
        """What autograd differentiates: the targets of this batch are constants."""
        kept = z.softmax(1).clamp(1e-4, 1 - 1e-4)
        q = logits.softmax(1).clamp(1e-4, 1 - 1e-4)
        t = 0.5 * rows + 0.5 * q / q.sum(1, keepdim=True)
        ce = nn.functional.cross_entropy(z, labels)
        return ce + 2 * torch.log(1 - (t * kept).sum(1)).mean()

    direction = torch.randn(logits.shape, dtype=torch.float64)
    products = []
    for f in (lambda z: copy.deepcopy(loss_fn)(z, labels, index), fixed):
        z = logits.clone().requires_grad_()
        (grad,) = torch.autograd.grad(f(z), z, create_graph=True)
        products.append(torch.cat([grad, *torch.autograd.grad(grad, z, direction)]).detach())
    assert torch.allclose(*products, rtol=1e-10, atol=1e-13)


def test_saved_and_loaded_goes_on_as_if_never_stopped():
    logits, labels, index = batch()
    whole, part = ELRLoss(9, 5), ELRLoss(9, 5)
    whole(logits, labels, index)
    part.load_state_dict(copy.deepcopy(whole.state_dict()))
    assert torch.equal(whole(logits, labels, index), part(logits, labels, index))
    assert "targets" in whole.state_dict()


def test_evaluation_reads_the_table_and_leaves_it():
    logits, labels, index = batch()
    loss_fn = ELRLoss(9, 5, dtype=torch.float64)
    loss_fn(logits + 1, labels, index)
    before = loss_fn.targets.clone()
    value = loss_fn.eval()(logits, labels, index)
    assert torch.equal(loss_fn.targets, before)
    assert torch.equal(loss_fn.train()(logits, labels, index), value)
    assert not torch.equal(loss_fn.targets, before)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype):
    logits, labels, index = batch(scale=20.0, dtype=dtype)
    z = logits.clone().requires_grad_()
    half, full = ELRLoss(9, 5, lam=1.0, dtype=dtype), ELRLoss(9, 5, lam=1.0)
    first, expected = half(z, labels, index), full(logits.float(), labels, index)
    assert torch.equal(first, expected)
    for _ in range(40):  # saturated: 1 − ⟨t, p̃⟩ is 0 in half precision
        loss = half(z, labels, index)
    loss.backward()
    assert loss.dtype == torch.float32 and half.targets.dtype == z.grad.dtype == dtype
    assert torch.isfinite(z.grad).all()
    ce = nn.functional.cross_entropy(logits.float(), labels)
    assert ce + math.log(1e-4) - 0.01 <= loss <= ce  # float32 of 1 − 1e-4


def test_autocast_changes_nothing():
    logits, labels, index = batch(dtype=torch.float32)
    plain = ELRLoss(9, 5)(logits, labels, index)
    with torch.autocast("cpu", torch.bfloat16):
        cast = ELRLoss(9, 5)(logits, labels, index)
    assert torch.equal(plain, cast)


def test_twice_in_one_batch():
    logits, labels, _ = batch(size=2)
    loss_fn = ELRLoss(9, 5, reduction="none", dtype=torch.float64)
    index = torch.tensor([3, 3])
    losses = loss_fn(logits, labels, index)
    each = [
        ELRLoss(9, 5, dtype=torch.float64)(logits[i : i + 1], labels[i : i + 1], index[:1])
        for i in range(2)
    ]
    assert torch.allclose(losses, torch.stack(each), rtol=1e-14)
    assert loss_fn.targets[3].sum().item() == pytest.approx(0.3)


def test_a_recording_can_evaluate_the_loss_again(run_dir):
    """The targets stay those of the step: the table is not touched, curvature can be measured."""
    torch.manual_seed(0)
    model, loss_fn = nn.Linear(6, 5), ELRLoss(20, 5)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    x, y = torch.randn(20, 6), torch.randint(5, (20,))
    tables = []
    for recorded in (True, False):
        loss_fn.targets.zero_()
        with torch.no_grad():
            for p in model.parameters():
                p.fill_(0.1)

        def train():
            for i in range(8):
                rows = torch.arange(20)[i::2]
                optimizer.zero_grad()
                loss_fn(model(x[rows]), y[rows], rows).backward()
                optimizer.step()

        if recorded:
            with thalweg.record(
                model, optimizer, run_dir, instruments=["loss", "sharpness"], overhead=50.0
            ):
                train()
        else:
            train()
        tables.append(loss_fn.targets.clone())
    assert torch.equal(*tables)
    table = thalweg.Run(run_dir).table("sharpness", "")
    assert "ok" in table["status"].to_pylist()


# Detection


def test_scores_and_detection():
    loss_fn = ELRLoss(3, 3, beta=0.5)
    logits = torch.tensor([[5.0, 0, 0], [5.0, 0, 0]])
    loss_fn(logits, torch.tensor([0, 1]), torch.tensor([0, 1]))
    labels = torch.tensor([0, 1, 2])
    assert loss_fn.detect(labels).tolist() == [False, True, False]
    scores = loss_fn.noisy_label_scores(labels)
    assert scores[0] < 0.55 and scores[1] > 0.99 and scores[2].isnan()


# Errors


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"beta": 1.0}, r"beta in \[0, 1\).*beta=1.0"),
        ({"lam": -1.0}, "lam must be finite and at least 0"),
        ({"clamp": 0.0}, r"clamp in \(0, 0.5\)"),
        ({"num_examples": 0}, "at least 1 example"),
        ({"num_classes": 1}, "2 classes"),
        ({"reduction": "avg"}, "'mean', 'sum' or 'none', got 'avg'"),
    ],
)
def test_settings_out_of_range(arguments, said):
    with pytest.raises(ValueError, match=said):
        ELRLoss(**({"num_examples": 4, "num_classes": 3} | arguments))


@pytest.mark.parametrize(
    ("index", "labels", "error", "said"),
    [
        ([0, 9], [0, 1], IndexError, "index must be in 0 … 3, got 0 … 9: number the examples"),
        ([0, -1], [0, 1], IndexError, "index must be in 0 … 3, got -1 … 0"),
        ([0, 1], [0, 3], IndexError, "labels must be in 0 … 2, got 0 … 3"),
        ([0, 1], [0, -100], IndexError, "'ignore' is not taken"),
        ([0.0, 1.0], [0, 1], TypeError, "index must be int64 or int32, got torch.float32"),
        ([0, 1], [0.0, 1.0], TypeError, "labels must be int64 or int32"),
        ([0], [0, 1], ValueError, "one entry for each of the 2 rows"),
    ],
)
def test_bad_batches(index, labels, error, said):
    loss_fn = ELRLoss(4, 3)
    with pytest.raises(error, match=said):
        loss_fn(torch.zeros(2, 3), torch.tensor(labels), torch.tensor(index))
    assert not loss_fn.targets.any()


def test_bad_shapes():
    with pytest.raises(ValueError, match=r"\(B, 3\), got torch.float32 \(2, 4\)"):
        ELRLoss(4, 3)(torch.zeros(2, 4), torch.zeros(2).long(), torch.arange(2))
    with pytest.raises(ValueError, match="labels must be those of all 4 examples"):
        ELRLoss(4, 3).detect(torch.zeros(3).long())
    with pytest.raises(ValueError, match="one shape"):
        elr_regularizer(torch.zeros(2, 3), torch.zeros(3))


def test_it_says_what_it_is():
    assert repr(ELRLoss(4, 3)) == "ELRLoss(4, 3, lam=3.0, beta=0.7, clamp=0.0001)"


def test_cross_entropy_of_extreme_logits():
    z = torch.tensor([[1e4, -1e4, 0.0], [-torch.inf, 2.0, 1.0], [60.0, 0.0, -60.0]])
    z.requires_grad_()
    labels, index = torch.tensor([2, 1, 0]), torch.arange(3)
    loss = ELRLoss(3, 3, lam=0.0, reduction="none")(z, labels, index)
    torch.testing.assert_close(loss, nn.functional.cross_entropy(z, labels, reduction="none"))
    (grad,) = torch.autograd.grad(loss.sum(), z)
    wanted = torch.autograd.grad(nn.functional.cross_entropy(z, labels, reduction="sum"), z)[0]
    torch.testing.assert_close(grad, wanted)
