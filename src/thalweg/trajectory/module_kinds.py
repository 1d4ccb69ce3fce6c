"""Which part of a network a tensor belongs to, by its name, and how fused parts come apart.

Source: the names that ``torch.nn`` and the families of Hugging Face Transformers use, 2024–2026.
"""

from __future__ import annotations

import re

from torch import Tensor

__all__ = ["KINDS", "kind_of", "layer_of", "parts_of", "plain_name"]

#: In the order in which they are shown.
KINDS = ("q", "k", "v", "o", "gate", "up", "down", "embed", "head", "norm", "else")
#: Patterns of the dotted name, the first that is found counts.
PATTERNS = (
    ("norm", r"norm|(^|[._])ln(_|\.|\d|$)"),
    ("q", r"(^|\.)(q_proj|query|wq|q_lin|to_q|q)(\.|$)"),
    ("k", r"(^|\.)(k_proj|key|wk|k_lin|to_k|k)(\.|$)"),
    ("v", r"(^|\.)(v_proj|value|wv|v_lin|to_v|v)(\.|$)"),
    (
        "o",
        r"o_proj|out_proj|out_lin|(^|\.)wo(\.|$)|attn\.c_proj|att\w*(\.output)?\.dense",
    ),
    ("gate", r"gate_proj|(^|\.)w1(\.|$)"),
    ("down", r"down_proj|(^|\.)w2(\.|$)|fc2|linear2|mlp\.c_proj|4h_to_h|output\.dense|lin2"),
    ("up", r"up_proj|(^|\.)w3(\.|$)|fc1|linear1|c_fc|h_to_4h|intermediate\.dense|lin1"),
    ("embed", r"embed|(^|\.)(wte|wpe)(\.|$)"),
    ("head", r"(^|\.)(\w*head|classifier|score|output)\.(weight|bias)$"),
)
FUSED_QKV = re.compile(r"(qkv_proj|c_attn|in_proj|Wqkv|(^|[._])qkv)(_|\.|$)")
FUSED_GATE_UP = re.compile(r"gate_up_proj")


def plain_name(name: str) -> str:
    """A name without what wrappers put before it.

    Example:
        >>> plain_name("module._orig_mod.layers.0.weight")
        'layers.0.weight'
    """
    return re.sub(r"^((module|_orig_mod|_fsdp_wrapped_module)\.)+", "", name)


def kind_of(name: str) -> str:
    """The kind of module, one of ``KINDS``.

    Example:
        >>> kind_of("model.layers.3.self_attn.q_proj.weight"), kind_of("0.weight")
        ('q', 'else')
    """
    return next((kind for kind, pattern in PATTERNS if re.search(pattern, name.lower())), "else")


def layer_of(name: str) -> int | None:
    """The first number in a dotted name.

    Example:
        >>> layer_of("model.layers.3.mlp.up_proj.weight"), layer_of("lm_head.weight")
        (3, None)
    """
    return next((int(part) for part in name.split(".") if part.isdigit()), None)


def parts_of(name: str, W: Tensor) -> dict[str, Tensor]:
    """Kind → rows of a fused projection; one kind and the whole tensor for all others.

    Queries come first, as many rows as inputs; keys and values share the rest. A projection whose
    heads are interleaved (``query_key_value``) stays whole, as does one without that many rows.

    Args:
        name: of the tensor.
        W: (out, in), or (in, out) where the name is GPT-2's ``c_attn``.
    """
    if W.ndim == 2 and FUSED_GATE_UP.search(name) and W.shape[0] % 2 == 0:
        return dict(zip(("gate", "up"), W.chunk(2), strict=True))
    if W.ndim == 2 and FUSED_QKV.search(name):
        turned = "c_attn" in name and W.shape[1] > W.shape[0]
        rows = W.T if turned else W
        dim, rest = rows.shape[1], rows.shape[0] - rows.shape[1]
        if rest > 0 and rest % 2 == 0:
            parts = rows.split([dim, rest // 2, rest // 2])
            return dict(zip(("q", "k", "v"), parts, strict=True))
    return {kind_of(name): W}
