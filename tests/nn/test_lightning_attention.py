import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from thalweg.laws import conservation_laws, fields_from_model
from thalweg.nn import alibi_slopes, lightning_attention, tnl_slopes

VECTORS = Path(__file__).parent.parent / "vectors" / "lightning-attention.npz"
F64 = torch.float64


def slow(q, k, v, slope, state=None):
    """The definition, token by token in plain Python."""
    batch, heads, n, d = q.shape
    out = torch.zeros(*q.shape[:3], v.shape[-1], dtype=q.dtype)
    kv = torch.zeros(batch, heads, d, v.shape[-1], dtype=q.dtype) if state is None else state
    for t in range(n):
        kv = torch.exp(-slope)[:, None, None] * kv + k[:, :, t, :, None] * v[:, :, t, None, :]
        out[:, :, t] = torch.einsum("bhd,bhde->bhe", q[:, :, t], kv)
    return out, kv


def draw(seed, batch, heads, n, d, e, dtype=F64):
    g = torch.Generator().manual_seed(seed)
    sizes = [(batch, heads, n, d)] * 2 + [(batch, heads, n, e)]
    q, k, v = (torch.randn(*s, generator=g, dtype=dtype) for s in sizes)
    return q, k, v, torch.rand(heads, generator=g, dtype=dtype)


@pytest.fixture(scope="module")
def vectors():
    with np.load(VECTORS, allow_pickle=False) as z:
        return {name: torch.from_numpy(z[name]) for name in z.files}


@pytest.mark.parametrize("block_size", [1, 4, 7, 19, 64])
def test_vectors_of_the_official_code(vectors, block_size):
    q, k, v = (vectors[n].clone().requires_grad_() for n in "qkv")
    out, state = lightning_attention(
        q, k, v, vectors["slopes"], block_size=block_size, return_state=True
    )
    # Round-off of a few hundred float64 products; the vectors were checked to 1e-14 as well.
    assert (out - vectors["o"]).abs().max() < 1e-12
    assert (state - vectors["final_state"]).abs().max() < 1e-12
    grads = torch.autograd.grad((out * vectors["do"]).sum(), (q, k, v))
    for grad, name in zip(grads, ("dq", "dk", "dv"), strict=True):
        assert (grad - vectors[name]).abs().max() < 1e-12
    plain = lightning_attention(q, k, v, block_size=block_size)
    assert (plain - vectors["o_no_decay"]).abs().max() < 1e-12


@given(
    seed=st.integers(0, 1000),
    sizes=st.tuples(*[st.integers(1, 3)] * 2, st.integers(1, 20), *[st.integers(1, 5)] * 2),
    block_size=st.integers(1, 24),
    with_state=st.booleans(),
)
def test_any_block_size_is_the_recurrence(seed, sizes, block_size, with_state):
    q, k, v, slope = draw(seed, *sizes)
    start = torch.randn(*sizes[:2], *sizes[3:], dtype=F64) if with_state else None
    out, state = lightning_attention(
        q, k, v, slope, block_size=block_size, initial_state=start, return_state=True
    )
    expected, end = slow(q, k, v, slope, start)
    assert (out - expected).abs().max() < 1e-12
    assert (state - end).abs().max() < 1e-12


@given(st.integers(0, 1000), st.integers(0, 12), st.integers(1, 5))
def test_a_split_sequence_is_the_whole(seed, cut, block_size):
    q, k, v, slope = draw(seed, 2, 2, 12, 3, 4)
    whole, end = lightning_attention(q, k, v, slope, return_state=True)
    first, state = lightning_attention(
        *(x[:, :, :cut] for x in (q, k, v)), slope, block_size=block_size, return_state=True
    )
    second, state = lightning_attention(
        *(x[:, :, cut:] for x in (q, k, v)), slope, initial_state=state, return_state=True
    )
    assert (torch.cat([first, second], 2) - whole).abs().max() < 1e-12
    assert (state - end).abs().max() < 1e-12


def test_closed_forms():
    q, k, v, _ = draw(0, 1, 2, 6, 3, 4)
    diagonal = (q * k).sum(-1, keepdim=True) * v
    # Slope ∞ is λ = 0: every position sees itself only.
    far = lightning_attention(q, k, v, torch.tensor([math.inf, 1e30]), block_size=4)
    assert torch.equal(far, far) and (far - diagonal).abs().max() < 1e-14
    one = lightning_attention(*(x[:, :, :1] for x in (q, k, v)), torch.tensor([0.3, 2.0]))
    assert (one - diagonal[:, :, :1]).abs().max() < 1e-14
    ones = torch.ones(1, 1, 60, 1, dtype=F64)
    t = torch.arange(1, 61, dtype=F64)
    half = lightning_attention(ones, ones, ones, torch.tensor([math.log(2)], dtype=F64))
    assert (half.flatten() - (1 - 0.5**t) / 0.5).abs().max() < 1e-14
    # The order does not matter to a state without decay.
    _, state = lightning_attention(q, k, v, return_state=True)
    _, turned = lightning_attention(q.flip(2), k.flip(2), v.flip(2), return_state=True)
    assert (state - turned).abs().max() < 1e-14
    scaled = lightning_attention(q, k, v, scale=0.25)
    assert (scaled - lightning_attention(q, k, v) / 4).abs().max() < 1e-14


@pytest.mark.parametrize("place", [0, 1, 2])
def test_additive_in_each_argument(place):
    args = list(draw(1, 1, 2, 9, 3, 4))
    other = [*args]
    other[place] = torch.randn_like(args[place])
    both = [*args]
    both[place] = args[place] + other[place]
    outs = [lightning_attention(*a, block_size=4) for a in (args, other, both)]
    assert (outs[0] + outs[1] - outs[2]).abs().max() < 1e-13


def test_strong_decay_over_long_sequences_stays_finite():
    # λ^{−k} with slope ½ overflows float32 at k = 178 and float64 at k = 1420.
    q, k, v, _ = draw(2, 1, 1, 3000, 2, 2, torch.float32)
    for slope in (0.5, 20.0):
        for block_size in (128, 4096):
            out, state = lightning_attention(
                q, k, v, torch.tensor([slope]), block_size=block_size, return_state=True
            )
            assert out.isfinite().all() and state.isfinite().all()
            wide, _ = slow(*(x[:, :, -64:].double() for x in (q, k, v)), torch.tensor([slope]))
            assert (out[:, :, -1] - wide[:, :, -1]).abs().max() < 1e-4


def test_first_and_second_derivatives():
    q, k, v, slope = draw(3, 1, 2, 5, 2, 3)
    start = torch.randn(1, 2, 2, 3, dtype=F64)
    inputs = [x.requires_grad_() for x in (q, k, v, start)]

    def fn(q, k, v, start):
        return lightning_attention(
            q, k, v, slope, block_size=2, initial_state=start, return_state=True
        )

    assert torch.autograd.gradcheck(fn, inputs, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(fn, inputs, check_fwd_over_rev=True)


def test_a_learnt_slope_has_its_gradient():
    q, k, v, slope = draw(4, 2, 2, 7, 2, 3)
    slope.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda s: lightning_attention(q, k, v, s, block_size=3, return_state=True), [slope]
    )
    out = lightning_attention(q, k, v, slope, block_size=3)
    expected, _ = slow(q, k, v, slope)
    assert (out - expected).abs().max() < 1e-13


def test_works_under_vmap_and_functional_derivatives():
    q, k, v, slope = draw(5, 1, 2, 6, 3, 3)

    def loss(q):
        return lightning_attention(q, k, v, slope, block_size=4).square().sum()

    many = torch.stack([q, 2 * q, -q])
    outs = torch.func.vmap(lambda x: lightning_attention(x, k, v, slope, block_size=4))(many)
    assert (outs[1] - 2 * outs[0]).abs().max() < 1e-13
    _, tangent = torch.func.jvp(torch.func.grad(loss), (q,), (q,))
    assert (tangent - torch.func.grad(loss)(q)).abs().max() < 1e-11  # quadratic in q

    # The fourth derivative of (q·q)² along q, one forward pass inside another: 4! of it.
    def quartic(x):
        return (x[..., :1] * lightning_attention(x, x, x, slope)).sum()

    derivative = quartic
    for _ in range(4):
        derivative = (lambda f: lambda x: torch.func.jvp(f, (x,), (q,))[1])(derivative)
    assert derivative(q).item() == pytest.approx(24 * quartic(q).item(), rel=1e-10)
    x = q.clone().requires_grad_()
    rows = torch.func.vmap(
        lambda w: torch.autograd.grad(lightning_attention(x, k, v, slope), x, w, retain_graph=True)
    )(torch.stack([q, 2 * q]))[0]
    assert (rows[1] - 2 * rows[0]).abs().max() < 1e-13


def test_half_precision_is_summed_in_float32():
    ones = torch.ones(1, 1, 2000, 1, dtype=torch.bfloat16)
    out, state = lightning_attention(ones, ones, ones, block_size=16, return_state=True)
    assert out.dtype == torch.bfloat16 and state.dtype == torch.float32
    assert state.item() == 2000  # bfloat16 would stop at 256
    with torch.autocast("cpu", torch.bfloat16):
        _, state = lightning_attention(*[ones.float()] * 3, block_size=16, return_state=True)
    assert state.item() == 2000
    x = ones.clone().requires_grad_()
    lightning_attention(x, ones, ones).sum().backward()
    assert x.grad.dtype == torch.bfloat16 and x.grad[0, 0, -1].item() == 2000


def test_no_square_matrix_and_memory_linear_in_the_length():
    class Largest(torch.overrides.TorchFunctionMode):
        seen = 0

        def __torch_function__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            for x in out if isinstance(out, tuple) else (out,):
                if isinstance(x, torch.Tensor):
                    self.seen = max(self.seen, x.numel())
            return out

    found = []
    for n in (2048, 4096, 8192):
        q, k, v, slope = draw(6, 1, 1, n, 4, 4, torch.float32)
        with Largest() as mode:
            lightning_attention(q, k, v, slope)
        found.append(mode.seen)
    assert found == [4 * 2048, 4 * 4096, 4 * 8192] or max(found) < 2.5 * found[1]


def test_gradients_keep_inputs_only():
    kept = []
    q, k, v, slope = draw(7, 1, 2, 512, 4, 4)
    q.requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        lightning_attention(q, k, v, slope, block_size=16)
    assert sum(t.numel() for t in kept) <= 3 * q.numel() + 100


def test_an_empty_sequence_leaves_the_state():
    q = torch.zeros(2, 3, 0, 4)
    start = torch.randn(2, 3, 4, 4)
    out, state = lightning_attention(q, q, q, initial_state=start, return_state=True)
    assert out.shape == (2, 3, 0, 4) and torch.equal(state, start)


def test_padding_is_zero_keys_and_values():
    q, k, v, slope = draw(8, 1, 2, 9, 3, 3)
    longer = [torch.nn.functional.pad(x, (0, 0, 0, 5)) for x in (q, k, v)]
    assert torch.equal(
        lightning_attention(*longer, slope, block_size=4)[:, :, :8],
        lightning_attention(q, k, v, slope, block_size=4)[:, :, :8],
    )


def test_slopes_of_the_official_code(vectors):
    assert torch.allclose(alibi_slopes(8).double(), vectors["slopes_8"])
    assert torch.allclose(alibi_slopes(12).double(), vectors["slopes_12"], rtol=1e-6)
    assert alibi_slopes(1).tolist() == [2.0**-8]
    assert alibi_slopes(12)[8:].tolist() == pytest.approx([2**-0.5, 2**-1.5, 2**-2.5, 2**-3.5])
    for layer in (0, 1, 3):
        expected = -vectors[f"loggamma_fla_layer{layer}_of4"]
        assert torch.allclose(tnl_slopes(len(expected), layer, 4).double(), expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"k": torch.zeros(1, 2, 5, 4)}, r"expected q, k \(B, H, n, d\)"),
        ({"v": torch.zeros(1, 2, 4, 3)}, r"v \(B, H, n, e\)"),
        ({"v": torch.zeros(1, 2, 5, 3).double()}, "one floating dtype"),
        ({"slope": torch.zeros(3)}, "one entry for each of 2 heads"),
        ({"slope": torch.tensor([0.1, -0.1])}, "at least 0"),
        ({"slope": torch.tensor([0.1, math.nan])}, "at least 0"),
        ({"initial_state": torch.zeros(1, 2, 3, 4)}, r"initial_state must be .*\(1, 2, 3, 3\)"),
        ({"block_size": 0}, "block_size must be at least 1, got 0"),
    ],
)
def test_errors_say_what_was_expected(change, message):
    args = {n: torch.zeros(1, 2, 5, 3) for n in "qkv"}
    with pytest.raises(ValueError, match=message):
        lightning_attention(**{**args, **change})
    with pytest.raises(ValueError, match="num_heads"):
        alibi_slopes(0)
    with pytest.raises(ValueError, match="num_heads"):
        tnl_slopes(0, 0, 1)
    with pytest.raises(ValueError, match="layer_idx must be from 0 to 1"):
        tnl_slopes(2, 2, 2)


class Head(torch.nn.Module):
    """One read-out value per token, head of ``rows`` rows on tokens of width ``dim``."""

    def __init__(self, dim, rows):
        super().__init__()
        self.q, self.k = (torch.nn.Linear(dim, rows, bias=False) for _ in range(2))
        self.v = torch.nn.Linear(dim, 1, bias=False)

    def forward(self, x):
        return lightning_attention(*(p(x)[:, None] for p in (self.q, self.k, self.v)))


@pytest.mark.parametrize(("dim", "rows", "laws"), [(2, 1, 2), (3, 1, 2), (2, 2, 4), (3, 2, 4)])
def test_training_conserves_qq_minus_kk_and_the_balance_with_v(dim, rows, laws):
    family = fields_from_model(
        Head(dim, rows), "any", lambda g: (torch.randn(6, 3, dim, generator=g), torch.zeros(6))
    )
    report = conservation_laws(family)
    assert report.n_laws == laws and report.complete
    # QQᵀ − KKᵀ, its trace against ‖V‖²: on the diagonal of parameters (q, k, v), row-major.
    size = rows * dim
    theta = torch.randn(family.dim, dtype=F64)
    fields = family.at(theta)
    q, k, v = theta.split([size, size, dim])
    for i in range(rows):
        for j in range(i, rows):
            grad = torch.zeros(family.dim, dtype=F64)
            for sign, part, at in ((1, q, 0), (-1, k, size)):
                w = part.reshape(rows, dim)
                d = torch.zeros_like(w)
                d[i] += w[j]
                d[j] += w[i]
                grad[at : at + size] = sign * d.reshape(-1)
            assert (fields @ grad).abs().max() < 1e-10 * fields.abs().max()
    balance = torch.cat([q, torch.zeros(size, dtype=F64), -v])
    assert (fields @ balance).abs().max() < 1e-10 * fields.abs().max()
