import copy
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from thalweg.optim import GrokfastEMA, GrokfastMA

VECTORS = Path(__file__).parents[1] / "vectors" / "grokalign.npz"
BOTH = {
    "ema": lambda p: GrokfastEMA(p, alpha=0.8, lamb=0.5),
    "ema loop": lambda p: GrokfastEMA(p, alpha=0.8, lamb=0.5, foreach=False),
    "ma": lambda p: GrokfastMA(p, window=2, lamb=5.0),
}


def filtered(make, gradients):
    """What leaves a filter of one parameter."""
    p = nn.Parameter(torch.zeros_like(gradients[0]))
    grokfast, out = make([p]), []
    for g in gradients:
        p.grad = g.clone()
        grokfast.apply()
        out.append(p.grad)
    return torch.stack(out)


@pytest.mark.parametrize("name", BOTH)
def test_vectors(name):
    data = np.load(VECTORS, allow_pickle=False)
    assert (data["gf_alpha"], data["gf_lamb"]) == (0.8, 0.5)
    kind = "gf_ma_w2_l5_grads_out" if name == "ma" else "gf_ema_grads_out"
    got = filtered(BOTH[name], torch.from_numpy(data["gf_grads_in"]))
    np.testing.assert_allclose(got, data[kind], rtol=1e-12)  # order of sums


def test_a_constant_gradient():
    g = torch.tensor([1.0, -2.0])
    for make in (BOTH["ema"], BOTH["ema loop"]):
        torch.testing.assert_close(filtered(make, [g] * 5), (1.5 * g).expand(5, 2))
    got = filtered(lambda p: GrokfastMA(p, window=3, lamb=2.0), [g] * 5)
    torch.testing.assert_close(got, torch.stack([g, g, 3 * g, 3 * g, 3 * g]))


@given(seed=st.integers(0, 10**6), window=st.integers(1, 5), alpha=st.floats(0, 0.99))
def test_they_are_the_naive_filters(seed, window, alpha):
    g = torch.randn(7, 3, generator=torch.Generator().manual_seed(seed)).double()
    late = range(window - 1, 7)
    wanted = g.clone()
    wanted[window - 1 :] += 3 * torch.stack([g[t - window + 1 : t + 1].mean(0) for t in late])
    got = filtered(lambda p: GrokfastMA(p, window=window, lamb=3.0), g)
    torch.testing.assert_close(got, wanted)
    # the average unrolled: α^t of the first gradient, (1 − α) α^(t−s) of each one since
    a = torch.zeros(7, 7).double()
    for t in range(7):
        a[t, 0] = alpha**t
        for s in range(1, t + 1):
            a[t, s] = (1 - alpha) * alpha ** (t - s)
    for foreach in (True, False):
        got = filtered(lambda p, f=foreach: GrokfastEMA(p, alpha=alpha, lamb=2.0, foreach=f), g)
        torch.testing.assert_close(got, g + 2 * a @ g)


def trained(make, model, x, y, num_steps, state=None):
    optimizer, grokfast = torch.optim.SGD(model.parameters(), 0.05), make(model)
    if state is not None:
        grokfast.load_state_dict(state)
    for _ in range(num_steps):
        optimizer.zero_grad()
        nn.functional.mse_loss(model(x), y).backward()
        grokfast.apply()
        optimizer.step()
    return grokfast


@pytest.mark.parametrize("name", BOTH)
def test_resumed_is_uninterrupted(name, tmp_path):
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
    x, y, whole = torch.randn(8, 3), torch.randn(8, 1), copy.deepcopy(model)
    trained(BOTH[name], whole, x, y, 7)
    torch.save(trained(BOTH[name], model, x, y, 3).state_dict(), tmp_path / "state.pt")
    trained(BOTH[name], model, x, y, 4, torch.load(tmp_path / "state.pt"))
    for a, b in zip(whole.parameters(), model.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("name", BOTH)
def test_none_mixed_dtypes_and_frozen(name):
    model = nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2).bfloat16(), nn.Linear(2, 2).double()])
    model[0].bias.requires_grad_(False)
    for p in (model[0].weight, model[1].weight, model[2].bias):
        p.grad = torch.ones_like(p)
    grokfast = BOTH[name](model)
    grokfast.apply()
    grokfast.apply()
    assert model[1].bias.grad is None and model[0].bias.grad is None
    for p in (model[0].weight, model[1].weight, model[2].bias):
        assert p.grad.dtype == p.dtype and (p.grad > 1).all()
    kept = grokfast.state_dict().get("averages") or grokfast.state_dict()["past"]
    assert set(kept) == {"0.weight", "1.weight", "2.bias"}
    first = kept["1.weight"] if name != "ma" else kept["1.weight"][0]
    assert first.dtype == torch.float32


@pytest.mark.parametrize("name", BOTH)
def test_nothing_to_do_and_lambda_0(name):
    p = nn.Parameter(torch.ones(2))
    BOTH[name]([p]).apply()
    assert p.grad is None
    g = torch.randn(4, 2)
    zero = {"ema": lambda p: GrokfastEMA(p, lamb=0.0), "ma": lambda p: GrokfastMA(p, lamb=0.0)}
    assert torch.equal(filtered(zero[name.split()[0]], g), g)


def test_what_is_out_of_range_is_refused():
    p = nn.Parameter(torch.ones(2))
    for make, said in [
        (lambda: GrokfastEMA([p], alpha=1.0), "alpha"),
        (lambda: GrokfastEMA([p], lamb=-1.0), "lamb"),
        (lambda: GrokfastMA([p], lamb=math.nan), "lamb"),
        (lambda: GrokfastMA([p], window=0), "window"),
        (lambda: GrokfastMA([]), "no parameter"),
        (lambda: GrokfastEMA(nn.ReLU()), "no parameter"),
    ]:
        with pytest.raises(ValueError, match=said):
            make()
    embedding = nn.Embedding(3, 2, sparse=True)
    embedding(torch.tensor([1])).sum().backward()
    for make in BOTH.values():
        with pytest.raises(ValueError, match="'weight' is sparse"):
            make(embedding).apply()
    p.grad = torch.ones(2)
    for make in BOTH.values():
        grokfast = make([p])
        grokfast.apply()
        with pytest.raises(ValueError, match=r"holds '0', of shape \(2,\)"):
            make([nn.Parameter(torch.ones(3))]).load_state_dict(grokfast.state_dict())
