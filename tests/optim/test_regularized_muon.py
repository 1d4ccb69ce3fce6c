from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from thalweg.optim import Muon, RegularizedMuon

VECTORS = np.load(
    Path(__file__).parents[1] / "vectors" / "muon-hamiltonian.npz", allow_pickle=False
)


def test_a_slow_reference():
    W0, gradients = torch.randn(4, 3).double(), torch.randn(6, 4, 3).double()
    p = nn.Parameter(W0.clone())
    optimizer = RegularizedMuon([p], 0.1, friction=2.0, eps=0.3, weight_decay=0.05)
    W, P = W0, torch.zeros_like(W0)
    for G in gradients:
        p.grad = G.clone()
        optimizer.step()
        P = (1 - 0.2) * P - 0.1 * G
        values, basis = torch.linalg.eigh(P.T @ P + 0.09 * torch.eye(3).double())
        W = (1 - 0.005) * W + 0.1 * P @ basis @ torch.diag(values.rsqrt()) @ basis.T
    assert torch.allclose(p, W, atol=1e-12)
    assert torch.allclose(optimizer.state[p]["momentum"], P, atol=1e-12)


def test_small_eps_is_muon_with_the_exact_factor():
    lr, momentum = 0.02, 0.95
    params = [nn.Parameter(torch.ones(3, 4).double()) for _ in range(2)]
    smooth = RegularizedMuon(params[:1], lr, friction=(1 - momentum) / lr, eps=1e-9)
    exact = Muon(params[1:], lr, weight_decay=0, nesterov=False, backend="svd")
    for G in torch.randn(5, 3, 4).double():
        for optimizer, p in ((smooth, params[0]), (exact, params[1])):
            p.grad = G.clone()
            optimizer.step()
    assert torch.allclose(*params, atol=1e-9)


def test_small_steps_follow_the_flow_of_an_independent_prototype():
    """First-order steps end within order h of the vectors, and half of it with half the step."""
    A, B = torch.from_numpy(VECTORS["ham_A"]), torch.from_numpy(VECTORS["ham_B"])
    eps, gamma = VECTORS["ham_eps_gamma"]
    times = VECTORS["ham_t"]
    errors = []
    for h in (0.01, 0.005):
        W = nn.Parameter(torch.from_numpy(VECTORS["ham_W0"].copy()))
        optimizer = RegularizedMuon([W], h, friction=float(gamma), eps=float(eps))
        for _ in range(round(float(times[4] - times[0]) / h)):
            W.grad = A.T @ (A @ W.detach() - B)
            optimizer.step()
        errors.append(float((W.detach() - torch.from_numpy(VECTORS["ham_W"][4])).norm()))
    assert errors[0] < 0.1 and 0.35 < errors[1] / errors[0] < 0.65


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"lr": -1.0}, "must be ≥ 0"),
        ({"weight_decay": -1.0}, "must be ≥ 0"),
        ({"friction": 11.0}, r"friction × lr must be in \[0, 1\]"),
        ({"friction": -1.0}, r"friction × lr must be in \[0, 1\]"),
        ({"eps": 0.0}, r"eps must be > 0, got 0.0; for eps = 0 use Muon\(backend='svd'\)"),
    ],
)
def test_errors(options, said):
    settings = {"lr": 0.1, "friction": 1.0, "eps": 0.1, **options}
    with pytest.raises(ValueError, match=said):
        RegularizedMuon([nn.Parameter(torch.ones(2, 2))], **settings)


def test_vectors_and_bad_gradients_are_refused():
    with pytest.raises(ValueError, match="RegularizedMuon: a parameter has shape"):
        RegularizedMuon([nn.Parameter(torch.ones(3))], 0.1, 1.0, 0.1)
    p = nn.Parameter(torch.ones(2, 2))
    p.grad = torch.full((2, 2), float("nan"))
    with pytest.raises(ValueError, match="is not finite"):
        RegularizedMuon([p], 0.1, 1.0, 0.1).step()
