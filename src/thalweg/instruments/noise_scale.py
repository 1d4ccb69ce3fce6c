"""Gradient noise scale: the batch size at which noise and signal of the gradient balance.

Source: McCandlish, Kaplan, Amodei 2018, arXiv 1812.06162, appendix A. Axes: `n` micro-batches or
samples, `P` parameters.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from thalweg.instruments.hessian_reading import blank
from thalweg.instruments.instrument import Reading, instrument

__all__ = ["grad_noise_scale", "noise_scale_of_gram"]


def noise_scale_of_gram(gram: Tensor, sizes: Tensor) -> Tensor:
    """B = tr Σ / |G|² from inner products of gradients, without bias in either part.

        |G|² = Σ_{i≠j} b_i b_j g_i·g_j / Σ_{i≠j} b_i b_j,   tr Σ = mean_i b_i (g_i·g_i − |G|²)

    Args:
        gram: g_i·g_j, (..., n, n) in float64.
        sizes: b_i, samples behind each, (..., n).

    Returns:
        (...,); not meaningful where |G|² comes out ≤ 0.

    Example:
        >>> import torch
        >>> noise_scale_of_gram(torch.tensor([[2.0, 1.0], [1.0, 2.0]]), torch.ones(2))
        tensor(1.)
    """
    weight = sizes.unsqueeze(-1) * sizes.unsqueeze(-2)
    squares = gram.diagonal(dim1=-2, dim2=-1)
    off = (weight * gram).sum((-2, -1)) - (sizes.square() * squares).sum(-1)
    signal = off / (sizes.sum(-1).square() - sizes.square().sum(-1))
    noise = (sizes * (squares - signal.unsqueeze(-1))).mean(-1)
    return torch.where(signal > 0, noise / signal, torch.full_like(signal, float("nan")))


@instrument("micro_batches", cost=4.0)
def grad_noise_scale(
    grads: Tensor | Sequence[Sequence[Tensor]], sizes: Sequence[int] | None = None
) -> Reading:
    """Simple noise scale tr Σ / |G|², in samples.

    Batches well below it are dominated by noise, well above it by signal.

    Args:
        grads: mean gradient of each micro-batch or the gradient of each sample: (n, P), or n lists
            of tensors, one per parameter. n ≥ 3.
        sizes: samples behind each, default 1.

    Returns:
        Reading; the uncertainty is a jackknife standard error over the n. If the squared mean
        gradient can't be told from zero there is no figure and the status says so.

    Raises:
        ValueError: if there are fewer than 3 gradients, shapes differ, or a size is below 1.

    Cost: n² inner products of length P.

    Example:
        >>> import torch
        >>> grad_noise_scale(torch.tensor([[2.0, 0, 0], [2.0, 0, 0], [2.0, 0, 0]])).value
        0.0
    """
    n = len(grads)
    b = torch.ones(n, dtype=torch.float64)
    if sizes is not None:
        b = torch.tensor([float(s) for s in sizes], dtype=torch.float64)
    if n < 3 or len(b) != n or bool((b < 1).any()):
        raise ValueError(
            f"grad_noise_scale: need 3 or more gradients, each with a size >= 1; got {n} gradients "
            f"and sizes {sizes}"
        )
    gram = _gram(grads).double().cpu()
    if not bool(torch.isfinite(gram).all()):
        return blank("nonfinite")
    value = float(noise_scale_of_gram(gram, b))
    rest = torch.stack([torch.cat([torch.arange(i), torch.arange(i + 1, n)]) for i in range(n)])
    left_out = noise_scale_of_gram(gram[rest[:, :, None], rest[:, None, :]], b[rest])
    if not value == value or bool(left_out.isnan().any()):
        return blank("unsupported:the mean gradient can't be told from noise; use more samples")
    spread = (left_out - left_out.mean()).square().sum() * (n - 1) / n
    return Reading(value, float(spread.sqrt()))


def _gram(grads: Tensor | Sequence[Sequence[Tensor]]) -> Tensor:
    if isinstance(grads, Tensor):
        if grads.ndim != 2:
            raise ValueError(f"grad_noise_scale: expected (n, P), got {tuple(grads.shape)}")
        g = grads.detach()
        g = g.float() if g.dtype in (torch.float16, torch.bfloat16) else g
        return g @ g.T
    shapes = [[t.shape for t in one] for one in grads]
    if any(s != shapes[0] for s in shapes):
        raise ValueError("grad_noise_scale: the gradients differ in their shapes")
    total = torch.zeros(len(grads), len(grads), dtype=torch.float64)
    for tensors in zip(*grads, strict=True):
        total += _gram(torch.stack([t.reshape(-1) for t in tensors])).double().cpu()
    return total
