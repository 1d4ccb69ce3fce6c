"""How far layers, and the whole network, are from preserving lengths.

Source: Rosseau, Müller, Nowé 2026, arXiv 2606.09762; entry adamo-isometry. Axes: `n` tensors,
`B` samples, `C` outputs, `d` inputs, `r` = min(C, d).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from thalweg.instruments.instrument import instrument
from thalweg.numerics import jacobian

__all__ = ["IsometryDefect", "JacobianSpectrum", "isometry_defect", "jacobian_spectrum"]


@dataclass(frozen=True)
class IsometryDefect:
    """Mean (σ² − 1)² of weight matrices.

    Attributes:
        total: mean over the matrices, 0-d; nan if there is none.
        each: of each tensor, (n,); nan for those with fewer than two dimensions.
    """

    total: Tensor
    each: Tensor


@dataclass(frozen=True)
class JacobianSpectrum:
    """Singular values of the input–output Jacobian of each sample.

    Attributes:
        singular_values: (B, r), descending.
        smallest: (B,).
        largest: (B,).
        condition: largest / smallest, (B,); inf where the smallest is 0.
        rms_defect: root mean square of σ − 1, (B,).
    """

    singular_values: Tensor
    smallest: Tensor
    largest: Tensor
    condition: Tensor
    rms_defect: Tensor


@instrument("params", cost=0.1)
def isometry_defect(params: Iterable[Tensor]) -> IsometryDefect:
    """How far weight matrices are from having orthonormal rows or columns.

        mean_i (σ_i² − 1)² = ‖G − I‖_F² / r,   G the smaller Gram matrix of W

    Convolution kernels are flattened to (out, in·kh·kw), a proxy for their true singular values.

    Args:
        params: the weights. Tensors with fewer than two dimensions have no defect.

    Returns:
        IsometryDefect in float32 (float64 if any input is).

    Cost: one product of W with its transpose per matrix, min(out, in)² floats.

    Example:
        >>> import torch
        >>> isometry_defect([2 * torch.eye(3), torch.ones(3)]).each
        tensor([9., nan])
    """
    params = list(params)
    each = [_defect(p.detach()) for p in params]
    if not each:
        return IsometryDefect(torch.full((), float("nan")), torch.zeros(0))
    dtype = torch.float64 if any(e.dtype == torch.float64 for e in each) else torch.float32
    values = torch.stack([e.to(each[0].device, dtype) for e in each])
    # by shape, not by nanmean: a matrix whose entries are nan must show
    matrices = [i for i, p in enumerate(params) if p.ndim >= 2 and p.numel() > 0]
    return IsometryDefect(values[matrices].mean(), values)


@instrument("inputs", cost=2.0)
def jacobian_spectrum(model: Callable[..., Any], x: Tensor) -> JacobianSpectrum:
    """Singular values of the network's Jacobian at each input, and how far they are from 1.

    Args:
        model: module or callable, (B, ...) -> (B, ...), in a mode in which samples don't mix.
        x: (B, ...), floating.

    Returns:
        JacobianSpectrum; all singular values are 1 for a network of orthogonal layers and
        GroupSort.

    Raises:
        ValueError: if x holds no sample or is not floating.

    Cost: C backward passes of the batch and B svds of (C, d).

    Source: Pennington, Schoenholz, Ganguli 2017, arXiv 1711.04735.

    Example:
        >>> import torch
        >>> jacobian_spectrum(lambda x: 2 * x, torch.ones(1, 3)).singular_values
        tensor([[2., 2., 2.]])
    """
    s = torch.linalg.svdvals(jacobian(model, x))
    smallest, largest = s[:, -1], s[:, 0]
    return JacobianSpectrum(
        s, smallest, largest, largest / smallest, (s - 1).square().mean(1).sqrt()
    )


def _defect(W: Tensor) -> Tensor:
    W = W if W.dtype == torch.float64 else W.float()
    if W.ndim < 2 or W.numel() == 0:
        return W.new_full((), float("nan"))
    W = W.flatten(1)
    G = W @ W.T if W.shape[0] < W.shape[1] else W.T @ W
    G.diagonal().sub_(1)
    return G.square().sum() / len(G)
