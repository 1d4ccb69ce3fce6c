"""An input that a module accepts, made up from the shapes of its layers, to see who feeds whom."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from thalweg.laws.trace import call

__all__ = ["made_up_input", "required_inputs"]

_SIZES = (8, 4, 16, 28, 32, 5, 6, 7, 9, 10, 12, 14, 20, 24, 48, 64, 96, 128, 224)


def required_inputs(module: nn.Module) -> int:
    """How many positional inputs ``forward`` cannot do without, at least one."""
    try:
        parameters = inspect.signature(module.forward).parameters.values()
    except (TypeError, ValueError):
        return 1
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return max(1, sum(p.kind in kinds and p.default is p.empty for p in parameters))


def made_up_input(module: nn.Module) -> Any:
    """A random input on which the module runs, or None if none was found.

    Args:
        module: float64, not changed by its forward.
    """
    number = required_inputs(module)
    for tensor in _candidates(module):
        inputs = tensor if number == 1 else (tensor,) * number
        try:
            with torch.no_grad(), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                call(module, inputs)
        except Exception:  # anything may go wrong inside a foreign forward: try the next
            continue
        return inputs
    return None


def _candidates(module: nn.Module) -> Iterator[Tensor]:
    gen = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=gen, dtype=torch.float64)

    tables = [m.num_embeddings for m in module.modules() if isinstance(m, nn.Embedding)]
    if tables:
        for length in (4, 2, 1):
            yield torch.randint(min(tables), (2, length), generator=gen)
        yield torch.randint(min(tables), (2,), generator=gen)
    for channels, dims in dict.fromkeys(_convolutions(module)):
        for size in _SIZES if dims < 3 else _SIZES[:2]:
            yield normal(3, channels, *[size] * dims)
    for width in dict.fromkeys(_widths(module)):
        yield normal(3, width)
        yield normal(2, 3, width)
        for size in (4, 8):
            yield normal(3, width, size)
            yield normal(3, width, size, size)


def _convolutions(module: nn.Module) -> Iterator[tuple[int, int]]:
    for m in module.modules():
        if isinstance(m, nn.modules.conv._ConvNd):
            yield m.in_channels, m.weight.ndim - 2


def _widths(module: nn.Module) -> Iterator[int]:
    for m in module.modules():
        for name in ("in_features", "embed_dim", "num_features", "num_channels"):
            value = getattr(m, name, None)
            if isinstance(value, int):
                yield value
        shape = getattr(m, "normalized_shape", None)
        if shape:
            yield shape[-1]
    for p in module.parameters():
        if p.ndim >= 1:
            yield p.shape[-1]
            yield p.shape[0]
