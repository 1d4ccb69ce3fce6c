"""A data set that says which of its examples each one is.

For losses and instruments that remember something of every example. The number is the position in
the wrapped data set, so it stays the same however a loader shuffles.

Source: the data sets of S. Liu et al. 2020, arXiv 2007.00151, which return it likewise.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Any

from torch.utils.data import Dataset, IterableDataset

__all__ = ["IndexedDataset"]


class IndexedDataset(Dataset[Any]):
    """(x, y) → (x, y, i).

    A sample that is a tuple gets i appended, a mapping a key ``index``, anything else becomes
    (sample, i). To train on a part of the data wrap the part,
    ``IndexedDataset(Subset(data, part))``, and i counts from 0 to the length of the part.

    Args:
        dataset: with a length and numbered samples.

    Raises:
        TypeError: if it has none.
        ValueError: if a sample is a mapping that has a key ``index`` already.

    Source:
        Liu et al. 2020, arXiv 2007.00151; entry early-learning-regularization.

    Example:
        >>> IndexedDataset([("a", 7), ("b", 8)])[-1]
        ('b', 8, 1)
    """

    def __init__(self, dataset: Any) -> None:
        if isinstance(dataset, IterableDataset) or not (
            hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__")
        ):
            raise TypeError(
                "the data set needs a length and numbered samples, got "
                f"{type(dataset).__name__}; let a stream yield its own stable numbers"
            )
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        """The sample and its number; negative indices count from the end."""
        i, length = operator.index(index), len(self.dataset)
        if not -length <= i < length:
            raise IndexError(f"index must be in {-length} … {length - 1}, got {i}")
        i %= length
        sample = self.dataset[i]
        if isinstance(sample, Mapping):
            if "index" in sample:
                raise ValueError("the sample has a key 'index' already: rename it")
            return {**sample, "index": i}
        return (*sample, i) if isinstance(sample, tuple) else (sample, i)
