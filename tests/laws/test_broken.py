import itertools
from pathlib import Path

import numpy as np
import pytest
import torch

from thalweg.laws import Hyper, Law, LawState, Piece, advance

LAW = Law("a-b", "a² − b²", (Piece("a"), Piece("b", -1.0)))


def _train(hyper: dict, steps: int = 200):
    """L = Σ (a_j b_j − t_j)²/2 by torch's SGD; the law's values, and the recursion's."""
    gen = torch.Generator().manual_seed(0)
    p = {n: torch.randn(5, generator=gen, dtype=torch.float64).requires_grad_() for n in "ab"}
    target = torch.randn(5, generator=gen, dtype=torch.float64)
    optimizer = torch.optim.SGD(p.values(), **hyper)
    law = LAW
    h = law.fn(p)
    state = LawState(h, torch.zeros_like(h))
    worst = drift = 0.0
    for t in range(steps):
        noise = torch.randn(5, generator=gen, dtype=torch.float64) * 0.1
        loss = ((p["a"] * p["b"] - target - noise) ** 2).sum() / 2
        optimizer.zero_grad()
        loss.backward()
        before = {n: x.detach().clone() for n, x in p.items()}
        optimizer.step()
        step = Hyper(**hyper) if t else Hyper(**hyper | {"dampening": 0.0})
        u = {n: (before[n] - x.detach()) / step.lr for n, x in p.items()}
        v = {n: optimizer.state[x].get("momentum_buffer") for n, x in p.items()}
        v = u if v["a"] is None else v
        state = advance(state, step, law.bilinear(u, u), law.bilinear(u, v))
        measured = law.fn(p)
        worst = max(worst, (state.h - measured).abs().max().item())
        drift = max(drift, (measured - h).abs().max().item())
    return worst, drift


CASES = [
    dict(lr=0.05, momentum=m, weight_decay=d, nesterov=n, dampening=t)
    for m, d, n, t in itertools.product([0.0, 0.9], [0.0, 0.01], [False, True], [0.0, 0.3])
    if not (n and (t or not m)) and not (t and not m)
]


@pytest.mark.parametrize("hyper", CASES, ids=str)
def test_sgd_of_every_kind_follows_the_recursion(hyper):
    worst, drift = _train(hyper)
    assert worst < 1e-12  # round-off of 200 steps of numbers around 1
    assert drift > 1e-2  # while the law itself moved


def test_decoupled_decay_of_plain_sgd():
    theta = {"a": torch.tensor([2.0]).double(), "b": torch.tensor([1.0]).double()}
    g = {"a": torch.tensor([1.0]).double(), "b": torch.tensor([2.0]).double()}  # q(θ, g) = 0
    lr, decay = 0.1, 0.5
    gg = LAW.fn(g)
    new = advance(
        LawState(LAW.fn(theta), 0 * gg), Hyper(lr, weight_decay=decay, decoupled=True), gg, gg
    )
    stepped = {n: (1 - lr * decay) * theta[n] - lr * g[n] for n in theta}
    assert torch.allclose(new.h, LAW.fn(stepped), atol=1e-14)


def test_a_law_of_degree_one_follows_it_too():
    gen = torch.Generator().manual_seed(1)
    w = torch.randn(3, 4, generator=gen, dtype=torch.float64).requires_grad_()
    law = Law("columns", "1ᵀW", (Piece("w", axis=1),), "sum")
    optimizer = torch.optim.SGD([w], 0.1, momentum=0.9, weight_decay=0.05)
    state = LawState(law.fn({"w": w}), torch.zeros(4, dtype=torch.float64))
    for _ in range(100):
        x = torch.randn(8, 4, generator=gen, dtype=torch.float64)
        y = torch.randint(3, (8,), generator=gen)
        loss = torch.nn.functional.cross_entropy(x @ w.T, y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        state = advance(state, Hyper(0.1, 0.9, weight_decay=0.05), 0.0, 0.0, order=1)
        assert torch.allclose(state.h, law.fn({"w": w}), atol=1e-13)


def test_pieces_with_another_decay():
    theta = {"a": torch.tensor([2.0]).double(), "b": torch.tensor([1.0]).double()}
    g = {"a": torch.tensor([1.0]).double(), "b": torch.tensor([2.0]).double()}
    decay = {"a": 0.3, "b": 0.1}
    u = {n: g[n] + decay[n] * theta[n] for n in theta}
    extra = (0.3 - 0.1) * LAW.part(LAW.pieces[0], theta, theta)
    uu = LAW.bilinear(u, u)
    new = advance(
        LawState(LAW.fn(theta), 0 * uu), Hyper(0.1, weight_decay=0.1), uu, uu, extra=extra
    )
    assert torch.allclose(new.h, LAW.fn({n: theta[n] - 0.1 * u[n] for n in theta}), atol=1e-14)


VECTORS = np.load(Path(__file__).parents[1] / "vectors/conservation-laws.npz", allow_pickle=False)


def _relu_law(theta):
    """‖u_j‖² − ‖v_j‖² of a 3-4-1 ReLU network, U (1 × 4) then V (3 × 4)."""
    u, v = theta[:4], theta[4:].reshape(3, 4)
    return torch.from_numpy(u**2 - (v**2).sum(0))


def test_momentum_follows_the_iterates_of_an_independent_implementation():
    theta = VECTORS["relu_sgdm_traj"]
    lr, beta = map(float, VECTORS["relu_lr_beta"])
    h = _relu_law(theta[0])
    state = LawState(h, torch.zeros_like(h))
    for before, after in itertools.pairwise(theta):
        v = (before - after) / lr
        vv = _relu_law(v)
        state = advance(state, Hyper(lr, beta), vv, vv)
        assert torch.allclose(state.h, _relu_law(after), atol=1e-12)
    assert (state.h - h).abs().max() > 1e-3


def test_decay_follows_the_iterates_of_an_independent_implementation():
    theta = VECTORS["relu_sgd_wd0.1_traj"]
    lr, decay = float(VECTORS["relu_lr_beta"][0]), 0.1
    h = _relu_law(theta[0])
    state = LawState(h, torch.zeros_like(h))
    hyper = Hyper(lr, weight_decay=decay, decoupled=True)
    for before, after in itertools.pairwise(theta):
        g = ((1 - decay * lr) * before - after) / lr
        gg = _relu_law(g)
        state = advance(state, hyper, gg, gg)
        assert torch.allclose(state.h, _relu_law(after), atol=1e-12)
    assert (state.h - h).abs().max() > 1e-3
