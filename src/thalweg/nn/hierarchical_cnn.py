"""A CNN whose filters do not overlap, in the parametrisation of its infinite-width kernels.

All weights are N(0, 1) and there are no biases; sizes and widths divide inside the forward pass, so
that the empirical tangent kernel tends to ``thalweg.theory.HierarchicalKernel`` as width grows.

Source: F. Cagnetta, A. Favero, M. Wyart 2022, arXiv 2208.01003. Here each ReLU has a factor √2 and
the first layer is not divided by √s_1, so that the kernel of random features is 1 on the diagonal.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

__all__ = ["HierarchicalCNN"]


class HierarchicalCNN(nn.Module):
    """ReLU CNN with filters of stride equal to their size, and a linear readout.

        h¹ = √2 ReLU(w·x_i),   hˡ = √2 ReLU(w·hˡ⁻¹/√(s_l H)),   f = a·h^L/√(p H)

    Args:
        filters: s_1 … s_L, first layer first.
        width: H, channels of each layer.
        dim: d of the inputs, p times the product of the filters; default p = 1.
        generator: of the initial weights.
        dtype: of the weights.
        device: of the weights.

    Raises:
        ValueError: for sizes below 1, or a dim that the filters do not divide.

    Source: Cagnetta, Favero, Wyart 2022, arXiv 2208.01003.

    Example:
        Homogeneous of degree one in the inputs:

        >>> net = HierarchicalCNN((2, 2), 16, dim=8)
        >>> x = torch.randn(3, 8)
        >>> net(x).shape, torch.allclose(net(2 * x), 2 * net(x), rtol=1e-4, atol=1e-6)
        (torch.Size([3]), True)
    """

    def __init__(
        self,
        filters: Sequence[int],
        width: int,
        dim: int | None = None,
        *,
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        self.filters = tuple(int(s) for s in filters)
        if not self.filters or min(self.filters) < 1 or width < 1:
            raise ValueError(
                f"filters and width must be at least 1, got {self.filters} and {width}"
            )
        whole = math.prod(self.filters)
        self.dim = whole if dim is None else dim
        if self.dim < 1 or self.dim % whole:
            raise ValueError(
                f"filters {self.filters} with product {whole} do not divide inputs of d = {dim}"
            )
        self.width = width

        def normal(*shape: int) -> nn.Parameter:
            weight = torch.randn(*shape, generator=generator, dtype=dtype)
            return nn.Parameter(weight.to(device))

        channels = [1, *[width] * (len(self.filters) - 1)]
        self.weights = nn.ParameterList(
            normal(width, into, size) for into, size in zip(channels, self.filters, strict=True)
        )
        self.readout = normal(width, self.dim // whole)

    def forward(self, x: Tensor) -> Tensor:
        """(B, d) inputs to (B,) outputs.

        Raises:
            ValueError: for inputs of another shape.
        """
        if x.ndim != 2 or x.shape[1] != self.dim:
            raise ValueError(f"expected inputs (B, {self.dim}), got {tuple(x.shape)}")
        h = x[:, None]
        for i, (weight, size) in enumerate(zip(self.weights, self.filters, strict=True)):
            scale = 1.0 if i == 0 else 1 / math.sqrt(size * self.width)
            h = math.sqrt(2) * (scale * nn.functional.conv1d(h, weight, stride=size)).relu()
        return (self.readout * h).flatten(1).sum(1) / math.sqrt(self.readout.numel())

    def extra_repr(self) -> str:
        """What was asked for."""
        return f"filters={self.filters}, width={self.width}, dim={self.dim}"
