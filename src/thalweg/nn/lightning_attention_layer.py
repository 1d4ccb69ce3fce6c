"""Self-attention made of ``lightning_attention``: linear in the length, one small state to decode.

Without activation, norm, gate and bias the layer is a polynomial of degree three in its input, and
each head one tensor: read-out times query–key matrix.

Source: Z. Qin et al. 2024, arXiv 2401.04658, with the layer of the official code; Z. Qin et al.
2023, arXiv 2307.14995, for the norm without weight. The tensor form is not in the papers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from thalweg.nn.lightning_attention import alibi_slopes, lightning_attention, tnl_slopes

__all__ = ["LightningAttention"]

Decay = bool | Literal["alibi", "tnl"] | Tensor


class LightningAttention(nn.Module):
    """Causal self-attention without softmax, (B, n, m) to (B, n, m).

        y = W_o (norm(attention(f(W_q x), f(W_k x), f(W_v x))) ⊙ sigmoid(W_2 W_1 x)),  f = SiLU

    Args:
        embed_dim: m, divisible by ``num_heads``.
        num_heads: H.
        layer_idx: ℓ, from 0: deeper layers decay less.
        num_layers: L.
        activation: f, ``silu`` or None.
        norm: ``srms`` (root mean square, no weight) or ``layer``, over all of m; None for none.
            It stands in for the normaliser of attention: without it and with little decay, outputs
            grow with the length.
        gate: whether the output is gated.
        bias: of all linear maps.
        decay: True or ``alibi``: the ALiBi slopes times 1 − ℓ/(L−1) + 1e-5 (times 1 if L is 1);
            ``tnl``: ``tnl_slopes``; a tensor (H,) of slopes; False for none.
        block_size: tokens in a block; changes the speed only.
        device: of the parameters.
        dtype: of the parameters.

    Attributes:
        slopes: (H,) float32 buffer, not saved, and float32 whatever the module is cast to.

    Raises:
        ValueError: for settings out of range, and in the forward pass for shapes that do not fit.

    Source:
        Qin et al. 2024, arXiv 2401.04658; entry lightning-attention.

    Example:
        >>> layer = LightningAttention(8, 2)
        >>> x = torch.randn(1, 5, 8)
        >>> y, state = layer.step(x[:, 0])
        >>> torch.allclose(y, layer(x)[:, 0], atol=1e-6), state.shape
        (True, torch.Size([1, 2, 4, 4]))
    """

    slopes: Tensor

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        *,
        layer_idx: int = 0,
        num_layers: int = 1,
        activation: Literal["silu"] | None = "silu",
        norm: Literal["srms", "layer"] | None = "srms",
        gate: bool = True,
        bias: bool = False,
        decay: Decay = True,
        block_size: int = 128,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if num_heads < 1 or embed_dim < 1 or embed_dim % num_heads:
            raise ValueError(
                f"embed_dim must be a positive multiple of num_heads, got {embed_dim} and "
                f"{num_heads}"
            )
        if activation not in ("silu", None):
            raise ValueError(f"activation must be 'silu' or None, got {activation!r}")
        if norm not in ("srms", "layer", None):
            raise ValueError(f"norm must be 'srms', 'layer' or None, got {norm!r}")
        if not 0 <= layer_idx < num_layers:
            raise ValueError(f"layer_idx must be from 0 to {num_layers - 1}, got {layer_idx}")
        if block_size < 1:
            raise ValueError(f"block_size must be at least 1, got {block_size}")
        self.embed_dim, self.num_heads, self.block_size = embed_dim, num_heads, block_size
        self.activation, self.norm_kind = activation, norm
        self._exact_slopes = _slopes(decay, num_heads, layer_idx, num_layers)
        self.register_buffer("slopes", self._exact_slopes.to(device), persistent=False)
        kw: dict[str, Any] = {"bias": bias, "device": device, "dtype": dtype}
        self.q_proj = nn.Linear(embed_dim, embed_dim, **kw)
        self.k_proj = nn.Linear(embed_dim, embed_dim, **kw)
        self.v_proj = nn.Linear(embed_dim, embed_dim, **kw)
        self.out_proj = nn.Linear(embed_dim, embed_dim, **kw)
        self.norm = nn.LayerNorm(embed_dim, device=device, dtype=dtype) if norm == "layer" else None
        self.gate = None
        if gate:
            head_dim = embed_dim // num_heads
            self.gate = nn.Sequential(
                nn.Linear(embed_dim, head_dim, **kw), nn.Linear(head_dim, embed_dim, **kw)
            )

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> LightningAttention:
        super()._apply(fn, recurse)
        # A slope of 1/256 decays over thousands of steps: half precision would change how far.
        self.slopes = self._exact_slopes.to(self.slopes.device)
        return self

    def forward(self, x: Tensor, state: Tensor | None = None, *, return_state: bool = False) -> Any:
        """(B, n, m) to (B, n, m), all positions at once.

        Args:
            x: (B, n, m).
            state: (B, H, d, d) of the positions before; None at the start.
            return_state: whether the state is wanted though none was given.

        Returns:
            y (B, n, m); with a state given, or ``return_state``, a pair with the next state.

        Raises:
            ValueError: if x is not (B, n, m) or the state not (B, H, d, d).
        """
        if x.ndim != 3 or x.shape[-1] != self.embed_dim:
            raise ValueError(f"expected x (B, n, {self.embed_dim}), got {tuple(x.shape)}")
        q, k, v = (self._heads(p(x)) for p in (self.q_proj, self.k_proj, self.v_proj))
        out, after = lightning_attention(
            q,
            k,
            v,
            self.slopes,
            block_size=self.block_size,
            initial_state=state,
            return_state=True,
        )
        y = out.transpose(1, 2).flatten(2)
        if self.norm_kind == "srms":
            y = functional.rms_norm(y, (self.embed_dim,), eps=1e-6)
        elif self.norm is not None:
            y = self.norm(y)
        if self.gate is not None:
            y = y * torch.sigmoid(self.gate(x))
        y = self.out_proj(y)
        return (y, after) if return_state or state is not None else y

    def step(self, x_t: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """One position in time and memory that do not depend on how many came before.

        Args:
            x_t: (B, m).
            state: (B, H, d, d) from the step before; None at the first.

        Returns:
            y_t (B, m) and the next state.

        Raises:
            ValueError: if x_t is not (B, m).
        """
        if x_t.ndim != 2:
            raise ValueError(f"expected x_t (B, {self.embed_dim}), got {tuple(x_t.shape)}")
        y, after = self.forward(x_t[:, None], state, return_state=True)
        return y[:, 0], after

    @property
    def is_tensorizable(self) -> bool:
        """Whether the layer is a polynomial: no activation, norm, gate or bias."""
        return not self._in_the_way()

    def tensor(self, head: int, *, factors: bool = False) -> Any:
        """What a head computes, as one tensor or as its two factors.

            y_ti = Σ_{r≤t} λ^{t−r} Σ_jlm T_ijlm x_rj x_tl x_rm
            T_ijlm = (W_o W_v)_ij (W_qᵀ W_k)_lm

        Outputs of the heads add. ⟨T, T'⟩ = tr(OVᵀOV') tr(QKᵀQK') compares two heads without data.

        Args:
            head: from 0.
            factors: OV (m, m) and QK (m, m) instead of their product.

        Returns:
            (m, m, m, m), indexed output, value input, query input, key input; or (OV, QK).

        Raises:
            ValueError: if the layer has a nonlinearity or bias, which the message names.
            IndexError: if there is no such head.
        """
        if self._in_the_way():
            raise ValueError(
                f"this layer is no tensor because of its {', '.join(self._in_the_way())}: make it "
                "with activation=None, norm=None, gate=False, bias=False"
            )
        if not 0 <= head < self.num_heads:
            raise IndexError(f"head must be from 0 to {self.num_heads - 1}, got {head}")
        size = self.embed_dim // self.num_heads
        rows = slice(head * size, (head + 1) * size)
        ov = self.out_proj.weight[:, rows] @ self.v_proj.weight[rows]
        qk = self.q_proj.weight[rows].T @ self.k_proj.weight[rows]
        return (ov, qk) if factors else torch.einsum("ij,lm->ijlm", ov, qk)

    def extra_repr(self) -> str:
        """Settings."""
        return (
            f"{self.embed_dim}, {self.num_heads}, activation={self.activation!r}, "
            f"norm={self.norm_kind!r}, block_size={self.block_size}"
        )

    def _heads(self, x: Tensor) -> Tensor:
        x = functional.silu(x) if self.activation == "silu" else x
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)

    def _in_the_way(self) -> list[str]:
        there = {
            "activation": self.activation is not None,
            "norm": self.norm_kind is not None,
            "gate": self.gate is not None,
            "bias": self.q_proj.bias is not None,
        }
        return [name for name, is_there in there.items() if is_there]


def _slopes(decay: Decay, num_heads: int, layer_idx: int, num_layers: int) -> Tensor:
    """(H,) float32 on the CPU."""
    if isinstance(decay, Tensor):
        slopes = decay.detach().to("cpu", torch.float32).clone()
        if slopes.shape != (num_heads,) or not (slopes >= 0).all():
            raise ValueError(
                f"decay must be ({num_heads},) slopes of at least 0, got {slopes.tolist()}: the "
                "decay of a step is exp(−slope)"
            )
        return slopes
    if decay is False:
        return torch.zeros(num_heads)
    if decay == "tnl":
        return tnl_slopes(num_heads, layer_idx, num_layers, device="cpu")
    if decay is True or decay == "alibi":
        depth = 1 - layer_idx / (num_layers - 1) + 1e-5 if num_layers > 1 else 1.0
        return alibi_slopes(num_heads, device="cpu") * depth
    raise ValueError(f"decay must be True, False, 'alibi', 'tnl' or slopes, got {decay!r}")
