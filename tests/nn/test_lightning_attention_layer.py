import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from thalweg.laws import conservation_laws, fields_from_model
from thalweg.nn import LightningAttention, alibi_slopes, tnl_slopes

VECTORS = Path(__file__).parent.parent / "vectors" / "lightning-attention.npz"
F64 = torch.float64
POLYNOMIAL = {"activation": None, "norm": None, "gate": False}


def contraction(x, tensor, slope):
    """The definition of the tensor form, with an n × n matrix of decays."""
    n = x.shape[1]
    gap = torch.arange(n)[:, None] - torch.arange(n)
    decay = torch.exp(-slope * gap.clamp(min=0)).tril()
    return torch.einsum("tr,ijlm,brj,btl,brm->bti", decay, tensor, x, x, x)


@given(
    st.integers(0, 100),
    st.sampled_from([None, "silu"]),
    st.sampled_from([None, "srms", "layer"]),
    st.booleans(),
    st.booleans(),
    st.sampled_from([True, False, "alibi", "tnl"]),
)
def test_steps_and_pieces_give_the_whole(seed, activation, norm, gate, bias, decay):
    torch.manual_seed(seed)
    layer = LightningAttention(
        6, 3, activation=activation, norm=norm, gate=gate, bias=bias, decay=decay, block_size=3
    ).double()
    x = torch.randn(2, 8, 6, dtype=F64)
    whole, end = layer(x, return_state=True)
    assert torch.equal(layer(x), whole)
    state, outs = None, []
    for x_t in x.unbind(1):
        y_t, state = layer.step(x_t, state)
        outs.append(y_t)
    assert (torch.stack(outs, 1) - whole).abs().max() < 1e-12
    assert (state - end).abs().max() < 1e-12
    _, half = layer(x[:, :5], return_state=True)
    rest, state = layer(x[:, 5:], half)
    assert (rest - whole[:, 5:]).abs().max() < 1e-12
    assert (state - end).abs().max() < 1e-12


def test_the_formula_of_the_layer():
    torch.manual_seed(0)
    layer = LightningAttention(4, 2, decay=torch.tensor([0.1, 0.7])).double()
    x = torch.randn(1, 5, 4, dtype=F64)
    q, k, v = (nn.functional.silu(p(x)) for p in (layer.q_proj, layer.k_proj, layer.v_proj))
    out = torch.zeros(5, 4, dtype=F64)
    for h, slope in enumerate(layer.slopes.double()):
        rows = slice(2 * h, 2 * h + 2)
        for t in range(5):
            for r in range(t + 1):
                score = q[0, t, rows] @ k[0, r, rows]
                out[t, rows] += torch.exp(-slope * (t - r)) * score * v[0, r, rows]
    out = out / (out.square().mean(-1, keepdim=True) + 1e-6).sqrt()
    expected = layer.out_proj(out * torch.sigmoid(layer.gate(x[0])))
    assert (layer(x)[0] - expected).abs().max() < 1e-13


def test_decoding_memory_is_flat():
    layer = LightningAttention(16, 4)
    state, sizes = None, set()
    with torch.no_grad():
        for _ in range(300):
            _, state = layer.step(torch.randn(1, 16), state)
            sizes.add((state.numel(), state.untyped_storage().nbytes()))
    assert sizes == {(4 * 4 * 4, 4 * 64)}


@given(st.integers(0, 100), st.sampled_from([1, 2, 4]), st.sampled_from([True, False, "tnl"]))
def test_heads_are_tensors(seed, heads, decay):
    torch.manual_seed(seed)
    layer = LightningAttention(4, heads, decay=decay, block_size=3, **POLYNOMIAL).double()
    assert layer.is_tensorizable
    x = torch.randn(2, 7, 4, dtype=F64)
    y = layer(x)
    total = sum(contraction(x, layer.tensor(h), layer.slopes[h].double()) for h in range(heads))
    assert (y - total).abs().max() <= 1e-12 * y.abs().max()
    ov, qk = layer.tensor(0, factors=True)
    assert torch.equal(layer.tensor(0), torch.einsum("ij,lm->ijlm", ov, qk))
    assert (layer(-x) + y).abs().max() < 1e-13
    assert (layer(2 * x) - 8 * y).abs().max() < 1e-12


def test_a_change_of_basis_of_queries_and_keys_leaves_the_tensor():
    layer = LightningAttention(4, 1, **POLYNOMIAL).double()
    before = layer.tensor(0)
    a = torch.randn(4, 4, dtype=F64)
    with torch.no_grad():
        layer.q_proj.weight.copy_(a @ layer.q_proj.weight)
        layer.k_proj.weight.copy_(torch.linalg.inv(a).T @ layer.k_proj.weight)
    assert (layer.tensor(0) - before).abs().max() < 1e-12


def test_vectors_of_one_head():
    with np.load(VECTORS, allow_pickle=False) as z:
        part = {n: torch.from_numpy(z[n]) for n in z.files if n.startswith("tn_")}
    slope = -part["tn_decay"].log()
    # Three rows, four wide: filled up with a row of zeros, which adds nothing.
    layer = LightningAttention(4, 1, decay=slope[None], **POLYNOMIAL).double()
    pad = nn.functional.pad
    with torch.no_grad():
        for name in "qkv":
            weight = getattr(layer, f"{name}_proj").weight
            weight.copy_(pad(part[f"tn_W{name}"], (0, 0, 0, 1)))
        layer.out_proj.weight.copy_(pad(part["tn_Wo"], (0, 1)))
    assert (layer.tensor(0) - part["tn_T"]).abs().max() < 1e-14
    assert (contraction(part["tn_x"], part["tn_T"], slope) - part["tn_y"]).abs().max() < 1e-12
    # The layer keeps its slope in float32: 3e-8 of the decay, over at most six steps.
    y = part["tn_y"]
    assert (layer(part["tn_x"]) - y).abs().max() < 2e-7 * y.abs().max()


@pytest.mark.parametrize(("dim", "heads", "laws"), [(2, 1, 7), (2, 2, 6)])
def test_what_training_conserves(dim, heads, laws):
    # Per head with a = dim/heads rows: QQᵀ − KKᵀ and VVᵀ − OᵀO, a(a+1)/2 each, and ‖Q‖² − ‖V‖².
    layer = LightningAttention(dim, heads, decay=False, **POLYNOMIAL)
    family = fields_from_model(
        layer, "any", lambda g: (torch.randn(6, 3, dim, generator=g), torch.zeros(6))
    )
    report = conservation_laws(family)
    assert (report.n_laws, report.complete) == (laws, True)


def test_slopes_stay_float32_and_out_of_the_state_dict():
    layer = LightningAttention(12, 12, dtype=F64)
    expected = alibi_slopes(12)
    for cast in (layer.half(), layer.double(), copy.deepcopy(layer).bfloat16()):
        assert cast.slopes.dtype == torch.float32 and torch.equal(cast.slopes, expected)
    assert not any("slopes" in name for name in layer.state_dict())
    other = LightningAttention(12, 12)
    other.load_state_dict(layer.float().state_dict())
    x = torch.randn(1, 4, 12)
    assert torch.equal(other(x), layer(x))
    low = layer.bfloat16()(x.bfloat16())
    assert low.dtype == torch.bfloat16 and low.isfinite().all()


def test_deeper_layers_decay_less():
    first, last = (LightningAttention(8, 4, layer_idx=i, num_layers=3) for i in (0, 2))
    assert torch.allclose(first.slopes, alibi_slopes(4) * (1 + 1e-5))
    assert torch.allclose(last.slopes, alibi_slopes(4) * 1e-5)
    tnl = LightningAttention(8, 4, layer_idx=2, num_layers=3, decay="tnl")
    assert torch.equal(tnl.slopes, tnl_slopes(4, 2, 3))
    assert LightningAttention(8, 4, decay=False).slopes.tolist() == [0] * 4


def test_gradients_reach_every_parameter():
    layer = LightningAttention(4, 2, norm="layer", bias=True).double()
    x = torch.randn(1, 5, 4, dtype=F64, requires_grad=True)
    layer(x).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in layer.parameters())
    assert torch.autograd.gradcheck(layer, [x])
    assert "4, 2, activation='silu', norm='layer'" in repr(layer)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_heads": 3}, "multiple of num_heads, got 4 and 3"),
        ({"activation": "relu"}, "'silu' or None"),
        ({"norm": "batch"}, "'srms', 'layer' or None"),
        ({"layer_idx": 1}, "from 0 to 0, got 1"),
        ({"block_size": 0}, "at least 1, got 0"),
        ({"decay": "fast"}, "got 'fast'"),
        ({"decay": torch.tensor([0.1, -1.0])}, r"\(2,\) slopes of at least 0"),
        ({"decay": torch.tensor([0.1])}, r"\(2,\) slopes of at least 0"),
    ],
)
def test_errors_say_what_was_expected(settings, message):
    with pytest.raises(ValueError, match=message):
        LightningAttention(**{"embed_dim": 4, "num_heads": 2, **settings})


def test_errors_of_a_layer():
    layer = LightningAttention(4, 2, bias=True)
    with pytest.raises(ValueError, match="because of its activation, norm, gate, bias"):
        layer.tensor(0)
    with pytest.raises(ValueError, match=r"expected x \(B, n, 4\)"):
        layer(torch.zeros(2, 3, 5))
    with pytest.raises(ValueError, match=r"expected x_t \(B, 4\)"):
        layer.step(torch.zeros(2, 3, 4))
    with pytest.raises(ValueError, match="initial_state must be"):
        layer(torch.zeros(2, 3, 4), torch.zeros(2, 2, 3, 3))
    with pytest.raises(IndexError, match="from 0 to 1, got 2"):
        LightningAttention(4, 2, **POLYNOMIAL).tensor(2)
