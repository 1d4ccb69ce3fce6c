"""Fake quantisation: numbers rounded to a few bits, held in their own dtype, gradients unchanged.

Groups share a scale. The forward value is the quantised one, the gradient passes as if nothing had
happened (straight-through), so a training feels what few bits do to it without hardware for them.

Source: T. Huang et al. 2025, arXiv 2502.17055, with the formulas of their code
(TianjinYellow/StableSPAM) for ``int_asym``, ``int_sym`` and ``fp4_official``. Departures: the FP4
of that code is a uniform grid of nine levels, for its exponent is always at its limit; ``fp4_e2m1``
is the format of that name (Open Compute Project, Microscaling Formats 1.0, 2023). ``nf4``: Dettmers
et al. 2023, arXiv 2305.14314. Groups need not divide the tensor; the last is shorter then.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from thalweg.errors import unknown_name

__all__ = ["SCHEMES", "Scheme", "check_scheme", "fake_quantize"]

Scheme = Literal["int_asym", "int_sym", "fp4_e2m1", "fp4_official", "nf4"]
SCHEMES: tuple[str, ...] = get_args(Scheme)
# Least scales, from the official code: groups of zeros have none of their own.
LEAST_RANGE, LEAST_MAXIMUM = 1e-5, 1e-6
# Quantiles of the normal law, scaled to [-1, 1], with an exact zero: Dettmers et al. 2023, app. E.
NF4 = (
    *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453),
    *(-0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0),
    *(0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224),
    *(0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
)


def fake_quantize(
    x: Tensor,
    *,
    bits: int = 4,
    scheme: Scheme = "fp4_e2m1",
    group_size: int = 64,
    topk: int = 0,
    dim: int | None = None,
    stochastic: bool = False,
    generator: torch.Generator | None = None,
) -> Tensor:
    """The nearest values that a few bits a number and one scale a group can hold.

        int_asym      (clamp(round(x/s) + z, 0, 2ᵇ−1) − z) s, s = range/(2ᵇ−1), z = −round(min/s)
        int_sym       s round(x/s), s = max|x|/(2ᵇ⁻¹−1)
        fp4_e2m1      ±{0, ½, 1, 1½, 2, 3, 4, 6} max|x|/6
        fp4_official  ±{0, ¼, ½, ¾, 1} max|x|
        nf4           16 normal quantiles × max|x|

    z is clamped to 0…2ᵇ−1 as in the original, so that ``int_asym`` serves groups that contain zero:
    one whose values are all far on one side of it is cut off.

    Args:
        x: real, any shape; integers are refused.
        bits: b, from 2 to 8; the three last schemes have 4.
        scheme: the values that can be held.
        group_size: numbers that share a scale.
        topk: so many largest |x| of each group stay exact and do not count for the scale.
        dim: axis along which groups run, so that e.g. −1 keeps samples apart; None for the
            flattened tensor.
        stochastic: round up or down by chance, without bias; not for ``nf4``.
        generator: of that chance.

    Returns:
        As ``x``; its gradient is that of ``x``. Groups with nan or infinite values become nan.

    Raises:
        ValueError: for an unknown scheme, ``bits`` or sizes out of range.
        TypeError: if ``x`` is not real floating point.

    Source:
        Huang et al. 2025, arXiv 2502.17055; entry stable-spam.

    Example:
        >>> x = torch.tensor([6.0, 4.6, 2.4, 1.3, -0.2])
        >>> fake_quantize(x, scheme="fp4_e2m1")
        tensor([6.0000, 4.0000, 2.0000, 1.5000, 0.0000])
        >>> fake_quantize(x, scheme="fp4_official")
        tensor([6.0000, 4.5000, 3.0000, 1.5000, 0.0000])
    """
    check_scheme(scheme, bits, group_size, topk, stochastic)
    if not x.is_floating_point():
        raise TypeError(f"x must be real floating point to be quantised, got {x.dtype}")
    if not x.numel():
        return x
    wide = x.detach().to(torch.promote_types(x.dtype, torch.float32))
    wide = wide.reshape(-1) if dim is None or not x.ndim else wide.movedim(dim, -1)
    groups, real = _grouped(wide, group_size)
    kept = _largest(groups, real, topk)
    # What is padded or kept apart is nan to nothing and zero to everything.
    rest = groups if kept is None else groups.masked_fill(kept, 0)
    noise: Tensor | float = 0.0
    if stochastic:
        noise = torch.rand(rest.shape, generator=generator, dtype=rest.dtype, device=rest.device)
        noise = noise - 0.5
    if scheme == "int_asym":
        inside = real if kept is None else ~kept if real is None else real & ~kept
        q = _int_asym(rest, inside, bits, noise)
    else:
        largest = rest.abs().amax(-1, keepdim=True).clamp_min(LEAST_MAXIMUM)
        q = _symmetric(rest, largest, scheme, bits, noise)
    if kept is not None:
        q = torch.where(kept, groups, q)
    q = q.flatten(-2)[..., : wide.shape[-1]]
    q = q.reshape(x.shape) if dim is None or not x.ndim else q.movedim(-1, dim)
    return q.to(x.dtype) + (x - x.detach())  # exactly q, with the gradient of x


def _int_asym(x: Tensor, inside: Tensor | None, bits: int, noise: Tensor | float) -> Tensor:
    most = 2**bits - 1
    low, high = x, x
    if inside is not None:
        low, high = x.masked_fill(~inside, torch.inf), x.masked_fill(~inside, -torch.inf)
    low, high = low.amin(-1, keepdim=True), high.amax(-1, keepdim=True)
    s = (high - low).clamp_min(LEAST_RANGE) / most
    zero = (-(low / s).round()).clamp(0, most)
    return (((x / s + noise).round() + zero).clamp(0, most) - zero) * s


def _symmetric(x: Tensor, largest: Tensor, scheme: str, bits: int, noise: Tensor | float) -> Tensor:
    if scheme == "int_sym":
        most = 2 ** (bits - 1) - 1
        return (x * (most / largest) + noise).round().clamp(-most - 1, most) * largest / most
    if scheme == "fp4_official":
        return (x * (4 / largest) + noise).round().clamp(-4, 4) * (largest / 4)
    if scheme == "nf4":
        levels = torch.tensor(NF4, dtype=x.dtype, device=x.device)
        between = (levels[1:] + levels[:-1]) / 2
        return levels[torch.bucketize(x / largest, between)] * largest + 0 * x  # nan stays
    y = x / largest * 6
    # Two levels an octave, and four below 2: round-half-even within each is half to even code.
    size = y.abs()
    step = torch.where(size < 2, 0.5, torch.where(size < 4, 1.0, 2.0))
    return (y / step + noise).round() * step * (largest / 6)


def _grouped(x: Tensor, group_size: int) -> tuple[Tensor, Tensor | None]:
    """(…, n) to (…, groups, group_size), and which are real if some are padding."""
    n = x.shape[-1]
    size = min(group_size, n)
    missing = -n % size
    if not missing:
        return x.unflatten(-1, (-1, size)), None
    real = torch.arange(n + missing, device=x.device) < n
    padded = torch.nn.functional.pad(x, (0, missing))
    return padded.unflatten(-1, (-1, size)), real.unflatten(-1, (-1, size)).expand(
        *x.shape[:-1], -1, -1
    )


def _largest(groups: Tensor, real: Tensor | None, topk: int) -> Tensor | None:
    """Which entries stay exact; None for none."""
    if not topk:
        return None
    size = groups.abs()
    if real is not None:
        size = size.masked_fill(~real, -1)
    where = size.topk(min(topk, groups.shape[-1]), -1).indices
    return torch.zeros_like(groups, dtype=torch.bool).scatter_(-1, where, True)


def check_scheme(
    scheme: str, bits: int = 4, group_size: int = 64, topk: int = 0, stochastic: bool = False
) -> None:
    """Refuse what cannot be quantised.

    Raises:
        ValueError: see ``fake_quantize``.
    """
    if scheme not in SCHEMES:
        raise ValueError(str(unknown_name("scheme", scheme, SCHEMES)))
    if not 2 <= bits <= 8 or (bits != 4 and not scheme.startswith("int")):
        raise ValueError(f"bits must be 4, or from 2 to 8 for integers, got {bits} for {scheme}")
    if group_size < 1:
        raise ValueError(f"group_size must be at least 1, got {group_size}")
    if not 0 <= topk < group_size:
        raise ValueError(f"topk must be at least 0 and below group_size={group_size}, got {topk}")
    if stochastic and scheme == "nf4":
        raise ValueError("nf4 rounds to the nearest only: stochastic must be False")
