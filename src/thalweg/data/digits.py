"""Handwritten digits: 1,797 images of 8 × 8 pixels in ten classes, split by a seed.

Source: E. Alpaydin, C. Kaynak, "Optical recognition of handwritten digits", UCI, 1998, as shipped
with scikit-learn.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from thalweg.errors import ThalwegError

__all__ = ["Digits", "digits"]


@dataclass(frozen=True)
class Digits:
    """Training and test part.

    Attributes:
        x: (N, 64) or (N, 1, 8, 8) training images, standardised with the training mean and spread.
        y: (N,) int64 labels.
        x_test: (M, …) test images, standardised the same way.
        y_test: (M,) int64 labels.
    """

    x: Tensor
    y: Tensor
    x_test: Tensor
    y_test: Tensor


def digits(
    *,
    seed: int = 0,
    num_train: int = 1400,
    flat: bool = True,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Digits:
    """The digits, shuffled by a seed and split.

    Args:
        seed: of the split.
        num_train: training images, at most 1,796; the rest is the test part.
        flat: images as rows of 64 rather than (1, 8, 8).
        dtype: of the images.
        device: of all tensors.

    Raises:
        ValueError: if ``num_train`` leaves no test image or none to train on.
        ThalwegError: if scikit-learn is not installed.

    Example:
        >>> digits(num_train=1000).x_test.shape
        torch.Size([797, 64])
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise ThalwegError(
            "the digits come with scikit-learn: pip install 'thalweg[data]'"
        ) from None
    raw, labels = load_digits(return_X_y=True)
    total = len(labels)
    if not 1 <= num_train < total:
        raise ValueError(f"num_train must be from 1 to {total - 1}, got {num_train}")
    order = torch.randperm(total, generator=torch.Generator().manual_seed(seed))
    x = torch.tensor(raw, dtype=torch.float64)[order]
    y = torch.tensor(labels, dtype=torch.int64)[order]
    x = (x - x[:num_train].mean()) / x[:num_train].std()
    x = (x if flat else x.reshape(-1, 1, 8, 8)).to(device, dtype)
    y = y.to(device)
    return Digits(x[:num_train], y[:num_train], x[num_train:], y[num_train:])
