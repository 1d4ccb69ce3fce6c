"""What a study gives for one seed."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Figures", "data_hash", "thin"]


@dataclass(frozen=True)
class Figures:
    """The figures of one seed; claims are named by their id in the entry.

    Attributes:
        samples: claim to its figure.
        baselines: claim to the baseline's figure, measured with the same seed and budget.
        controls: claim to the negative control's figure.
        curves: name to ``(x, y)``, for the plot; thin them to a few hundred points, the same x for
            every seed, nan where one has no figure. ``NAME (theory)`` is drawn over ``NAME``.
        data_hash: of the data that was used, from ``data_hash``.
    """

    samples: Mapping[str, float]
    baselines: Mapping[str, float] = field(default_factory=dict)
    controls: Mapping[str, float] = field(default_factory=dict)
    curves: Mapping[str, tuple[Sequence[float], Sequence[float]]] = field(default_factory=dict)
    data_hash: str = ""


def data_hash(*tensors: Tensor) -> str:
    """SHA-256 of the values, shapes and dtypes of some tensors, 16 hexadecimal digits.

    Example:
        >>> import torch
        >>> data_hash(torch.zeros(2)) == data_hash(torch.zeros(1, 2))
        False
    """
    digest = hashlib.sha256()
    for tensor in tensors:
        array = tensor.detach().cpu().contiguous().numpy()
        digest.update(f"{array.dtype}{array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()[:16]


def thin(values: Any, most: int = 200) -> list[float]:
    """Every so-many-th value of a sequence, at most ``most`` and always the last.

    Example:
        >>> thin(range(10), 4)
        [0.0, 3.0, 6.0, 9.0]
    """
    values = list(map(float, values))
    if len(values) <= most:
        return values
    picked = [round(i * (len(values) - 1) / (most - 1)) for i in range(most)]
    return [values[i] for i in picked]
