"""Thresholds of a network at its weights, against its own Jacobian and someone else's numbers."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from thalweg.instruments import StabilityReport, alignment, ms_threshold, sgd_stability
from thalweg.numerics import jacobian

VECTORS = Path(__file__).parents[1] / "vectors" / "sgd-dynamical-stability.npz"


class Diagonal(nn.Module):
    """f = ⟨a ⊙ b, x⟩."""

    def __init__(self, a, b):
        super().__init__()
        self.a, self.b = nn.Parameter(a), nn.Parameter(b)

    def forward(self, x):
        return x @ (self.a * self.b)


class TwoLayer(nn.Module):
    """f = Σ_j a_j relu(w_j·x)."""

    def __init__(self, w, a):
        super().__init__()
        self.w, self.a = nn.Parameter(w), nn.Parameter(a)

    def forward(self, x):
        return torch.relu(x @ self.w.T) @ self.a


def fitted(model, x, **kwargs):
    with torch.no_grad():
        y = model(x)
    return sgd_stability(model, x, y, **kwargs)


def test_vectors():
    """By autograd elsewhere, float64; tr of two-layer nets also by its formula."""
    z = np.load(VECTORS, allow_pickle=False)
    t = {k[6:]: torch.from_numpy(z[k]) for k in z.files if k.startswith("nets__")}
    x = t["x"]
    for model, name in [
        (TwoLayer(t["w"], t["a"]), "relu_tr_lmax_fro"),
        (Diagonal(t["dl_a"], t["dl_b"]), "diag_tr_lmax_fro"),
    ]:
        found = fitted(model, x, lr=1e-3)
        got = [found.trace, found.lambda_max, found.fro]
        assert got == pytest.approx(t[name].tolist(), rel=1e-9)
    h = x @ t["w"].T
    inner = torch.relu(h).square() + t["a"] ** 2 * x.square().sum(1, keepdim=True) * (h > 0)
    assert inner.sum(1).mean().item() == pytest.approx(t["relu_tr_lmax_fro"][0].item(), rel=1e-9)


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_thresholds_are_those_of_the_jacobian(batch_size):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2)).double()
    x = torch.randn(8, 4, dtype=torch.float64)
    J = jacobian(model, x, wrt="params").detach()
    found = fitted(model, x, lr=1e-3, batch_size=batch_size)
    assert type(found) is StabilityReport
    assert found.eta_exact == pytest.approx(ms_threshold(J, batch_size), rel=1e-6)
    A = torch.einsum("nkd,nke->nde", J, J)
    H, p = A.mean(0), (8 - batch_size) / (batch_size * 7)
    assert found.trace == pytest.approx(H.trace().item(), rel=1e-9)
    assert found.eta_gd == pytest.approx(2 / torch.linalg.eigvalsh(H)[-1].item(), rel=1e-9)
    mean = torch.einsum("nde,nde->n", A, A).mean()
    bound = 2 * H.trace() / ((1 - p) * H.square().sum() + p * mean)
    assert found.eta_vecI == pytest.approx(bound.item(), rel=1e-9)
    assert found.eta_exact <= min(found.eta_gd, found.eta_vecI, found.eta_trace) * (1 + 1e-9)


def test_what_is_stable_trains_and_what_is_not_escapes():
    """The report against SGD itself on a quadratic: f = x·w, started beside the minimum."""
    g = torch.Generator().manual_seed(0)
    model = nn.Linear(6, 1, bias=False).double()
    x = torch.randn(20, 6, generator=g, dtype=torch.float64)
    y = torch.zeros(20, 1, dtype=torch.float64)
    nn.init.zeros_(model.weight)
    edge = sgd_stability(model, x, y, lr=1.0).eta_exact
    assert edge is not None

    def second_moment(lr, num_steps=40, runs=4000):
        w = torch.ones(runs, 6, dtype=torch.float64)
        for _ in range(num_steps):
            xi = x[torch.randint(20, (runs,), generator=g)]
            w -= lr * (w * xi).sum(1, keepdim=True) * xi
        return w.square().sum(1).mean().item()

    assert sgd_stability(model, x, y, lr=0.8 * edge).stable is True
    assert sgd_stability(model, x, y, lr=1.3 * edge).stable is False
    assert second_moment(0.8 * edge) < 6.0 < second_moment(1.3 * edge)


def test_the_loss_that_is_given_counts():
    """MSELoss of k = 2 outputs is half squared error itself; of one, it is twice it."""
    model = nn.Linear(3, 1, bias=False).double()
    x = torch.randn(5, 3, dtype=torch.float64)
    half, whole = fitted(model, x, lr=0.1), fitted(model, x, lr=0.1, loss_fn=F.mse_loss)
    assert whole.trace == pytest.approx(2 * half.trace, rel=1e-9)
    assert whole.eta_exact == pytest.approx(half.eta_exact / 2, rel=1e-9)
    assert sgd_stability.__doc__ and half.margin == pytest.approx(half.eta_exact / 0.1)


def test_where_the_theory_does_not_reach_it_says_why():
    torch.manual_seed(0)
    model = nn.Linear(4, 3)
    x = torch.randn(10, 4)
    entropy = sgd_stability(model, x, torch.randint(3, (10,)), lr=0.1, loss_fn=F.cross_entropy)
    assert entropy.stable is None and "not quadratic" in entropy.reason
    unfitted = sgd_stability(model, x, torch.randn(10, 3), lr=1e-4)
    assert unfitted.stable is None and "not fitted" in unfitted.reason
    unknown = fitted(model, x, lr=1e-4, exact=False)
    assert unknown.stable is None and unknown.eta_exact is None and "exact=True" in unknown.reason
    assert fitted(model, x, lr=1e3, exact=False).stable is False  # a necessary condition fails


def test_alignment_against_its_definition():
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    x, y = torch.randn(6, 3).double(), torch.randn(6, 2).double()
    J = jacobian(model, x, wrt="params").detach()
    e = (model(x) - y).detach()
    each = torch.einsum("nkd,nk->nd", J, e)
    noise = each.T @ each / 6 - torch.outer(each.mean(0), each.mean(0))
    G = torch.einsum("nkd,nke->de", J, J) / 6
    loss = e.square().sum() / 12
    expected = (noise * G).sum() / (2 * loss * G.square().sum())
    assert alignment(model, x, y) == pytest.approx(expected.item(), rel=1e-9)
    assert math.isnan(alignment(model, x, model(x).detach()))


def test_errors():
    model, x, y = nn.Linear(2, 1), torch.ones(3, 2), torch.ones(3, 1)
    for kwargs, message in [
        ({"lr": 0.0}, "lr must be positive"),
        ({"lr": 0.1, "batch_size": 4}, r"batch_size must be in \[1, 3\]"),
        ({"lr": 0.1, "exact": "maybe"}, "exact must be"),
    ]:
        with pytest.raises(ValueError, match=message):
            sgd_stability(model, x, y, **kwargs)
    with pytest.raises(ValueError, match="as many targets as samples"):
        sgd_stability(model, x, y[:2], lr=0.1)
    with pytest.raises(ValueError, match="not finite"):
        alignment(model, x, torch.full((3, 1), math.nan))
