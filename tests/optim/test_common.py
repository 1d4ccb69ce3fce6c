"""Every optimizer: one row here, the same demands on all."""

import copy
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import nn

from thalweg import optim
from thalweg.nn import BaseShape


@dataclass(frozen=True)
class Row:
    """One optimizer.

    Attributes:
        make: params and further settings to the optimizer, with a learning rate that suits.
        steps: within which it takes a quadratic below ``reached`` of its start.
        reached: see ``steps``; those with steps of fixed size stop at a distance of their size.
        vectors: whether it takes parameters of fewer than two dimensions.
        prepare: what a parameter needs before the optimizer takes it.
        reads: whether a step reads values on the host by design (a line search); the reason.
    """

    make: Callable[..., torch.optim.Optimizer]
    steps: int = 300
    reached: float = 1e-2
    vectors: bool = True
    prepare: Callable[[nn.Parameter], object] = lambda p: p
    reads: str = ""


def muon(backend):
    def make(params, lr=0.02, weight_decay=0.0, **options):
        return optim.Muon(params, lr, weight_decay, backend=backend, **options)

    return Row(make, steps=400, vectors=False)


def mup(kind, lr, **settings):
    """Every dimension infinite and as in the base model: all factors are 1."""

    def prepare(p):
        p.base_shape = BaseShape(
            tuple(p.shape) if p.ndim == 2 else (None,) * p.ndim, tuple(p.shape)
        )

    def make(params, lr=lr, **options):
        params = list(params)
        for group in params if isinstance(params[0], dict) else [{"params": params}]:
            for p in group["params"]:
                prepare(p)
        return kind(params, lr=lr, **{**settings, **options})

    return Row(make, prepare=prepare)


def masked(params, lr=0.05, weight_decay=0.0, **options):
    """Every entry of every parameter is trained."""
    inner = torch.optim.AdamW(params, lr, weight_decay=weight_decay, **options)
    everything = [p for group in inner.param_groups for p in group["params"]]
    return optim.MaskedOptimizer(
        inner, {p: torch.ones_like(p, dtype=torch.bool) for p in everything}
    )


ROWS = {
    "MaskedOptimizer": Row(masked),
    "MuSGD": mup(optim.MuSGD, 0.1, momentum=0.5),
    "MuAdam": mup(optim.MuAdam, 0.03),
    "MuAdamW": mup(optim.MuAdamW, 0.03, weight_decay=0.0),
    "AdamO": Row(
        lambda params, lr=0.05, **options: optim.AdamO(params, lr, isometry=0.0, **options),
        steps=400,
    ),
    "Muon, ns": muon("ns"),
    "Muon, polar_express": muon("polar_express"),
    "Muon, svd": muon("svd"),
    "RegularizedMuon": Row(
        lambda params, lr=0.05, **options: optim.RegularizedMuon(
            params, lr, friction=2.0, eps=0.1, **options
        ),
        vectors=False,
    ),
    "StableSPAM": Row(
        lambda params, lr=0.05, weight_decay=0.0, **options: optim.StableSPAM(
            params, lr, weight_decay=weight_decay, **options
        ),
        steps=400,
        reached=2e-2,
    ),
}

each = pytest.mark.parametrize("row", ROWS.values(), ids=ROWS.keys())


def problem(dtype=torch.float64, vectors=False):
    """A well-conditioned quadratic in two matrices, a convolution kernel and maybe a vector."""
    shapes = [(4, 3), (3, 4), (2, 3, 2, 2), *([(5,)] if vectors else [])]
    generator = torch.Generator().manual_seed(0)
    params = [nn.Parameter(torch.randn(s, generator=generator).to(dtype)) for s in shapes]
    goals = [torch.randn(s, generator=generator).to(dtype) for s in shapes]

    def loss():
        total = torch.zeros((), dtype=torch.float64)
        for p, g in zip(params, goals, strict=True):
            total = total + (p - g).double().square().sum() / 2
        return total

    return params, loss


def train(optimizer, loss, steps):
    for _ in range(steps):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()


def test_every_optimizer_has_its_row():
    public = {n for n in optim.__all__ if isinstance(getattr(optim, n), type)}
    kinds = {n for n in public if issubclass(getattr(optim, n), torch.optim.Optimizer)}
    params, _ = problem()
    assert kinds == {type(r.make(params)).__name__ for r in ROWS.values()}


@each
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_converges_on_a_quadratic_and_keeps_the_dtype(row, dtype):
    params, loss = problem(dtype, row.vectors)
    start = loss().item()
    optimizer = row.make(params)
    train(optimizer, loss, row.steps)
    assert loss().item() < row.reached * start
    for p in params:
        assert p.dtype == dtype
        states = [s for s in optimizer.state[p].values() if torch.is_tensor(s) and s.ndim]
        assert all(s.shape == p.shape and s.dtype == dtype for s in states)


@each
def test_without_decay_a_zero_gradient_moves_nothing_and_with_it_weights_shrink(row):
    for decay in (0.0, 0.1):
        params, _ = problem(vectors=row.vectors)
        before = [p.detach().clone() for p in params]
        optimizer = row.make(params, weight_decay=decay)
        for p in params:
            p.grad = torch.zeros_like(p)
        optimizer.step()
        for p, b in zip(params, before, strict=True):
            assert torch.equal(p.detach(), b) if decay == 0 else p.detach().norm() < b.norm()


@each
def test_a_closure_is_called_once_and_its_loss_returned(row):
    params, loss = problem(vectors=row.vectors)
    optimizer = row.make(params)
    called = []

    def closure():
        optimizer.zero_grad()
        value = loss()
        value.backward()  # needs gradients switched on
        called.append(value.item())
        return value

    assert optimizer.step(closure).item() == called[0] and len(called) == 1
    by_hand, loss = problem(vectors=row.vectors)
    train(row.make(by_hand), loss, 1)
    assert all(torch.equal(a, b) for a, b in zip(params, by_hand, strict=True))


@each
def test_resumed_is_uninterrupted(row):
    params, loss = problem(vectors=row.vectors)
    whole = row.make(params)
    train(whole, loss, 5)
    saved = copy.deepcopy(whole.state_dict()), [p.detach().clone() for p in params]
    train(whole, loss, 5)
    again, loss = problem(vectors=row.vectors)
    with torch.no_grad():
        for p, s in zip(again, saved[1], strict=True):
            p.copy_(s)
    resumed = row.make(again, lr=1e-9)  # the saved learning rate counts
    resumed.load_state_dict(saved[0])
    train(resumed, loss, 5)
    assert all(torch.equal(a, b) for a, b in zip(params, again, strict=True))


@each
def test_parameters_without_gradient_stay_and_leave_the_others_alone(row):
    params, loss = problem(vectors=row.vectors)
    before = params[1].detach().clone()
    params[1].requires_grad_(False)
    optimizer = row.make(params)
    train(optimizer, loss, 3)
    assert torch.equal(params[1], before) and not optimizer.state.get(params[1])
    others, loss = problem(vectors=row.vectors)
    train(row.make([p for i, p in enumerate(others) if i != 1]), loss, 3)
    for i in {*range(len(params))} - {1}:
        assert torch.allclose(params[i], others[i], atol=1e-12)
    optimizer.zero_grad()
    optimizer.step()  # none at all


@each
def test_parameters_of_different_dtypes_train_together(row):
    wide, loss = problem(torch.float64, row.vectors)
    narrow, narrow_loss = problem(torch.bfloat16, row.vectors)
    optimizer = row.make([*wide, *narrow])
    alone, alone_loss = problem(torch.float64, row.vectors)
    train(optimizer, lambda: loss() + narrow_loss(), 5)
    train(row.make(alone), alone_loss, 5)
    assert all(torch.allclose(a, b, atol=1e-12) for a, b in zip(wide, alone, strict=True))
    assert all(p.dtype == torch.bfloat16 and p.isfinite().all() for p in narrow)


@each
def test_groups_have_their_own_settings(row):
    params, loss = problem(vectors=row.vectors)
    optimizer = row.make([{"params": params[:1], "lr": 0.0}, {"params": params[1:]}])
    before = [p.detach().clone() for p in params]
    train(optimizer, loss, 2)
    assert torch.equal(params[0], before[0]) and not torch.equal(params[1], before[1])
    new = nn.Parameter(torch.ones(2, 2))
    row.prepare(new)
    optimizer.add_param_group({"params": [new], "lr": 0.5})
    assert [g["lr"] for g in optimizer.param_groups][::2] == [0.0, 0.5]


@each
def test_one_at_a_time_is_the_same(row):
    params, loss = problem(vectors=row.vectors)
    train(row.make(params), loss, 10)
    loop, loss = problem(vectors=row.vectors)
    train(row.make(loop, foreach=False), loss, 10)
    # Stacked products may be summed in another order; steps amplify that.
    assert all(torch.allclose(a, b, atol=1e-9) for a, b in zip(params, loop, strict=True))


@each
def test_a_step_reads_no_value_on_the_host(row):
    """On the meta device there is nothing to read: ``item`` and the like raise."""
    if row.reads:
        return
    params = [nn.Parameter(p.detach().to("meta")) for p in problem(vectors=row.vectors)[0]]
    optimizer = row.make(params)
    for _ in range(2):
        for p in params:
            p.grad = torch.empty_like(p)
        optimizer.step()


@each
def test_strided_parameters_and_gradients_are_followed(row):
    params, _ = problem()
    turned = nn.Parameter(params[0].detach().T.contiguous().T)
    assert not turned.is_contiguous()
    for optimizer, p in ((row.make(params[:1]), params[0]), (row.make([turned]), turned)):
        p.grad = torch.arange(12.0, dtype=torch.float64).reshape(3, 4).T
        optimizer.step()
    assert torch.allclose(turned, params[0], atol=1e-12)
