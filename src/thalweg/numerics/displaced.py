"""Looking at a model a step away from where it is: weights are swapped, nothing is written to them.

Axes: `p` parameters.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor

__all__ = ["displaced"]


@contextmanager
def displaced(params: Sequence[Tensor], by: Sequence[Tensor | None]) -> Iterator[None]:
    """Inside, the parameters are θ + Δ; afterwards they are the very tensors they were.

    Storages are exchanged, so that versions do not move and graphs made before stay valid.

    Args:
        params: θ.
        by: Δ, tensor by tensor; ``None`` for one that stays.

    Example:
        >>> import torch
        >>> w = torch.nn.Parameter(torch.ones(2))
        >>> with displaced([w], [torch.ones(2)]):
        ...     float(w.detach().sum())
        4.0
        >>> float(w.detach().sum())
        2.0
    """
    kept = [p.data for p in params]
    try:
        for p, k, step in zip(params, kept, by, strict=True):
            if step is not None:
                p.data = k + step.to(k)
        yield
    finally:
        for p, k in zip(params, kept, strict=True):
            p.data = k
