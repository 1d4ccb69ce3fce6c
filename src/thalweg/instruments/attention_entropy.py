"""How concentrated attention is.

Source: Y. Xu 2026, arXiv 2602.10496. Axes: `…` batch and heads, `q` queries, `t` keys.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["attention_entropy", "truncated_attention"]

EPS = 1e-9  # the source's, in the logarithm


def attention_entropy(attn: Tensor, query: int = -1) -> Tensor:
    """H = −Σ_j A_ij log(A_ij + 1e-9) at one query, mean over batch and heads, 0-d.

    log t for uniform attention over t keys, 0 for one key.

    Args:
        attn: (…, q, t) attention weights; rows sum to 1.
        query: i; the last by default.

    Raises:
        ValueError: if rows are not distributions, or the query is not there.

    Example:
        >>> import torch
        >>> attention_entropy(torch.full((1, 4, 4), 0.25))
        tensor(1.3863)
    """
    attn = _rows(attn)
    if not -attn.shape[-2] <= query < attn.shape[-2]:
        raise ValueError(
            f"attention_entropy: there are {attn.shape[-2]} queries, got query {query}"
        )
    row = attn[..., query, :]
    return -(row * (row + EPS).log()).sum(-1).mean()


def truncated_attention(attn: Tensor, k: int) -> Tensor:
    """Every row with only its k largest weights, made to sum to 1 again.

    Args:
        attn: (…, q, t).
        k: 1 ≤ k ≤ t.

    Raises:
        ValueError: if rows are not distributions or k is out of range.
    """
    attn = _rows(attn)
    if not 1 <= k <= attn.shape[-1]:
        raise ValueError(f"truncated_attention: need 1 <= k <= {attn.shape[-1]}, got {k}")
    top = attn.topk(k, dim=-1)
    kept = torch.zeros_like(attn).scatter(-1, top.indices, top.values)
    return kept / kept.sum(-1, keepdim=True)


def _rows(attn: Tensor) -> Tensor:
    if attn.ndim < 2 or not attn.is_floating_point():
        raise ValueError(
            f"expected attention weights (…, q, t), got {tuple(attn.shape)}, {attn.dtype}"
        )
    sums = attn.detach().double().sum(-1)
    if not bool(((sums - 1).abs() < 1e-2).all()) or bool((attn < 0).any()):
        raise ValueError("expected rows of attention weights that sum to 1; apply softmax first")
    return attn
