"""Statistics of any layer: what its activations, weights or gradients look like at a glance."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from thalweg.instruments.instrument import instrument

__all__ = ["LayerStatistics", "layer_statistics"]


@dataclass(frozen=True)
class LayerStatistics:
    """Moments of the finite entries of a tensor, each 0-d; nan where there are too few.

    Attributes:
        mean: first moment.
        std: standard deviation, of the entries as they are (no n − 1).
        skewness: third standardised moment; 0 for a symmetric distribution.
        kurtosis: fourth standardised moment; 3 for a Gaussian.
        min: smallest entry.
        max: largest entry.
        zero_fraction: share of exact zeros among all entries.
        nonfinite_fraction: share of nan and inf among all entries.
    """

    mean: Tensor
    std: Tensor
    skewness: Tensor
    kurtosis: Tensor
    min: Tensor
    max: Tensor
    zero_fraction: Tensor
    nonfinite_fraction: Tensor


@instrument("activations")
def layer_statistics(activations: Tensor) -> LayerStatistics:
    """Moments, extremes, and shares of zeros and of non-finite entries.

    Args:
        activations: any tensor of a layer, any shape, floating.

    Returns:
        LayerStatistics of float32 figures (float64 for double). All nan for an empty tensor.

    Cost: a few reads of every entry.

    Example:
        >>> import torch
        >>> layer_statistics(torch.tensor([-1.0, 1.0, float("nan"), 0.0])).nonfinite_fraction
        tensor(0.2500)
    """
    h = activations.detach().reshape(-1)
    h = h if h.dtype == torch.float64 else h.float()
    count = h.numel()
    finite = torch.isfinite(h)
    zeros = (h == 0).sum() / max(count, 1)
    bad = (~finite).sum() / max(count, 1)
    h = h[finite]
    if h.numel() == 0:
        nan = h.new_full((), float("nan"))
        missing = nan if count == 0 else bad.to(h)
        return LayerStatistics(nan, nan, nan, nan, nan, nan, nan if not count else zeros, missing)
    mean = h.mean()
    centred = h - mean
    std = centred.square().mean().sqrt()
    z = centred / std
    low, high = h.aminmax()
    return LayerStatistics(
        mean, std, (z**3).mean(), (z**4).mean(), low, high, zeros.to(h), bad.to(h)
    )
