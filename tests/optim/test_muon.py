import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from thalweg.optim import Muon, orthogonalize

VECTORS = np.load(
    Path(__file__).parents[1] / "vectors" / "muon-hamiltonian.npz", allow_pickle=False
)


def steps(optimizer_of, num=4):
    """Weights after each step with given gradients, (num, m, n)."""
    W = nn.Parameter(torch.from_numpy(VECTORS["opt_W0"].copy()))
    optimizer = optimizer_of([W])
    out = []
    for gradient in VECTORS["opt_grads"][:num]:
        W.grad = torch.from_numpy(gradient.copy())
        optimizer.step()
        out.append(W.detach().clone())
    return torch.stack(out)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("opt_torch_default", {"lr": 0.02}),
        ("opt_torch_rms", {"lr": 0.02, "adjust_lr_fn": "match_rms_adamw", "weight_decay": 0.05}),
        ("opt_torch_nonesterov", {"lr": 0.02, "nesterov": False, "weight_decay": 0}),
        ("opt_official_lr.02_wd.1", {"lr": 0.02, "weight_decay": 0.1}),
    ],
)
def test_vectors_of_torch_and_of_the_original(name, options):
    # Theirs is bfloat16 inside: 3e-2 in the factor, times lr, times four steps.
    ours, theirs = steps(lambda p: Muon(p, **options)), torch.from_numpy(VECTORS[name])
    assert torch.allclose(ours, theirs, atol=2e-3)
    other = steps(lambda p: Muon(p, **{**options, "lr": 0.03}))
    assert not torch.allclose(other, theirs, atol=2e-3)


def slow(W, gradients, lr, decay, momentum, nesterov):
    """The definition, one matrix, exact factor."""
    B = torch.zeros_like(W)
    for G in gradients:
        B = momentum * B + (1 - momentum) * G
        u = (1 - momentum) * G + momentum * B if nesterov else B
        left, _, right = torch.linalg.svd(u, full_matrices=False)
        scale = max(1.0, W.shape[0] / W.shape[1]) ** 0.5
        W = (1 - lr * decay) * W - lr * scale * left @ right
    return W


@pytest.mark.parametrize("nesterov", [True, False])
@pytest.mark.parametrize("shape", [(6, 4), (4, 6)])
def test_a_slow_reference(shape, nesterov):
    gradients = torch.randn(5, *shape, dtype=torch.float64)
    W = nn.Parameter(torch.randn(shape, dtype=torch.float64))
    want = slow(W.detach(), gradients, 0.02, 0.1, 0.95, nesterov)
    for backend, options in (("svd", {}), ("polar_express", {"ns_steps": 12})):
        p = nn.Parameter(W.detach().clone())
        optimizer = Muon([p], 0.02, nesterov=nesterov, backend=backend, **options)
        for G in gradients:
            p.grad = G.clone()
            optimizer.step()
        assert torch.allclose(p, want, atol=1e-8), backend


def test_the_first_direction_is_that_of_the_gradient():
    G = torch.randn(3, 5, dtype=torch.float64)
    p = nn.Parameter(torch.zeros_like(G))
    p.grad = G
    Muon([p], 1.0, weight_decay=0).step()
    # The momentum is a small multiple of G: the 1e-7 in the norm weighs more.
    assert torch.allclose(-p, orthogonalize(G, "ns"), atol=1e-5)


def test_kernels_are_flattened_and_their_state_is_not():
    p, flat = (nn.Parameter(torch.zeros(s)) for s in ((4, 3, 2, 2), (4, 12)))
    G = torch.randn(4, 12)
    p.grad, flat.grad = G.view(4, 3, 2, 2), G
    one, two = Muon([p]), Muon([flat])
    one.step(), two.step()
    assert torch.equal(p.flatten(1), flat)
    assert one.state[p]["momentum_buffer"].shape == p.shape


def test_a_state_of_torch_goes_in_and_out():
    models = [nn.Parameter(torch.ones(3, 2)) for _ in range(2)]
    theirs, ours = torch.optim.Muon([models[0]], 0.02), Muon([models[1]], 0.5, backend="svd")
    for G in torch.randn(3, 3, 2):
        models[0].grad = G
        theirs.step()
    ours.load_state_dict(copy.deepcopy(theirs.state_dict()))
    group = ours.param_groups[0]
    assert group["lr"] == 0.02 and group["backend"] == "svd" and group["foreach"] is None
    with torch.no_grad():
        models[1].copy_(models[0])
    group["backend"] = "ns"
    back = torch.optim.Muon([nn.Parameter(models[0].detach().clone())])
    back.load_state_dict(copy.deepcopy(ours.state_dict()))
    G = torch.randn(3, 2)
    for optimizer in (theirs, ours, back):
        p = optimizer.param_groups[0]["params"][0]
        p.grad = G.clone()
        optimizer.step()
        assert torch.allclose(p, models[0], atol=2e-3)  # bfloat16 in two of them
        assert torch.allclose(
            optimizer.state[p]["momentum_buffer"], theirs.state[models[0]]["momentum_buffer"]
        )
    assert set(theirs.state_dict()["param_groups"][0]) < set(ours.state_dict()["param_groups"][0])


def test_a_learning_rate_may_be_a_tensor():
    results = []
    for lr in (0.02, torch.tensor(0.02)):
        p = nn.Parameter(torch.ones(3, 2))
        p.grad = torch.arange(6.0).reshape(3, 2)
        Muon([p], lr).step()
        results.append(p.detach())
    assert torch.allclose(*results, atol=1e-7)


def test_a_gradient_that_is_not_finite_changes_nothing():
    params = [nn.Parameter(torch.ones(2, 2)) for _ in range(2)]
    params[0].grad, params[1].grad = torch.ones(2, 2), torch.full((2, 2), float("inf"))
    optimizer = Muon(params)
    with pytest.raises(ValueError, match=r"shape \(2, 2\) is not finite; no parameter was changed"):
        optimizer.step()
    assert all(torch.equal(p, torch.ones(2, 2)) for p in params) and not optimizer.state


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"lr": -1.0}, "lr must be ≥ 0, got -1.0"),
        ({"lr": torch.ones(2)}, "lr must be one number"),
        ({"weight_decay": -0.1}, "weight_decay must be"),
        ({"momentum": 1.0}, r"momentum must be in \[0, 1\), got 1.0"),
        ({"ns_steps": 100}, "ns_steps must be from 1 to 99"),
        ({"ns_coefficients": (1.0, 2.0)}, "three numbers"),
        ({"adjust_lr_fn": "other"}, "adjust_lr_fn must be"),
        ({"backend": "nss"}, "unknown backend 'nss'; nearest: 'ns'"),
        ({"eps": -1e-7}, "eps must be"),
    ],
)
def test_errors(options, said):
    with pytest.raises(ValueError, match=said):
        Muon([nn.Parameter(torch.ones(2, 2))], **options)


def test_parameters_and_gradients_that_it_does_not_take():
    with pytest.raises(ValueError, match=r"shape \(3,\); it needs at least 2 dimensions. Give"):
        Muon([nn.Parameter(torch.ones(3))])
    with pytest.raises(TypeError, match="must be real"):
        Muon([nn.Parameter(torch.ones(3, 3, dtype=torch.cfloat))])
    p = nn.Parameter(torch.ones(2, 2))
    p.grad = torch.ones(2, 2).to_sparse()
    with pytest.raises(TypeError, match="takes dense gradients"):
        Muon([p]).step()
