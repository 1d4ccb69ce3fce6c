"""Causal linear attention with a fixed decay per head, exact and linear in the length.

    o_t = Σ_{r≤t} λ^{t−r} (q_t·k_r) v_r,   λ = exp(−slope)

No softmax and no normaliser. A masked product inside each block of tokens, one d×e state between
blocks; the gradients are sums of the same form, so one sweep, forward or backward in time, gives
values and derivatives of every order without keeping more than q, k and v.

Source: Z. Qin, W. Sun, D. Li, X. Shen, W. Sun, Y. Zhong 2024, arXiv 2401.04658 (Lightning
Attention-2); slopes of Z. Qin et al. 2023, arXiv 2307.14995. Departures: any head width, length and
block size; half precision is summed in float32.
"""

from __future__ import annotations

import math
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

__all__ = ["alibi_slopes", "lightning_attention", "tnl_slopes"]


def lightning_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    slope: Tensor | None = None,
    *,
    scale: float = 1.0,
    block_size: int = 128,
    initial_state: Tensor | None = None,
    return_state: bool = False,
) -> Any:
    """Causal linear attention with decay; heads come before positions, (B, H, n, d).

        o_t = scale · (λ^t S_0ᵀ q_t + Σ_{r≤t} λ^{t−r} (q_t·k_r) v_r),   λ = exp(−slope)

    There is no 1/√d unless asked for by ``scale``, and no padding mask: set k and v of padded
    positions to zero. Differentiable to any order, in a learnt ``slope`` too.

    Args:
        q: (B, H, n, d). Libraries that have positions before heads: transpose first.
        k: (B, H, n, d).
        v: (B, H, n, e).
        slope: (H,) or (H, 1, 1), at least 0; None for no decay.
        scale: factor of the scores.
        block_size: tokens in a block. Changes the speed only.
        initial_state: (B, H, d, e) S_0, Σ k vᵀ of what came before; None for none.
        return_state: whether the state after the last token is wanted too.

    Returns:
        (B, H, n, e) in the dtype of q; with ``return_state`` a pair with the state, (B, H, d, e),
        which is float32 for half precision.

    Raises:
        ValueError: for shapes or dtypes that do not fit, a negative slope (looked at on the CPU
            only, where it costs no wait) or a block size below 1.

    Cost:
        n·H·(block_size·(d + e) + 2de) multiplications, memory linear in n.

    Source:
        Qin et al. 2024, arXiv 2401.04658; entry lightning-attention.

    Example:
        With q = k = v = 1 and λ = ½ the output is 1, 1 + ½, 1 + ½ + ¼, …:

        >>> one = torch.ones(1, 1, 4, 1)
        >>> lightning_attention(one, one, one, torch.tensor([math.log(2)])).flatten()
        tensor([1.0000, 1.5000, 1.7500, 1.8750])
    """
    _check(q, k, v, initial_state, block_size)
    slope = _checked_slope(slope, q)
    wide = torch.float64 if q.dtype == torch.float64 else torch.float32
    batch, heads, n, d = q.shape
    if initial_state is None:
        state = torch.zeros(batch, heads, d, v.shape[-1], dtype=wide, device=q.device)
    else:
        state = initial_state.to(wide)
    if n == 0:
        out = torch.empty_like(v)
    else:
        scaled = q if scale == 1.0 else q * scale
        out, state = _attend(scaled, k, v, state, slope, block_size, False)
    return (out, state) if return_state else out


def sweep(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    state: Tensor,
    slope: Tensor,
    block_size: int,
    reverse: bool,
) -> tuple[Tensor, Tensor]:
    """Attention to the past, or to the future with the weights of its adjoint.

      forward: o_t = Σ_{r≤t} λ^{t−r} (q_t·k_r) v_r + λ^t Sᵀq_t,     S' = λ^n S + Σ λ^{n−r} k_r v_rᵀ
      reverse: o_r = Σ_{t≥r} λ^{t−r} (q_r·k_t) v_t + λ^{n−r} Sᵀq_r, S' = λ^n S + Σ λ^t k_t v_tᵀ

    q, k (B, H, n, d) with n > 0, v (B, H, n, e), S (B, H, d, e) in the dtype of the sums, slope
    (H,); gives o (B, H, n, e) and the next S.
    """
    batch, heads, n, _ = q.shape
    size, wide = min(block_size, n), state.dtype
    # Only powers λ^m with m ≥ 0 are formed, λ^{−m} overflows; a slope of ∞ would make 0·∞ of λ⁰.
    s = torch.nan_to_num(slope.to(wide), nan=math.nan).repeat(batch)[:, None, None]
    steps = torch.arange(1, size + 1, dtype=wide, device=q.device)
    since_start = torch.exp(-s * steps[:, None])
    until_end = torch.exp(-s * (size - steps)[:, None])
    mask = torch.exp(-s * (steps[:, None] - steps).tril()).tril()
    if reverse:
        mask = mask.mT
    blocks = list(zip(*(x.flatten(0, 1).split(size, 1) for x in (q, k, v)), strict=True))
    carry, out = state.flatten(0, 1), []
    with _full_precision(q.device.type):
        for block in reversed(blocks) if reverse else blocks:
            q_i, k_i, v_i = (x.to(wide) for x in block)
            m = q_i.shape[1]  # the last block may be short
            read, write = since_start[:, :m], until_end[:, size - m :]
            if reverse:
                read, write = write, read
            scores = torch.bmm(q_i, k_i.mT) * mask[:, :m, :m]
            o_i = torch.baddbmm(torch.bmm(scores, v_i), read * q_i, carry)
            out.append(o_i.to(q.dtype))
            carry = torch.baddbmm(torch.exp(-s * m) * carry, (write * k_i).mT, v_i)
    o = torch.cat(out[::-1] if reverse else out, 1)
    return o.unflatten(0, (batch, heads)), carry.unflatten(0, (batch, heads))


class _Sweep(torch.autograd.Function):
    """``sweep`` with derivatives that are sweeps: every order keeps only q, k, v and the state."""

    @staticmethod
    def forward(
        q: Tensor,
        k: Tensor,
        v: Tensor,
        state: Tensor,
        slope: Tensor,
        block_size: int,
        reverse: bool,
    ) -> tuple[Tensor, Tensor]:
        return sweep(q, k, v, state, slope, block_size, reverse)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        *tensors, ctx.block_size, ctx.reverse = inputs
        ctx.save_for_backward(*tensors)
        ctx.save_for_forward(*tensors)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Any, ...]:
        do, dstate = grads
        q, k, v, state, slope = ctx.saved_tensors
        same, other = ctx.reverse, not ctx.reverse
        dq = dk = dv = dstart = None
        if ctx.needs_input_grad[0]:
            dq, _ = _attend(do, v, k, state.mT, slope, ctx.block_size, same)
        if ctx.needs_input_grad[1]:
            dk, _ = _attend(v, do, q, dstate.mT, slope, ctx.block_size, other)
        if ctx.needs_input_grad[2] or ctx.needs_input_grad[3]:
            dv, dstart = _attend(k, q, do, dstate, slope, ctx.block_size, other)
        return dq, dk, dv, dstart, None, None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> tuple[Tensor, Tensor]:
        q, k, v, state, slope = ctx.saved_tensors
        dq, dk, dv, dstate = (
            torch.zeros_like(x) if dx is None else dx
            for x, dx in zip((q, k, v, state), tangents, strict=False)
        )
        settings = slope, ctx.block_size, ctx.reverse
        by_q, _ = sweep(dq, k, v, state, *settings)  # the next state does not depend on q
        by_k, k_end = sweep(q, dk, v, torch.zeros_like(state), *settings)
        by_v, v_end = sweep(q, k, dv, dstate, *settings)
        return by_q + by_k + by_v, k_end + v_end


def _attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    state: Tensor,
    slope: Tensor,
    block_size: int,
    reverse: bool,
) -> tuple[Tensor, Tensor]:
    """``sweep``, with the lean derivatives where they hold: not for a learnt slope."""
    # Nor under torch.func: nested forward derivatives of a Function are silently wrong (2.13).
    if slope.requires_grad or torch._C._are_functorch_transforms_active():
        return sweep(q, k, v, state, slope, block_size, reverse)
    out: Any = _Sweep.apply(q, k, v, state, slope, block_size, reverse)
    return out


def alibi_slopes(num_heads: int, *, device: torch.device | str | None = None) -> Tensor:
    """Slopes s_h = 2^{−8h/H}, h = 1…H, for H a power of two.

    Otherwise those of the next lower power of two P, then every other one of 2P.

    Args:
        num_heads: H.
        device: of the result.

    Returns:
        (H,) float32.

    Raises:
        ValueError: if H is below 1.

    Source:
        O. Press, N. Smith, M. Lewis 2022, arXiv 2108.12409; Qin et al. 2024, arXiv 2401.04658.

    Example:
        >>> alibi_slopes(2), alibi_slopes(3)
        (tensor([0.0625, 0.0039]), tensor([0.0625, 0.0039, 0.2500]))
    """
    if num_heads < 1:
        raise ValueError(f"num_heads must be at least 1, got {num_heads}")
    power = 2 ** (num_heads.bit_length() - 1)

    def ladder(count: int) -> list[float]:
        return [2.0 ** (-8 * h / count) for h in range(1, count + 1)]

    slopes = ladder(power) + ladder(2 * power)[::2]
    return torch.tensor(slopes[:num_heads], device=device)


def tnl_slopes(
    num_heads: int, layer_idx: int, num_layers: int, *, device: torch.device | str | None = None
) -> Tensor:
    """Slopes s_h = (8h/H)(1 − ℓ/L), h = 0…H−1: the first head never decays, deeper layers less.

    Args:
        num_heads: H.
        layer_idx: ℓ, from 0.
        num_layers: L.
        device: of the result.

    Returns:
        (H,) float32.

    Raises:
        ValueError: unless H ≥ 1 and 0 ≤ ℓ < L.

    Source:
        Qin et al. 2023, arXiv 2307.14995 (TransNormerLLM).

    Example:
        >>> tnl_slopes(4, 1, 2)
        tensor([0., 1., 2., 3.])
    """
    if num_heads < 1:
        raise ValueError(f"num_heads must be at least 1, got {num_heads}")
    if not 0 <= layer_idx < num_layers:
        raise ValueError(f"layer_idx must be from 0 to {num_layers - 1}, got {layer_idx}")
    factor = 8 / num_heads * (1 - layer_idx / num_layers)
    return torch.arange(num_heads, dtype=torch.float32, device=device) * factor


def _full_precision(device_type: str) -> Any:
    """Autocast would turn the sums of the blocks back into half precision."""
    if torch.amp.is_autocast_available(device_type):
        return torch.autocast(device_type, enabled=False)
    return nullcontext()


def _check(q: Tensor, k: Tensor, v: Tensor, state: Tensor | None, block_size: int) -> None:
    shapes = ", ".join(str(tuple(x.shape)) for x in (q, k, v))
    if q.ndim != 4 or k.shape != q.shape or v.ndim != 4 or v.shape[:3] != q.shape[:3]:
        raise ValueError(f"expected q, k (B, H, n, d) and v (B, H, n, e), got {shapes}")
    if not q.is_floating_point() or not q.dtype == k.dtype == v.dtype:
        raise ValueError(
            f"q, k and v must have one floating dtype, got {q.dtype}, {k.dtype}, {v.dtype}"
        )
    expected = (*q.shape[:2], q.shape[3], v.shape[3])
    if state is not None and tuple(state.shape) != expected:
        raise ValueError(f"initial_state must be (B, H, d, e) = {expected}, got {state.shape}")
    if block_size < 1:
        raise ValueError(f"block_size must be at least 1, got {block_size}")


def _checked_slope(slope: Tensor | None, q: Tensor) -> Tensor:
    heads = q.shape[1]
    if slope is None:
        return torch.zeros(heads, device=q.device)
    if slope.numel() != heads:
        raise ValueError(f"slope must have one entry for each of {heads} heads, got {slope.shape}")
    if slope.device.type == "cpu" and not (slope >= 0).all():
        raise ValueError(
            f"slopes must be at least 0, or the state grows without bound; got {slope.tolist()}: "
            "the decay of a step is exp(−slope)"
        )
    return slope.reshape(heads).to(q.device)
