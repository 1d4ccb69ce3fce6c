"""AdamO against given vectors, its definition, and torch's Adam."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from thalweg.losses import isometry_gradient
from thalweg.optim import AdamO

VECTORS = np.load(Path(__file__).parents[1] / "vectors" / "adamo-isometry.npz", allow_pickle=False)
CASES = {"default": {}, "lriso": {"isometry_lr": 0.1}, "wd": {"weight_decay": 0.1}}
KINDS = {"tall": "W_tall0", "wide": "W_wide0", "b": "b0"}


def given_case():
    starts = {k: torch.from_numpy(VECTORS[f"adamo_{n}"]) for k, n in KINDS.items()}
    grads = {k: torch.from_numpy(VECTORS[f"adamo_grads_{k}"]) for k in KINDS}
    return starts, grads


def path(starts, grads, optimizer_of):
    """Weights after every step, name to (steps, ...), and the optimizer."""
    params = {k: nn.Parameter(v.clone()) for k, v in starts.items()}
    optimizer = optimizer_of(params.values())
    found = {k: [] for k in params}
    for t in range(min(len(g) for g in grads.values())):
        for k, p in params.items():
            p.grad = grads[k][t].clone()
        optimizer.step()
        for k, p in params.items():
            assert torch.equal(p.grad, grads[k][t])  # not ours to write to
            found[k].append(p.detach().clone())
    states = {k: optimizer.state[p] for k, p in params.items()}
    return {k: torch.stack(v) for k, v in found.items()}, states


@pytest.mark.parametrize("foreach", [None, False])
@pytest.mark.parametrize("case", CASES)
def test_vectors_of_an_independent_prototype(case, foreach):
    options = {"lr": 0.01, "isometry": 0.05, "foreach": foreach, **CASES[case]}
    found, _ = path(*given_case(), lambda p: AdamO(p, **options))
    for kind in KINDS:
        want = torch.from_numpy(VECTORS[f"adamo_{case}_{kind}"])
        # float64: the order of operations differs.
        assert torch.allclose(found[kind], want, rtol=0, atol=1e-14), kind
    other, _ = path(*given_case(), lambda p: AdamO(p, **{**options, "isometry": 0.06}))
    want = torch.from_numpy(VECTORS[f"adamo_{case}_tall"])
    assert not torch.allclose(other["tall"], want, atol=1e-6)


def slow(W, grads, lr, isometry, target, decay):
    """The definition, one matrix; the gradient of the penalty by autograd of singular values."""
    m, v = torch.zeros_like(W), torch.zeros_like(W)
    for t, g in enumerate(grads, start=1):
        there = W.clone().requires_grad_()
        (torch.linalg.svdvals(there.flatten(1)) ** 2 - target**2).square().sum().backward()
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        step = (m / (1 - 0.9**t)) / ((v / (1 - 0.999**t)).sqrt() + 1e-8)
        W = (1 - lr * decay) * W - lr * step - lr * isometry * there.grad
    return W


@pytest.mark.parametrize("shape", [(5, 3), (3, 5), (3, 2, 2, 2)])
@pytest.mark.parametrize(("target", "decay"), [(1.0, 0.0), (2**0.5, 0.1)])
def test_a_slow_reference(shape, target, decay):
    W, grads = torch.randn(shape, dtype=torch.float64), torch.randn(6, *shape, dtype=torch.float64)
    options = {"isometry": 0.02, "target": target, "weight_decay": decay}
    found, _ = path({"W": W}, {"W": grads}, lambda p: AdamO(p, 0.05, **options))
    want = slow(W, grads, 0.05, 0.02, target, decay)
    assert torch.allclose(found["W"][-1], want, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_without_isometry_it_is_adam_to_the_bit(dtype, decay):
    starts = {k: torch.randn(s, dtype=dtype) for k, s in (("W", (7, 5)), ("b", (5,)))}
    grads = {k: torch.randn(9, *s.shape, dtype=dtype) for k, s in starts.items()}
    ours, _ = path(starts, grads, lambda p: AdamO(p, 0.01, isometry=0.0, weight_decay=decay))
    theirs, _ = path(
        starts, grads, lambda p: torch.optim.AdamW(p, 0.01, weight_decay=decay, foreach=False)
    )
    assert all(torch.equal(ours[k], theirs[k]) for k in starts)


def test_the_moments_never_see_the_isometry():
    states = [path(*given_case(), lambda p, i=i: AdamO(p, isometry=i))[1] for i in (0.0, 0.1)]
    for kind in KINDS:
        for name in ("exp_avg", "exp_avg_sq", "step"):
            assert torch.equal(*(torch.as_tensor(s[kind][name]) for s in states))


def test_the_first_step_in_closed_form():
    starts, grads = given_case()
    found, _ = path(starts, grads, lambda p: AdamO(p, 0.01, isometry=0.05))
    W, g = starts["tall"], grads["tall"][0]
    want = W - 0.01 * g / (g.abs() + 1e-8) - 0.01 * 0.05 * isometry_gradient(W)
    assert torch.allclose(found["tall"][0], want, atol=1e-15)


@pytest.mark.parametrize("sigma", [0.01, 0.5, 1.2])
def test_without_a_task_gradient_singular_values_go_to_the_target(sigma):
    for target in (1.0, 1.4):
        p = nn.Parameter(sigma * torch.linalg.qr(torch.randn(6, 4, dtype=torch.float64)).Q)
        optimizer = AdamO([p], 0.1, isometry=0.2, target=target)
        for _ in range(400):
            p.grad = torch.zeros_like(p)
            optimizer.step()
        s = torch.linalg.svdvals(p.detach())
        assert torch.allclose(s, torch.full_like(s, target), atol=1e-9)


def test_a_dead_unit_moves_and_a_parameter_without_gradient_does_not():
    W, b = nn.Parameter(torch.randn(4, 3)), nn.Parameter(torch.randn(3))
    still = nn.Parameter(torch.randn(4, 3))
    W0, b0, still0 = (p.detach().clone() for p in (W, b, still))
    W.grad, b.grad = torch.zeros_like(W), torch.zeros_like(b)
    AdamO([W, b, still]).step()
    assert not torch.equal(W, W0) and torch.equal(b, b0) and torch.equal(still, still0)


def test_stacked_matrices_are_pulled_as_one_by_one_in_every_dtype():
    shapes = [(6, 4)] * 3 + [(4, 6)] * 2 + [(5,), (3, 2, 2, 2)]
    for dtype, slack in ((torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 1e-1)):
        starts = {str(i): torch.randn(s).to(dtype) for i, s in enumerate(shapes)}
        grads = {k: torch.randn(5, *v.shape).to(dtype) for k, v in starts.items()}
        both = [
            path(starts, grads, lambda p, f=f: AdamO(p, isometry=0.05, foreach=f))[0]
            for f in (None, False)
        ]
        for k in starts:
            assert both[0][k].dtype == dtype
            assert torch.allclose(both[0][k], both[1][k], atol=slack)


def test_a_group_can_be_exempt():
    body, head = nn.Parameter(torch.ones(3, 3)), nn.Parameter(torch.ones(2, 3))
    optimizer = AdamO([{"params": [body]}, {"params": [head], "isometry": 0.0}], isometry=0.1)
    for p in (body, head):
        p.grad = torch.zeros_like(p)
    optimizer.step()
    assert (body != 1).all() and (head == 1).all()


def test_maximize_goes_up_the_task_and_still_to_the_isometry():
    starts, grads = given_case()
    down, _ = path(starts, {k: -g for k, g in grads.items()}, lambda p: AdamO(p, isometry=0.05))
    up, _ = path(starts, grads, lambda p: AdamO(p, isometry=0.05, maximize=True))
    assert all(torch.equal(up[k], down[k]) for k in starts)


def test_a_state_of_torch_adam_is_taken_over():
    p, q = (nn.Parameter(torch.ones(3, 3)) for _ in range(2))
    adam, ours = torch.optim.Adam([p], 0.1), AdamO([q], 0.1, isometry=0.0)
    for _ in range(3):
        p.grad = torch.full((3, 3), 0.5)
        adam.step()
    ours.load_state_dict(copy.deepcopy(adam.state_dict()))  # without it, moments are shared
    with torch.no_grad():
        q.copy_(p)
    for x, optimizer in ((p, adam), (q, ours)):
        x.grad = torch.full((3, 3), -0.2)
        optimizer.step()
    assert torch.equal(p, q)


def test_a_pull_that_is_too_strong_is_an_error_and_limit_avoids_it():
    def trained(**options):
        p = nn.Parameter(30 * torch.eye(3))
        optimizer = AdamO([p], 1e-2, isometry=0.1, **options)
        for _ in range(2000):
            p.grad = torch.zeros_like(p)
            optimizer.step()
        return torch.linalg.svdvals(p.detach())

    with pytest.raises(ValueError, match=r"shape \(3, 3\) is not finite.*limit=True"):
        trained()
    assert torch.allclose(trained(limit=True), torch.ones(3), atol=1e-3)


def test_limit_changes_nothing_where_the_pull_is_stable():
    both = [
        path(*given_case(), lambda p, limit=limit: AdamO(p, isometry=0.05, limit=limit))[0]
        for limit in (False, True)
    ]
    assert all(torch.equal(both[0][k], both[1][k]) for k in KINDS)


def test_a_compiled_step_is_the_same_and_is_compiled_once():
    compiled = []

    def count(graph, _):
        compiled.append(graph)
        return graph.forward

    results = []
    for compile_it in (False, True):
        torch.manual_seed(0)
        params = [nn.Parameter(torch.randn(s)) for s in ((4, 3), (4, 3), (3,))]
        optimizer = AdamO(params, 0.01, isometry=0.05)
        step = torch.compile(optimizer.step, backend=count) if compile_it else optimizer.step
        for _ in range(8):
            for p in params:
                p.grad = torch.randn_like(p)
            step()
        results.append([p.detach() for p in params])
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(*results, strict=True))
    assert 1 <= len(compiled) <= 3  # the first step makes its state


def test_empty_and_scalar_parameters():
    params = [nn.Parameter(torch.zeros(0, 3)), nn.Parameter(torch.tensor(2.0))]
    for p in params:
        p.grad = torch.ones_like(p)
    AdamO(params, 0.5).step()
    assert params[1].item() == pytest.approx(1.5)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"lr": -1.0}, "lr must be"),
        ({"eps": -1.0}, "eps must be"),
        ({"isometry": -1.0}, "isometry must be"),
        ({"isometry_lr": -1.0}, "isometry_lr must be"),
        ({"weight_decay": float("nan")}, "weight_decay must be"),
        ({"betas": (1.0, 0.9)}, r"betas\[0\]"),
        ({"target": 0.0}, "target must be positive"),
    ],
)
def test_settings_out_of_range(options, said):
    with pytest.raises(ValueError, match=said):
        AdamO([nn.Parameter(torch.ones(2))], **options)


def test_what_it_does_not_take():
    with pytest.raises(TypeError, match="must be real"):
        AdamO([nn.Parameter(torch.ones(2, 2, dtype=torch.complex64))])
    with pytest.raises(TypeError, match="plain number"):
        AdamO([nn.Parameter(torch.ones(2))], torch.tensor(0.1))
    table = nn.Embedding(4, 2, sparse=True)
    optimizer = AdamO(table.parameters())
    table(torch.tensor([1])).sum().backward()
    with pytest.raises(RuntimeError, match="dense gradients"):
        optimizer.step()


def test_sharded_parameters_are_refused_unless_exempt():
    sharded = nn.Parameter(torch.ones(2, 2))
    sharded.device_mesh = None  # what a DTensor has and no plain tensor
    with pytest.raises(TypeError, match=r"sharded.*isometry=0"):
        AdamO([sharded])
    AdamO([{"params": [sharded], "isometry": 0.0}])
