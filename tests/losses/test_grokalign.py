import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from thalweg.losses import GrokAlign, grokalign, jacobian_norm

CI = settings(max_examples=25, deadline=None, derandomize=True)
VECTORS = Path(__file__).parents[1] / "vectors" / "grokalign.npz"


def mlp(*sizes, dtype=torch.float64, bias=True):
    layers = [m for a, b in itertools.pairwise(sizes) for m in (nn.Linear(a, b, bias), nn.ReLU())]
    return nn.Sequential(*layers[:-1]).to(dtype)


def naive(model, x):
    """‖J‖ of each sample from the full Jacobian, one sample at a time."""
    J = [torch.autograd.functional.jacobian(lambda s: model(s[None])[0], s) for s in x]
    return torch.stack([j.square().sum().sqrt() for j in J])


def of_vectors():
    data = {k: torch.from_numpy(v) for k, v in np.load(VECTORS, allow_pickle=False).items()}
    model = mlp(5, 7, 7, 3)
    model.load_state_dict({k[6:]: v for k, v in data.items() if k.startswith("param_")})
    return model, data


def test_a_linear_map_has_the_norm_of_its_matrix_everywhere():
    W = torch.randn(4, 3).double()
    norms = jacobian_norm(lambda x: x @ W.T, torch.randn(5, 3).double(), exact=True)
    torch.testing.assert_close(norms, W.norm().expand(5))


def test_orthonormal_rows_are_exact_in_every_draw():
    Q = torch.linalg.qr(torch.randn(6, 3).double()).Q  # columns orthonormal
    norms = jacobian_norm(lambda x: x @ Q, torch.randn(5, 6).double())
    torch.testing.assert_close(norms, torch.full((5,), math.sqrt(3)).double(), rtol=1e-6, atol=0)


def test_vectors(monkeypatch):
    model, data = of_vectors()
    x = data["x"]
    torch.testing.assert_close(jacobian_norm(model, x, exact=True), data["fro"], rtol=1e-12, atol=0)
    drawn = iter(data["proj_v"])
    monkeypatch.setattr(grokalign, "_direction", lambda out, generator: next(drawn))
    norms = jacobian_norm(model, x, projections=2)
    torch.testing.assert_close(norms, data["proj_norm"], rtol=1e-12, atol=0)
    norms.mean().backward()
    for name, p in model.named_parameters():
        wanted = data[f"grad_of_mean_projnorm_{name}"]
        got = torch.zeros_like(p) if p.grad is None else p.grad  # biases do not enter J
        torch.testing.assert_close(got, wanted, rtol=1e-10, atol=1e-14)


@CI
@given(seed=st.integers(0, 10**6), n=st.integers(1, 5), d=st.integers(1, 5), c=st.integers(1, 4))
def test_exact_is_the_naive_norm_and_scales_with_the_outputs(seed, n, d, c):
    torch.manual_seed(seed)
    model, x = mlp(d, 6, c), torch.randn(n, d).double()
    found = jacobian_norm(model, x, exact=True)
    torch.testing.assert_close(found, naive(model, x).clamp(min=1e-4))
    tripled = jacobian_norm(lambda x: 3 * model(x), x, exact=True)
    torch.testing.assert_close(tripled, (3 * naive(model, x)).clamp(min=1e-4))
    one = jacobian_norm(model, x[-1:], exact=True)
    torch.testing.assert_close(one, found[-1:])  # samples do not mix
    if c == 1:
        torch.testing.assert_close(jacobian_norm(model, x), found, rtol=1e-6, atol=0)


def test_the_square_of_the_estimate_has_the_right_mean():
    model, x = mlp(4, 8, 3), torch.randn(1, 4).double()
    generator = torch.Generator().manual_seed(0)
    squares = torch.stack(
        [jacobian_norm(model, x, generator=generator).detach() ** 2 for _ in range(2000)]
    )
    error = squares.std() / math.sqrt(2000)
    assert (squares.mean() - naive(model, x)[0] ** 2).abs() < 4 * error
    assert squares.sqrt().mean() <= naive(model, x)[0]  # Jensen


def test_the_gradient_reaches_the_weights():
    torch.manual_seed(0)
    a, b = torch.randn(4, 3).double().requires_grad_(), torch.randn(2, 4).double().requires_grad_()
    x = torch.randn(3, 3).double()

    def loss(a, b):
        return GrokAlign(lambda x: torch.tanh(x @ a.T) @ b.T, weight=0.7, exact=True)(x)

    assert torch.autograd.gradcheck(loss, (a, b))


def test_a_target_pulls_from_both_sides_and_weight_0_is_0():
    model, x = nn.Linear(2, 1, bias=False), torch.ones(3, 2)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[3.0, 4.0]]))
    assert GrokAlign(model, weight=2.0, target=7.0)(x).item() == pytest.approx(4.0)
    assert GrokAlign(model, weight=2.0, target=1.0)(x).item() == pytest.approx(8.0)
    assert GrokAlign(model, weight=0.0)(x).item() == 0
    assert "target=7.0" in repr(GrokAlign(model, target=7.0))


def test_max_samples_takes_the_first():
    model, x = mlp(3, 5, 2), torch.randn(6, 3).double()
    few = GrokAlign(model, weight=1.0, exact=True, max_samples=2)(x)
    torch.testing.assert_close(few, naive(model, x)[:2].mean())


def test_nothing_of_the_callers_is_touched():
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 2))
    model.train()
    x, buffers = torch.randn(5, 3), [b.clone() for b in model.buffers()]
    state = torch.get_rng_state()
    jacobian_norm(model, x, exact=True).mean().backward()
    assert torch.equal(state, torch.get_rng_state())
    assert not x.requires_grad and x.grad is None
    assert all(torch.equal(a, b) for a, b in zip(buffers, model.buffers(), strict=True))


@pytest.mark.parametrize("exact", [False, True])
def test_outputs_that_are_there_already_give_the_same(exact):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).double()
    x = torch.randn(5, 4, dtype=torch.float64)
    found = []
    for shared in (False, True):
        penalty = GrokAlign(model, weight=0.1, exact=exact, generator=torch.Generator())
        inputs = x.clone().requires_grad_()
        out = model(inputs)
        value = penalty(inputs, out=out) if shared else penalty(x)
        loss = out.square().mean() + value
        found.append([value, *torch.autograd.grad(loss, [*model.parameters()][:2])])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b)
    with pytest.raises(ValueError, match="required grad before"):
        jacobian_norm(model, x, out=model(x))
    with pytest.raises(ValueError, match="max_samples"):
        GrokAlign(model, max_samples=2)(inputs, out=out)


def test_each_call_draws_new_directions_unless_told():
    model, x = mlp(3, 5, 4), torch.randn(2, 3).double()
    assert not torch.equal(jacobian_norm(model, x), jacobian_norm(model, x))
    twice = [jacobian_norm(model, x, generator=torch.Generator().manual_seed(1)) for _ in "ab"]
    assert torch.equal(*twice)


def test_attention_and_embedded_tokens():
    embed, layer = nn.Embedding(7, 8), nn.TransformerEncoderLayer(8, 2, 16, 0.0, batch_first=True)
    tokens = torch.randint(7, (3, 5))
    norm = jacobian_norm(lambda e: layer(e)[:, -1], embed(tokens), projections=2).mean()
    norm.backward()
    assert embed.weight.grad is not None and layer.linear1.weight.grad.abs().sum() > 0


def test_dtypes_autocast_and_no_grad():
    x = torch.randn(2, 3)
    assert jacobian_norm(mlp(3, 4, 2), x.double()).dtype == torch.float64
    assert jacobian_norm(mlp(3, 4, 2, dtype=torch.bfloat16), x.bfloat16()).dtype == torch.float32
    model = mlp(3, 4, 2, dtype=torch.float32)
    plain = jacobian_norm(model, x, exact=True)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(jacobian_norm(model, x, exact=True), plain)
        assert jacobian_norm(model, x.bfloat16(), exact=True).dtype == torch.float32
    with torch.no_grad():
        found = jacobian_norm(model, x, exact=True)
    assert torch.equal(found, plain) and not found.requires_grad


def test_a_dead_net_has_a_floor_and_no_infinite_slope():
    model = mlp(3, 4, 2)
    with torch.no_grad():
        model[2].weight.zero_()
    norm = jacobian_norm(model, torch.randn(2, 3).double(), exact=True)
    assert norm.tolist() == pytest.approx([1e-4, 1e-4])
    norm.mean().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize(
    ("model", "x", "said"),
    [
        (nn.Linear(2, 1), torch.ones(2, 2, dtype=torch.int64), "embedded"),
        (nn.Linear(2, 1), torch.ones(0, 2), "B ≥ 1"),
        (nn.Linear(2, 1), torch.ones(2), "B ≥ 1"),
        (lambda x: x.sum(1), torch.ones(2, 2), r"must give \(2, C\), got \(2,\)"),
        (lambda x: (x, x), torch.ones(2, 2), "got tuple"),
        (lambda x: torch.ones(2, 1), torch.ones(2, 2), "does not depend on x"),
    ],
)
def test_what_has_no_jacobian_is_refused(model, x, said):
    with pytest.raises(ValueError, match=said):
        jacobian_norm(model, x)


def test_settings_out_of_range_and_infinities_are_refused():
    model = nn.Linear(2, 1)
    for settings_, said in [
        ({"weight": -1.0}, "weight"),
        ({"weight": math.nan}, "weight"),
        ({"projections": 0}, "projections"),
        ({"target": -1.0}, "target"),
        ({"max_samples": 0}, "max_samples"),
    ]:
        with pytest.raises(ValueError, match=said):
            GrokAlign(model, **settings_)
    with pytest.raises(ValueError, match="projections"):
        jacobian_norm(model, torch.ones(1, 2), projections=0)
    with pytest.raises(ValueError, match="not finite"):
        GrokAlign(lambda x: x * x, weight=1.0)(torch.full((1, 2), math.nan))
