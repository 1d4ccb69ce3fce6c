"""Is tiled linear attention exact, linear in the length and faster than softmax on this machine?

The tiles are compared with the quadratic formula in float64, and timed on one thread beside torch's
scaled dot-product attention and beside the recurrence over the states, token by token; methods take
turns within each repeat. A layer without nonlinearities is compared with the contraction of its
tensors. Controls: a state that does not decay between blocks; softmax attention; a layer with its
activation.

Source: Z. Qin et al. 2024, arXiv 2401.04658.

Cost: paper does 384 × the work of quick (repeats * heads * width * short**2), in 8 GB.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from thalweg.nn import LightningAttention, alibi_slopes, lightning_attention
from thalweg.studies.figures import Figures

__all__ = ["PRESETS", "Config", "recurrence", "run"]


@dataclass(frozen=True)
class Config:
    """Settings.

    Attributes:
        short: tokens of the shortest sequence; the others have twice and four times as many.
        repeats: timings of each; the median counts.
        heads: of the timed sequences.
        width: of each head.
        block_size: of the tiles that are timed.
    """

    short: int = 4096
    repeats: int = 3
    heads: int = 4
    width: int = 32
    block_size: int = 128


PRESETS = {
    "smoke": Config(short=512, repeats=2),
    "quick": Config(),
    "full": Config(repeats=9),
    "paper": Config(short=8192, repeats=9, heads=32, width=128),
}


def run(config: Config, seed: int) -> Figures:
    """Compare and time once."""
    generator = torch.Generator().manual_seed(seed)
    exact, by_recurrence, undecayed = _exactness(generator)
    tensor, factored, activated = _tensors(generator)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.no_grad():
            times = _times(config, generator)
    finally:
        torch.set_num_threads(threads)
    tiles, softmax, tokens = times["tiles"], times["softmax"], times["recurrence"]
    short, middle, long = (config.short * i for i in (1, 2, 4))
    growth = softmax[long] / softmax[short]
    return Figures(
        samples={
            "exact": exact,
            "linear_time": tiles[long] / tiles[short],
            "faster_than_softmax": tiles[middle] / softmax[middle],
            "tiles_beat_recurrence": tokens[short] / tiles[short],
            "tensor_exact": tensor,
        },
        baselines={
            "exact": by_recurrence,
            "linear_time": growth,
            "faster_than_softmax": softmax[middle],
            "tiles_beat_recurrence": tokens[short],
            "tensor_exact": factored,
        },
        controls={"exact": undecayed, "linear_time": growth, "tensor_exact": activated},
        curves={
            f"{name}, seconds": ([float(n) for n in found], list(found.values()))
            for name, found in times.items()
        },
    )


def recurrence(q: Tensor, k: Tensor, v: Tensor, slope: Tensor) -> Tensor:
    """The sum over states, token by token: what linear attention was before tiles."""
    decay = torch.exp(-slope.to(q.dtype))[:, None, None]
    state = q.new_zeros(*q.shape[:2], q.shape[3], v.shape[3])
    out = []
    for q_t, k_t, v_t in zip(*(x.unbind(2) for x in (q, k, v)), strict=True):
        state = torch.addcmul(decay * state, k_t[..., :, None], v_t[..., None, :])
        out.append(q_t[..., None, :] @ state)
    return torch.cat(out, 2)


def _quadratic(q: Tensor, k: Tensor, v: Tensor, slope: Tensor) -> Tensor:
    positions = torch.arange(q.shape[2], dtype=q.dtype)
    gap = (positions[:, None] - positions).tril()
    mask = torch.exp(-slope.to(q.dtype)[:, None, None] * gap).tril()
    return ((q @ k.mT) * mask) @ v


def _undecayed(q: Tensor, k: Tensor, v: Tensor, slope: Tensor, size: int) -> Tensor:
    """Blocks whose states are added up as they are."""
    state, out = q.new_zeros(*q.shape[:2], q.shape[3], v.shape[3]), []
    for q_i, k_i, v_i in zip(*(x.split(size, 2) for x in (q, k, v)), strict=True):
        out.append(lightning_attention(q_i, k_i, v_i, slope, initial_state=state))
        state = state + lightning_attention(q_i, k_i, v_i, slope, return_state=True)[1]
    return torch.cat(out, 2)


def _exactness(generator: torch.Generator) -> tuple[float, float, float]:
    """Largest differences from the quadratic formula: tiles, recurrence, undecayed states."""
    slope, worst = alibi_slopes(4).double(), [0.0, 0.0, 0.0]
    for n in (77, 128, 300):
        q, k, v = (
            torch.randn(2, 4, n, 16, generator=generator, dtype=torch.float64) for _ in range(3)
        )
        expected = _quadratic(q, k, v, slope)

        def off(out: Tensor, expected: Tensor = expected) -> float:
            return (out - expected).abs().max().item()

        for size in (1, 4, 7, 64):
            tiles = lightning_attention(q, k, v, slope, block_size=size)
            worst[0] = max(worst[0], off(tiles))
        worst[1] = max(worst[1], off(recurrence(q, k, v, slope)))
        worst[2] = max(worst[2], off(_undecayed(q, k, v, slope, 64)))
    return worst[0], worst[1], worst[2]


def _tensors(generator: torch.Generator) -> tuple[float, float, float]:
    """Largest relative difference of a layer from its tensors, factored, and with activation."""
    layer = LightningAttention(8, 2, activation=None, norm=None, gate=False, dtype=torch.float64)
    active = LightningAttention(8, 2, norm=None, gate=False, dtype=torch.float64)
    with torch.no_grad():
        for p in layer.parameters():
            p.copy_(torch.randn(p.shape, generator=generator, dtype=p.dtype) / 8**0.5)
        active.load_state_dict(layer.state_dict())
        x = torch.randn(2, 50, 8, generator=generator, dtype=torch.float64)
        positions = torch.arange(50, dtype=torch.float64)
        gap = (positions[:, None] - positions).tril()
        whole, by_factors = torch.zeros_like(x), torch.zeros_like(x)
        for head, slope in enumerate(layer.slopes.double()):
            decay = torch.exp(-slope * gap).tril()
            ov, qk = layer.tensor(head, factors=True)
            form = torch.einsum("ijlm,brj,btl,brm->btri", layer.tensor(head), x, x, x)
            whole += (decay[:, :, None] * form).sum(2)
            scores = torch.einsum("lm,btl,brm->btr", qk, x, x) * decay
            by_factors += scores @ (x @ ov.T)
        y = layer(x)
        size = y.abs().max()
        found = [((out - whole).abs().max() / size).item() for out in (y, by_factors, active(x))]
    return found[0], found[1], found[2]


def _times(config: Config, generator: torch.Generator) -> dict[str, dict[int, float]]:
    """Method to length to median seconds; the recurrence is timed at the short length only."""
    slope = alibi_slopes(config.heads)
    methods: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
        "tiles": lambda q, k, v: lightning_attention(q, k, v, slope, block_size=config.block_size),
        "softmax": lambda q, k, v: scaled_dot_product_attention(q, k, v, is_causal=True),
        "recurrence": lambda q, k, v: recurrence(q, k, v, slope),
    }
    inputs = {
        n: tuple(
            torch.randn(1, config.heads, n, config.width, generator=generator) for _ in range(3)
        )
        for n in (config.short, 2 * config.short, 4 * config.short)
    }
    taken: dict[tuple[str, int], list[float]] = {}
    for method in methods.values():
        method(*(x[:, :, :512] for x in inputs[config.short]))  # warm-up
    for _ in range(config.repeats):
        for n, (q, k, v) in inputs.items():
            for name, method in methods.items():
                if name == "recurrence" and n > config.short:
                    continue
                start = time.perf_counter()
                method(q, k, v)
                taken.setdefault((name, n), []).append(time.perf_counter() - start)
    times: dict[str, dict[int, float]] = {name: {} for name in methods}
    for (name, n), seconds in taken.items():
        times[name][n] = statistics.median(seconds)
    return times
