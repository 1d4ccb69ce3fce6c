import pytest
import torch

from thalweg.trajectory.module_kinds import kind_of, layer_of, parts_of, plain_name


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("model.layers.0.self_attn.q_proj.weight", "q"),
        ("model.layers.0.self_attn.q_norm.weight", "norm"),
        ("model.layers.10.self_attn.k_proj.bias", "k"),
        ("model.layers.0.self_attn.v_proj.weight", "v"),
        ("model.layers.0.self_attn.o_proj.weight", "o"),
        ("transformer.h.3.attn.c_proj.weight", "o"),
        ("transformer.h.3.mlp.c_proj.weight", "down"),
        ("transformer.h.3.mlp.c_fc.weight", "up"),
        ("transformer.h.3.ln_1.weight", "norm"),
        ("transformer.wte.weight", "embed"),
        ("model.embed_tokens.weight", "embed"),
        ("model.layers.0.mlp.gate_proj.weight", "gate"),
        ("model.layers.0.mlp.up_proj.weight", "up"),
        ("model.layers.0.mlp.down_proj.weight", "down"),
        ("bert.encoder.layer.1.attention.self.query.weight", "q"),
        ("bert.encoder.layer.1.attention.output.dense.weight", "o"),
        ("bert.encoder.layer.1.attention.output.LayerNorm.weight", "norm"),
        ("bert.encoder.layer.1.intermediate.dense.weight", "up"),
        ("bert.encoder.layer.1.output.dense.weight", "down"),
        ("lm_head.weight", "head"),
        ("model.norm.weight", "norm"),
        ("gpt_neox.layers.0.attention.query_key_value.weight", "else"),
        ("0.weight", "else"),
    ],
)
def test_kinds(name, kind):
    assert kind_of(name) == kind


def test_layers_and_prefixes():
    assert layer_of("model.layers.12.mlp.up_proj.weight") == 12
    assert layer_of("lm_head.weight") is None
    assert plain_name("module.module._orig_mod.a.module.b") == "a.module.b"


def test_fused_projections_come_apart():
    W = torch.arange(12.0 * 4).reshape(12, 4)
    parts = parts_of("attn.in_proj_weight", W)
    assert list(parts) == ["q", "k", "v"]
    assert torch.equal(torch.cat(list(parts.values())), W)
    grouped = parts_of("layers.0.self_attn.qkv_proj.weight", W[:8])
    assert [len(p) for p in grouped.values()] == [4, 2, 2]
    turned = parts_of("h.0.attn.c_attn.weight", W.T)
    assert torch.equal(turned["k"], W[4:8])
    assert [len(p) for p in parts_of("mlp.gate_up_proj.weight", W).values()] == [6, 6]


def test_what_cannot_be_split_stays_whole():
    W = torch.zeros(12, 4)
    assert list(parts_of("attention.query_key_value.weight", W)) == ["else"]
    assert list(parts_of("attn.in_proj_bias", W[:, 0])) == ["else"]
    assert list(parts_of("qkv_proj.weight", W[:4])) == ["else"]
