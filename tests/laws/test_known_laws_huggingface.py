import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from thalweg.laws import known_laws

IDS = torch.randint(11, (2, 5), generator=torch.Generator().manual_seed(0))
_QUIET = dict(bos_token_id=1, eos_token_id=2, pad_token_id=None)


def _gpt2(**options):
    torch.manual_seed(0)
    sizes = dict(n_embd=8, n_layer=2, n_head=2, vocab_size=11, n_positions=9)
    return GPT2LMHeadModel(GPT2Config(**sizes, **_QUIET, **options))


def _llama(**options):
    torch.manual_seed(0)
    sizes = dict(hidden_size=16, num_hidden_layers=2, num_attention_heads=4,
                 num_key_value_heads=2, vocab_size=11, intermediate_size=12)  # fmt: skip
    return LlamaForCausalLM(LlamaConfig(**sizes, **_QUIET, **options))


def _params(model):
    gen = torch.Generator().manual_seed(0)
    return {
        n: torch.randn(p.shape, generator=gen, dtype=torch.float64)
        for n, p in model.named_parameters()
    }


def _of(laws, start):
    return [law for law in laws if law.name.startswith(start)]


def _checked(model, **options):
    laws, blind = known_laws(model, IDS, **options), known_laws(model, **options)
    assert all(law.verified and law.defect < 1e-9 for law in laws)
    assert [law.formula for law in blind] == [law.formula for law in laws]
    assert not [n for n in laws.not_covered if "failed its check" in n.reason]
    return laws


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_gpt2_with_its_tied_head(attention):
    laws = _checked(model := _gpt2(attn_implementation=attention))
    p = _params(model)
    at = "transformer.h.1."
    w, b = p[at + "attn.c_attn.weight"], p[at + "attn.c_attn.bias"]  # Conv1D: inputs in rows
    q, k = w[:, 4:8], w[:, 12:16]
    closed = q.T @ q + torch.outer(b[4:8], b[4:8]) - k.T @ k
    law = _of(laws, f"query/key: {at}")[1]
    assert torch.allclose(law.fn(p), closed[tuple(torch.triu_indices(4, 4))])
    v, o = w[:, 16:20], p[at + "attn.c_proj.weight"][:4]
    closed = v.T @ v + torch.outer(b[16:20], b[16:20]) - o @ o.T
    law = _of(laws, f"value/output: {at}")[0]
    assert torch.allclose(law.fn(p), closed[tuple(torch.triu_indices(4, 4))])
    gain = _of(laws, f"gain: {at}ln_2")[0]
    closed = (
        p[at + "ln_2.weight"] ** 2 + p[at + "ln_2.bias"] ** 2
        - (p[at + "mlp.c_fc.weight"] ** 2).sum(1)
    )  # fmt: skip
    assert torch.allclose(gain.fn(p), closed)
    key = _of(laws, f"key bias: {at}")[0]
    assert torch.equal(key.fn(p), b[8:16])
    # Per block two heads of each kind, two gains, the key bias; the head is tied, dropout is on.
    assert len(laws) == 14 and "tied" in laws.not_covered[0].reason


def test_gpt2_untied_and_without_dropout_keeps_its_sums():
    laws = _checked(
        model := _gpt2(tie_word_embeddings=False, resid_pdrop=0.0, embd_pdrop=0.0),
        loss="cross-entropy",
    )
    p = _params(model)
    sums = {law.parameters[0]: law for law in _of(laws, "sums")}
    name = "transformer.h.0.mlp.c_proj.weight"
    assert torch.allclose(sums[name].fn(p), p[name].sum(1))  # over the stream, in columns here
    assert torch.allclose(sums["transformer.wpe.weight"].fn(p), p["transformer.wpe.weight"].sum(1))
    assert torch.allclose(sums["lm_head.weight"].fn(p), p["lm_head.weight"].sum(0))
    assert len(sums) == 11 and len(_of(laws, "scale")) == 1 and len(_of(laws, "gain")) == 5


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("bias", [False, True])
def test_llama(attention, bias):
    laws = _checked(model := _llama(attn_implementation=attention, attention_bias=bias))
    p = _params(model)
    at = "model.layers.0."
    size = {}
    for x in "qk":
        rows = (p[at + f"self_attn.{x}_proj.weight"] ** 2).sum(1)
        size[x] = rows + (p[at + f"self_attn.{x}_proj.bias"] ** 2 if bias else 0)
    # Groups of two query heads, heads of two rotary pairs (i, i + 2).
    q, k = size["q"].reshape(2, 2, 2, 2).sum((1, 2)), size["k"].reshape(2, 2, 2).sum(1)
    (law,) = _of(laws, f"query/key: {at}")
    assert torch.allclose(law.fn(p), (q - k).reshape(-1))
    (law,) = _of(laws, f"balance: {at}mlp")
    up, down = p[at + "mlp.up_proj.weight"], p[at + "mlp.down_proj.weight"]
    assert torch.allclose(law.fn(p), (down**2).sum(0) - (up**2).sum(1))
    gain = _of(laws, f"gain: {at}input")[0]
    reads = sum((p[at + f"self_attn.{x}_proj.weight"] ** 2).sum(0) for x in "qkv")
    assert torch.allclose(gain.fn(p), p[at + "input_layernorm.weight"] ** 2 - reads)
    # Per layer: rotary pairs, two groups of values, two gains, the feed-forward. Then the last
    # gain and the scale of the stream. RMSNorm sees shifts, so there are no sums.
    assert len(laws) == 2 * 6 + 2 and not laws.not_covered and not _of(laws, "key bias")
