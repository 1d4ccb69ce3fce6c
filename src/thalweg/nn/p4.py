"""Convolutions that commute with quarter turns: lifting, p4 to p4, and pooling over the group.

A p4 feature map is (B, C, 4, H, W): channel C seen in four orientations. Turning the image turns
each map and moves the orientations on by one. Source: T. Cohen, M. Welling 2016, arXiv 1602.07576.

Only quarter turns are exact on a pixel grid, and only if the layer sees the grid alike from all
sides: a stride must divide (size + 2·padding − kernel), which is checked. Share the statistics of
norms over the four orientations (``nn.BatchNorm3d`` does).
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["GroupPool", "P4Conv2d", "P4LiftConv2d"]


def turned(weight: Tensor) -> Tensor:
    """The four quarter turns of filters (…, k, k) → (4, …, k, k)."""
    return torch.stack([torch.rot90(weight, i, (-2, -1)) for i in range(4)])


class _P4(nn.Module):
    """What both convolutions share: weights, checks and the convolution itself."""

    def __init__(
        self,
        shape: tuple[int, ...],
        stride: int,
        padding: int,
        bias: bool,
        device: torch.device | str | None,
        dtype: torch.dtype | None,
    ) -> None:
        super().__init__()
        for name, value, least in (
            ("out_channels", shape[0], 1),
            ("in_channels", shape[1], 1),
            ("kernel_size", shape[-1], 1),
            ("stride", stride, 1),
            ("padding", padding, 0),
        ):
            if not isinstance(value, int) or value < least:
                raise ValueError(
                    f"{name} must be an integer of at least {least}, got {value!r}: quarter turns "
                    "need the same in both directions"
                )
        self.stride, self.padding = stride, padding
        self.weight = nn.Parameter(torch.empty(shape, device=device, dtype=dtype))
        self.bias = (
            nn.Parameter(torch.empty(shape[0], device=device, dtype=dtype)) if bias else None
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weights as ``nn.Conv2d`` does, ±1/√fan_in."""
        bound = 1 / math.sqrt(self.weight[0].numel())
        nn.init.uniform_(self.weight, -bound, bound)
        if self.bias is not None:
            nn.init.uniform_(self.bias, -bound, bound)

    def _convolve(self, x: Tensor, filters: Tensor) -> Tensor:
        """(B, C, H, W) with filters (out, 4, C, k, k) to (B, out, 4, H', W')."""
        for size in x.shape[-2:]:
            left = size + 2 * self.padding - self.weight.shape[-1]
            if left % self.stride:
                raise ValueError(
                    f"stride {self.stride} does not divide size + 2·padding − kernel_size = {left}:"
                    f" the grid looks different from the other side, and the layer would not be "
                    f"equivariant. Pad or crop the size {size}, or use stride 1"
                )
        bias = None if self.bias is None else self.bias.repeat_interleave(4)
        y = functional.conv2d(x, filters.flatten(0, 1), bias, self.stride, self.padding)
        return y.unflatten(1, (-1, 4))

    def extra_repr(self) -> str:
        """Sizes."""
        out, channels, kernel = self.weight.shape[0], self.weight.shape[1], self.weight.shape[-1]
        return (
            f"{channels}, {out}, kernel_size={kernel}, stride={self.stride}, "
            f"padding={self.padding}, bias={self.bias is not None}"
        )


class P4LiftConv2d(_P4):
    """The first layer: an image with filters in four orientations.

    Output orientation i is the convolution with the filter turned by i quarters.

    Args:
        in_channels: C of the image.
        out_channels: p4 channels.
        kernel_size: k.
        stride: of both directions; must divide size + 2·padding − k.
        padding: zeros on all sides.
        bias: one per p4 channel, the same for all orientations.
        device: of the parameters.
        dtype: of the parameters.

    Raises:
        ValueError: for sizes that are not positive integers, and in the forward pass for shapes or
            strides that break the symmetry.

    Source:
        Cohen, Welling 2016, arXiv 1602.07576.

    Example:
        >>> layer = P4LiftConv2d(1, 8, 3, padding=1)
        >>> layer(torch.zeros(2, 1, 8, 8)).shape, layer.weight.numel()
        (torch.Size([2, 8, 4, 8, 8]), 72)
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        padding: int = 0,
        bias: bool = True,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        shape = (out_channels, in_channels, kernel_size, kernel_size)
        super().__init__(shape, stride, padding, bias, device, dtype)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, H, W) to (B, out, 4, H', W')."""
        if x.ndim != 4 or x.shape[1] != self.weight.shape[1]:
            raise ValueError(
                f"expected images (B, {self.weight.shape[1]}, H, W), got {tuple(x.shape)}"
            )
        return self._convolve(x, turned(self.weight).transpose(0, 1))


class P4Conv2d(_P4):
    """A layer from p4 feature maps to p4 feature maps.

    Output orientation i uses the filter bank turned by i quarters, its orientations moved on by i.

    Args:
        in_channels: p4 channels that come in.
        out_channels: p4 channels that go out.
        kernel_size: k.
        stride: of both directions; must divide size + 2·padding − k.
        padding: zeros on all sides.
        bias: one per p4 channel, the same for all orientations.
        device: of the parameters.
        dtype: of the parameters.

    Raises:
        ValueError: for sizes that are not positive integers, and in the forward pass for shapes or
            strides that break the symmetry.

    Source:
        Cohen, Welling 2016, arXiv 1602.07576.

    Example:
        >>> layer = P4Conv2d(8, 8, 3, padding=1)
        >>> layer(torch.zeros(2, 8, 4, 8, 8)).shape, layer.weight.shape
        (torch.Size([2, 8, 4, 8, 8]), torch.Size([8, 8, 4, 3, 3]))
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        padding: int = 0,
        bias: bool = True,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        shape = (out_channels, in_channels, 4, kernel_size, kernel_size)
        super().__init__(shape, stride, padding, bias, device, dtype)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, 4, H, W) to (B, out, 4, H', W')."""
        if x.ndim != 5 or x.shape[1:3] != self.weight.shape[1:3]:
            raise ValueError(
                f"expected p4 maps (B, {self.weight.shape[1]}, 4, H, W), got {tuple(x.shape)}. "
                "Start with P4LiftConv2d"
            )
        bank = turned(self.weight)  # (4, out, in, 4, k, k)
        bank = torch.stack([bank[i].roll(i, 2) for i in range(4)], 1)
        return self._convolve(x.flatten(1, 2), bank.flatten(2, 3))


class GroupPool(nn.Module):
    """From p4 feature maps to what turns with the image, or to what does not change at all.

    Args:
        reduce: ``max`` or ``mean`` over the four orientations.
        space: pool over space as well: the result is invariant under quarter turns.

    Raises:
        ValueError: for another ``reduce``, and in the forward pass for maps that are not p4.

    Source:
        Cohen, Welling 2016, arXiv 1602.07576.

    Example:
        >>> maps = torch.zeros(2, 8, 4, 5, 5)
        >>> GroupPool()(maps).shape, GroupPool("mean", space=True)(maps).shape
        (torch.Size([2, 8, 5, 5]), torch.Size([2, 8]))
    """

    def __init__(self, reduce: Literal["max", "mean"] = "max", *, space: bool = False) -> None:
        super().__init__()
        if reduce not in ("max", "mean"):
            raise ValueError(f"reduce must be 'max' or 'mean', got {reduce!r}")
        self.reduce, self.space = reduce, space

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, 4, H, W) to (B, C, H, W), or (B, C) with ``space``."""
        if x.ndim != 5 or x.shape[2] != 4:
            raise ValueError(f"expected p4 maps (B, C, 4, H, W), got {tuple(x.shape)}")
        axes = (2, 3, 4) if self.space else (2,)
        return x.amax(axes) if self.reduce == "max" else x.mean(axes)

    def extra_repr(self) -> str:
        """Settings."""
        return f"{self.reduce!r}, space={self.space}"
