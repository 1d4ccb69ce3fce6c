from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from thalweg.instruments import caa_vector, gradient_step_shift, steer

VECTORS = np.load(
    Path(__file__).parent.parent / "vectors" / "local-linear-structure.npz", allow_pickle=False
)


def linear(W, u):
    model = nn.Sequential(
        nn.Linear(W.shape[1], W.shape[0], bias=False, dtype=W.dtype),
        nn.Linear(W.shape[0], 1, bias=False, dtype=W.dtype),
    )
    with torch.no_grad():
        model[0].weight.copy_(W)
        model[1].weight.copy_(u[None])
    model[1].weight.requires_grad_(False)
    return model


def up(model, x):
    return -model(x).mean()


def small():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(3, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(0.5), nn.Linear(6, 2)
    )


def test_vectors():
    v = {k: torch.from_numpy(VECTORS[k]) for k in VECTORS if k.startswith("lin_")}
    model = linear(v["lin_W"], v["lin_u"])
    caa = caa_vector(model, "0", v["lin_xpos"], v["lin_xneg"])
    shift = gradient_step_shift(model, up, "0", v["lin_batch"], float(v["lin_lr"]))
    torch.testing.assert_close(caa, v["lin_caa"])
    torch.testing.assert_close(shift, v["lin_shift"])
    cosine = nn.functional.cosine_similarity(caa, shift, dim=0)
    torch.testing.assert_close(cosine, v["lin_cos"])


def test_the_shift_of_a_linear_layer_is_along_the_readout():
    g = torch.Generator().manual_seed(0)
    W, u = torch.randn(4, 3, generator=g).double(), torch.randn(4, generator=g).double()
    x = torch.randn(9, 3, generator=g).double()
    shift = gradient_step_shift(linear(W, u), up, "0", x, 0.3)
    torch.testing.assert_close(shift, 0.3 * x.mean(0).square().sum() * u)
    centred = gradient_step_shift(linear(W, u), up, "0", x - x.mean(0), 0.3)
    assert float(centred.abs().max()) < 1e-14


def test_against_a_step_by_hand():
    model, x = small().eval(), torch.randn(7, 3, generator=torch.Generator().manual_seed(1))
    y = torch.tensor([0, 1, 0, 1, 1, 0, 0])
    loss_fn = lambda m, batch: nn.functional.cross_entropy(m(batch[0]), batch[1])  # noqa: E731
    got = gradient_step_shift(model, loss_fn, model[2], (x, y), 0.05)
    before = model[:3](x).mean(0).detach()
    optimizer = torch.optim.SGD(model.parameters(), 0.05)
    loss_fn(model, (x, y)).backward()
    optimizer.step()
    torch.testing.assert_close(got, model[:3](x).mean(0).detach() - before, atol=1e-6, rtol=1e-4)


def test_tokens():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(9, 5), nn.Linear(5, 4))
    pos, neg = torch.randint(9, (6, 3)), torch.randint(9, (4, 3))
    for token in (-1, 0):
        want = model(pos)[:, token].mean(0) - model(neg)[:, token].mean(0)
        torch.testing.assert_close(caa_vector(model, "1", pos, neg, token), want.detach())
    with torch.no_grad():
        plain = model(pos)
        with steer(model, "1", torch.ones(4), 2.0):
            torch.testing.assert_close(model(pos), plain + 2)
        with steer(model, "1", torch.ones(4), 2.0, token=-1):
            moved = model(pos)
    assert torch.equal(moved[:, :-1], plain[:, :-1])
    torch.testing.assert_close(moved[:, -1], plain[:, -1] + 2)


def test_layers_that_give_tuples_and_models_that_take_keywords():
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.attn = nn.MultiheadAttention(4, 1, batch_first=True)

        def forward(self, x, scale=1.0):
            return self.attn(scale * x, x, x)[0]

    torch.manual_seed(0)
    model, x = Block(), torch.randn(2, 3, 4)
    vector = caa_vector(model, "attn", {"x": x, "scale": 2.0}, (0 * x,))
    assert vector.shape == (4,)
    with torch.no_grad():
        plain = model(x)
        with steer(model, "attn", vector):
            torch.testing.assert_close(model(x), plain + vector)


def test_a_transformer_and_a_steered_logit():
    torch.manual_seed(0)
    body = nn.TransformerEncoder(
        nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 2, enable_nested_tensor=False
    )
    model = nn.Sequential(nn.Embedding(10, 8), body, nn.Linear(8, 2))
    pos, neg = torch.zeros(4, 5, dtype=torch.long), torch.ones(4, 5, dtype=torch.long)
    vector = caa_vector(model, "1.layers.1", pos, neg)
    assert vector.shape == (8,)
    shift = gradient_step_shift(
        model, lambda m, t: -(m(t)[:, -1, 0] - m(t)[:, -1, 1]).mean(), "1.layers.1", pos, 1e-2
    )
    model.eval()
    with torch.no_grad():
        gap = lambda: (model(pos)[:, -1, 0] - model(pos)[:, -1, 1]).mean()  # noqa: E731
        plain = gap()
        with steer(model, "1.layers.1", shift / shift.norm(), 0.5):
            assert gap() > plain
        assert gap() == plain


@given(seed=st.integers(0, 10_000), scale=st.floats(0.1, 10))
def test_exchange_and_scale(seed, scale):
    g = torch.Generator().manual_seed(seed)
    W, u = torch.randn(4, 3, generator=g).double(), torch.randn(4, generator=g).double()
    model = linear(W, u)
    pos, neg = (torch.randn(5, 3, generator=g).double() for _ in range(2))
    v = caa_vector(model, "0", pos, neg)
    torch.testing.assert_close(caa_vector(model, "0", neg, pos), -v)
    torch.testing.assert_close(caa_vector(model, "0", scale * pos, scale * neg), scale * v)
    one, more = (gradient_step_shift(model, up, "0", pos, lr) for lr in (1.0, scale))
    torch.testing.assert_close(more, scale * one)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_dtype(dtype):
    model, x = nn.Linear(3, 4).to(dtype), torch.randn(5, 3).to(dtype)
    assert caa_vector(model, model, x, 0 * x).dtype == dtype
    assert gradient_step_shift(model, up, model, x, 1.0).dtype == dtype
    with torch.no_grad(), steer(model, model, torch.ones(4)):
        assert model(x).dtype == dtype


def test_the_model_is_as_it_was():
    model, x = small(), torch.randn(7, 3)
    model(x).sum().backward()
    before = [(t._version, t.data_ptr(), t.clone()) for t in model.state_dict().values()]
    grads, state = [p.grad.clone() for p in model.parameters()], torch.get_rng_state()
    caa_vector(model, "2", x, -x)
    gradient_step_shift(model, up, "2", x, 0.1)
    assert torch.equal(torch.get_rng_state(), state)
    for t, (version, pointer, kept) in zip(model.state_dict().values(), before, strict=True):
        assert (t._version, t.data_ptr()) == (version, pointer) and torch.equal(t, kept)
    assert all(torch.equal(p.grad, g) for p, g in zip(model.parameters(), grads, strict=True))
    assert all(m.training and not m._forward_hooks for m in model.modules())


def test_hooks_go_after_an_error():
    model, x = small(), torch.randn(7, 3)
    with pytest.raises(RuntimeError, match="inside"), steer(model, "2", torch.ones(6)):
        raise RuntimeError("inside")
    with pytest.raises(RuntimeError):
        caa_vector(model, "2", x, torch.randn(7, 4))
    with pytest.raises(RuntimeError):
        gradient_step_shift(model, up, "2", torch.randn(7, 4), 0.1)
    assert all(m.training and not m._forward_hooks for m in model.modules())


def test_bad_input():
    model, x = small(), torch.randn(7, 3)
    with pytest.raises(ValueError, match=r"caa_vector: unknown layer '9'; nearest: "):
        caa_vector(model, "9", x, x)
    with pytest.raises(ValueError, match="not a part of the model"):
        caa_vector(model, nn.ReLU(), x, x)
    with pytest.raises(ValueError, match="need lr > 0"):
        gradient_step_shift(model, up, "2", x, 0.0)
    with pytest.raises(ValueError, match="the loss is nan"):
        gradient_step_shift(model, lambda m, x: m(x).sum() * torch.nan, "2", x, 0.1)
    with pytest.raises(ValueError, match="did not run"):
        gradient_step_shift(model, lambda m, x: m[0](x).sum(), "2", x, 0.1)
    with pytest.raises(ValueError, match=r"a vector of \(5,\) does not fit"), torch.no_grad():
        with steer(model, "2", torch.ones(5)):
            model(x)
    image = nn.Conv2d(1, 2, 3)
    with pytest.raises(ValueError, match=r"got \(1, 2, 2, 2\)"):
        caa_vector(image, image, torch.ones(1, 1, 4, 4), torch.ones(1, 1, 4, 4))
