import pytest
import torch
from torch import nn
from torch.nn import functional as F

from thalweg.laws import known_laws


def _params(model):
    gen = torch.Generator().manual_seed(0)
    return {
        n: torch.randn(p.shape, generator=gen, dtype=torch.float64)
        for n, p in model.named_parameters()
    }


def _of(laws, start):
    return [law for law in laws if law.name.startswith(start)]


def _upper(full):
    return full[tuple(torch.triu_indices(*full.shape))]


def _checked(model, sample, **options):
    """The laws, all of them verified, and the same without a sample."""
    laws, blind = known_laws(model, sample, **options), known_laws(model, **options)
    assert all(law.verified and law.defect < 1e-9 for law in laws)
    assert [(law.name, law.formula, law.form) for law in blind] == [
        (law.name, law.formula, law.form) for law in laws
    ]
    assert not [n for n in laws.not_covered if "failed its check" in n.reason]
    return laws


class Attention(nn.Module):
    """Causal attention by hand; heads, groups, rotary pairs and the way of splitting vary."""

    def __init__(self, width=8, heads=2, kv_heads=None, *, bias=True, fused=False, rope="",
                 sdpa=False):  # fmt: skip
        super().__init__()
        self.heads, self.kv, self.head = heads, kv_heads or heads, width // heads
        self.rope, self.sdpa, self.fused = rope, sdpa, fused
        sizes = [heads * self.head, self.kv * self.head, self.kv * self.head]
        self.sizes = sizes
        if fused:
            self.qkv = nn.Linear(width, sum(sizes), bias=bias)
        else:
            self.q, self.k, self.v = (nn.Linear(width, n, bias=bias) for n in sizes)
        self.o = nn.Linear(width, width, bias=bias)

    def forward(self, x):
        b, t, _ = x.shape
        q, k, v = (
            self.qkv(x).split(self.sizes, dim=-1)
            if self.fused
            else (self.q(x), self.k(x), self.v(x))
        )
        q = q.view(b, t, self.heads, self.head).transpose(1, 2)
        k, v = (y.view(b, t, self.kv, self.head).transpose(1, 2) for y in (k, v))
        if self.rope:
            q, k = self._turned(q), self._turned(k)
        if self.sdpa:
            mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        else:
            k, v = (y.repeat_interleave(self.heads // self.kv, dim=1) for y in (k, v))
            scores = (q @ k.transpose(-2, -1)) * self.head**-0.5
            mask = torch.ones(t, t, dtype=torch.bool).tril()
            mixed = scores.masked_fill(~mask, float("-inf")).softmax(-1) @ v
        return self.o(mixed.transpose(1, 2).reshape(b, t, -1))

    def _turned(self, y):
        half = self.head // 2
        angle = torch.arange(y.shape[2])[:, None] * 0.5 ** torch.arange(half) + 0.0
        if self.rope == "complex":
            pairs = torch.view_as_complex(y.unflatten(-1, (half, 2)))
            return torch.view_as_real(pairs * torch.polar(torch.ones_like(angle), angle)).flatten(3)
        cos, sin = (f(angle).repeat(1, 2) for f in (torch.cos, torch.sin))
        turned = torch.cat([-y[..., half:], y[..., :half]], -1)
        return y * cos + turned * sin


@pytest.mark.parametrize("sdpa", [False, True])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("fused", [False, True])
def test_softmax_attention_per_head(sdpa, bias, fused):
    model = Attention(bias=bias, fused=fused, sdpa=sdpa)
    laws = _checked(model, torch.randn(2, 5, 8))
    p = _params(model)
    low = {"q": 0, "k": 8, "v": 16} if fused else dict.fromkeys("qkv", 0)
    for h in range(2):
        at = {x: slice(low[x] + 4 * h, low[x] + 4 * h + 4) for x in "qkv"}
        w = {x: p["qkv.weight" if fused else f"{x}.weight"][at[x]] for x in "qkv"}
        o = p["o.weight"][:, 4 * h : 4 * h + 4]
        first, second = w["q"] @ w["q"].T - w["k"] @ w["k"].T, w["v"] @ w["v"].T - o.T @ o
        if bias:
            b = {x: p["qkv.bias" if fused else f"{x}.bias"][at[x]] for x in "qkv"}
            first, second = (
                first + torch.outer(b["q"], b["q"]),
                second + torch.outer(b["v"], b["v"]),
            )
        assert torch.allclose(_of(laws, "query/key")[h].fn(p), _upper(first))
        assert torch.allclose(_of(laws, "value/output")[h].fn(p), _upper(second))
    keys = _of(laws, "key bias")
    assert len(laws) == 4 + bias and len(keys) == bias
    if bias:
        both = p["qkv.bias"][8:16] if fused else p["k.bias"]
        assert torch.equal(keys[0].fn(p), both)


@pytest.mark.parametrize("sdpa", [False, True])
def test_grouped_queries_are_summed(sdpa):
    model = Attention(8, heads=4, kv_heads=2, bias=False, sdpa=sdpa)
    laws = _checked(model, torch.randn(2, 5, 8))
    p = _params(model)
    for g in range(2):
        k, v = (p[f"{x}.weight"][2 * g : 2 * g + 2] for x in "kv")
        first, second = -k @ k.T, v @ v.T
        for h in (2 * g, 2 * g + 1):
            q, o = p["q.weight"][2 * h : 2 * h + 2], p["o.weight"][:, 2 * h : 2 * h + 2]
            first, second = first + q @ q.T, second - o.T @ o
        assert torch.allclose(_of(laws, "query/key")[g].fn(p), _upper(first))
        assert torch.allclose(_of(laws, "value/output")[g].fn(p), _upper(second))


@pytest.mark.parametrize(("axis", "keys"), [(-1, 1), (-2, 0)])
def test_attention_by_einsum(axis, keys):
    class Sums(Attention):
        def forward(self, x):
            q, k, v = (f(x).unflatten(-1, (2, 4)) for f in (self.q, self.k, self.v))
            weights = torch.einsum("bihd,bjhd->bhij", q, k).softmax(axis)
            return self.o(torch.einsum("bhij,bjhd->bihd", weights, v).flatten(2))

    laws = _checked(Sums(), torch.randn(2, 5, 8))
    assert [law.form for law in laws[:4]] == ["gram"] * 4
    # A key bias shifts scores of a query alike: unseen by a softmax over keys, not over queries.
    assert len(_of(laws, "key bias")) == keys and len(laws) == 4 + keys


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("rope", ["halves", "complex"])
def test_rotary_pairs(rope, bias):
    model = Attention(bias=bias, rope=rope)
    laws = _checked(model, torch.randn(2, 5, 8))
    p = _params(model)
    (law,) = _of(laws, "query/key")
    size = {x: (p[f"{x}.weight"] ** 2).sum(1) for x in "qk"}
    if bias:
        size = {x: s + p[f"{x}.bias"] ** 2 for x, s in size.items()}
    pairs = (size["q"] - size["k"]).reshape(2, 2, 2)  # head, then halves or pairs
    closed = pairs.sum(1) if rope == "halves" else pairs.sum(2)
    assert law.form == "rows" and torch.allclose(law.fn(p), closed.reshape(-1))
    assert not _of(laws, "key bias")  # a rotated key bias does shift scores unequally
    assert [law.form for law in _of(laws, "value/output")] == ["gram", "gram"]


def test_normalised_queries_and_keys_balance_their_gains():
    class Normed(Attention):
        def __init__(self):
            super().__init__(bias=False)
            self.qn, self.kn = nn.RMSNorm(4), nn.RMSNorm(4)

        def forward(self, x):
            b, t, _ = x.shape
            q, k, v = (f(x).view(b, t, 2, 4).transpose(1, 2) for f in (self.q, self.k, self.v))
            scores = self.qn(q) @ self.kn(k).transpose(-2, -1)
            return self.o((scores.softmax(-1) @ v).transpose(1, 2).reshape(b, t, -1))

    laws = _checked(model := Normed(), torch.randn(2, 5, 8))
    p = _params(model)
    (gains,) = (law for law in laws if "qn.weight" in law.parameters)
    assert torch.allclose(gains.fn(p), p["qn.weight"] ** 2 - p["kn.weight"] ** 2)
    scales = [law for law in laws if "eps" in law.note]
    # One per head and projection: RMSNorm does not see the length of a head's query.
    assert sorted(law.count(p) for law in scales) == [2, 2]


def test_a_learnt_position_bias_of_scores_is_not_claimed():
    class Biased(Attention):
        def __init__(self):
            super().__init__(bias=False)
            self.table = nn.Parameter(torch.randn(5, 5))

        def forward(self, x):
            q, k, v = self.q(x), self.k(x), self.v(x)
            return self.o(F.scaled_dot_product_attention(q, k, v, attn_mask=self.table))

    laws = known_laws(Biased(), torch.randn(2, 5, 8))
    assert len(laws) == 2 and not any("table" in law.parameters for law in laws)
    assert not laws.not_covered


@pytest.mark.parametrize("separate", [False, True])
def test_multihead_attention_across_two_streams(separate):
    sizes = dict(kdim=6, vdim=5) if separate else {}
    model = nn.MultiheadAttention(8, 2, batch_first=True, **sizes)
    k, v = (torch.randn(2, 5, n) for n in ((6, 5) if separate else (8, 8)))
    laws = known_laws(model, (torch.randn(2, 3, 8), k, v))
    p = _params(model)
    w = [p[f"{x}_proj_weight"] for x in "qkv"] if separate else list(p["in_proj_weight"].split(8))
    b = p["in_proj_bias"].split(8)
    q, k = w[0][:4], w[1][:4]
    closed = q @ q.T + torch.outer(b[0][:4], b[0][:4]) - k @ k.T
    assert torch.allclose(_of(laws, "query/key")[0].fn(p), _upper(closed))
    assert len(laws) == 5 and all(law.verified for law in laws) and not laws.not_covered


@pytest.mark.parametrize("activation", ["relu", "gelu"])
@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_encoder_layers_of_torch(activation, first, dropout):
    model = nn.TransformerEncoderLayer(
        8, 2, 12, dropout, activation, norm_first=first, batch_first=True
    )
    laws = _checked(model, torch.randn(3, 4, 8))
    p = _params(model)
    assert [law.count(p) for law in _of(laws, "query/key") + _of(laws, "value/output")] == [10] * 4
    assert len(_of(laws, "key bias")) == 1
    balance = _of(laws, "balance")
    if activation == "relu":
        closed = (
            (p["linear2.weight"] ** 2).sum(0) - (p["linear1.weight"] ** 2).sum(1)
            - p["linear1.bias"] ** 2
        )  # fmt: skip
        assert torch.allclose(balance[0].fn(p), closed)
    else:
        assert not balance
    gains = _of(laws, "gain")
    if first:
        closed = [
            p[f"{n}.weight"] ** 2 + p[f"{n}.bias"] ** 2 - (p[w] ** 2).sum(0)
            for n, w in (("norm1", "self_attn.in_proj_weight"), ("norm2", "linear1.weight"))
        ]
        assert torch.allclose(torch.cat([law.fn(p) for law in gains]), torch.cat(closed))
    else:
        assert not gains  # the stream after a norm is read by a skip as well
        # The sums into a norm that comes last are not seen, unless dropout masks them.
        seen = {law.parameters[0] for law in _of(laws, "sums")}
        wanted = {"self_attn.out_proj.weight", "self_attn.out_proj.bias", "linear2.weight",
                  "linear2.bias"}  # fmt: skip
        assert seen == (set() if dropout else wanted)


def test_a_stack_of_encoder_layers():
    layer = nn.TransformerEncoderLayer(8, 2, 12, norm_first=True, batch_first=True)
    model = nn.TransformerEncoder(layer, 2, nn.LayerNorm(8), enable_nested_tensor=False)
    laws = _checked(model, torch.randn(3, 4, 8))
    assert len(_of(laws, "query/key")) == 4 and len(_of(laws, "gain")) == 4


class Block(nn.Module):
    def __init__(self, dropout):
        super().__init__()
        self.ln1, self.ln2 = nn.LayerNorm(8), nn.LayerNorm(8)
        self.attn = Attention(fused=True)
        self.mlp = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 8), nn.Dropout(dropout))

    def forward(self, x):
        x = x + self.attn(self.ln1(x))
        return x + self.mlp(self.ln2(x))


class GPT(nn.Module):
    def __init__(self, tied=False, dropout=0.0):
        super().__init__()
        self.tok, self.pos = nn.Embedding(11, 8), nn.Parameter(torch.randn(7, 8))
        self.blocks = nn.ModuleList([Block(dropout) for _ in range(2)])
        self.norm, self.head = nn.LayerNorm(8), nn.Linear(8, 11, bias=False)
        if tied:
            self.head.weight = self.tok.weight

    def forward(self, ids):
        x = self.tok(ids) + self.pos[: ids.shape[1]]
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


IDS = torch.randint(11, (2, 5), generator=torch.Generator().manual_seed(0))
_WRITERS = ("attn.o.weight", "attn.o.bias", "mlp.2.weight", "mlp.2.bias")


def test_a_gpt_by_hand():
    laws = _checked(model := GPT(), IDS)
    p = _params(model)
    sums = {law.parameters[0]: law for law in _of(laws, "sums")}
    writers = {f"blocks.{i}.{n}" for i in range(2) for n in _WRITERS}
    assert set(sums) == writers | {"tok.weight", "pos"}
    assert torch.allclose(sums["tok.weight"].fn(p), p["tok.weight"].sum(1))
    assert torch.allclose(sums["pos"].fn(p), p["pos"].sum(1))
    up = "blocks.0.mlp.2.weight"
    assert torch.allclose(sums[up].fn(p), p[up].sum(0))
    # All that writes to the stream can be scaled at once.
    (scale,) = _of(laws, "scale")
    whole = sum((p[n] ** 2).sum() for n in sums)
    assert torch.allclose(scale.fn(p), whole.reshape(1)) and "eps" in scale.note
    assert len(_of(laws, "gain")) == 5 and len(_of(laws, "key bias")) == 2
    # The head's sums hold under cross-entropy only.
    extra = _checked(model, IDS, loss="cross-entropy")
    assert {law.parameters for law in extra} - {law.parameters for law in laws} == {
        ("head.weight",)
    }


def test_tied_embeddings_break_what_touches_them_and_no_more():
    laws = _checked(GPT(tied=True), IDS)
    assert not any("tok.weight" in law.parameters for law in laws)
    assert not _of(laws, "scale") and len(_of(laws, "gain")) == 4
    assert {"pos", "blocks.0.attn.o.weight"} <= {law.parameters[0] for law in _of(laws, "sums")}
    assert ["tied" in n.reason for n in laws.not_covered] == [True]


def test_dropout_on_the_stream_breaks_the_sums_behind_it():
    laws = _checked(GPT(dropout=0.1), IDS)
    seen = {law.parameters[0] for law in _of(laws, "sums")}
    assert "blocks.0.attn.o.weight" in seen and "blocks.0.mlp.2.weight" not in seen
    assert len(_of(laws, "scale")) == 1  # a mask commutes with scaling
