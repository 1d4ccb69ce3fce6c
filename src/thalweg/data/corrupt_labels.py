"""Wrong labels made on purpose, in known numbers.

Symmetric noise draws a label among all classes, asymmetric noise confuses given classes, pair noise
moves each class to the next. The number of labels drawn is exact.

Source: the noise of S. Liu et al. 2020, arXiv 2007.00151 (symmetric and asymmetric, as in their
code); pair noise of B. Han et al. 2018, arXiv 1804.06872.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

__all__ = ["CIFAR10_CONFUSIONS", "corrupt_labels"]

#: Truck → automobile, bird → airplane, deer → horse, cat ↔ dog.
CIFAR10_CONFUSIONS: Mapping[int, int] = {9: 1, 2: 0, 4: 7, 3: 5, 5: 3}


def corrupt_labels(
    y: Tensor,
    rate: float,
    kind: str = "symmetric",
    include_true: bool = False,
    mapping: Mapping[int, int] | None = None,
    seed: int = 0,
    *,
    num_classes: int | None = None,
) -> Tensor:
    """Labels of which a share is wrong.

    Args:
        y: (N,) true classes, int64 from 0 on.
        rate: share of labels that are drawn anew, rounded to a whole number: of all for
            ``symmetric``, of each class that is confused for the others.
        kind: ``symmetric``, ``asymmetric`` or ``pair`` (each class to the next, the last to 0).
        include_true: for ``symmetric``, whether the true class may be drawn, as in the authors'
            code; then only rate·(C − 1)/C come out wrong.
        mapping: for ``asymmetric``, class to the class it is taken for; default
            ``CIFAR10_CONFUSIONS`` where there are ten classes.
        seed: of the choice.
        num_classes: C; default the largest label + 1.

    Returns:
        (N,) int64 on the device of ``y``; which are wrong is ``corrupted != y``.

    Raises:
        TypeError: if ``y`` is not int64.
        ValueError: if a setting is out of range, unknown, or does not belong to the kind.

    Source:
        Liu et al. 2020, arXiv 2007.00151; entry early-learning-regularization.

    Example:
        >>> y = torch.arange(10).repeat(20)
        >>> int((corrupt_labels(y, 0.4) != y).sum())
        80
        >>> corrupt_labels(torch.tensor([0, 1, 2]), 1.0, kind="pair")
        tensor([1, 2, 0])
    """
    if y.dtype != torch.int64:
        raise TypeError(f"labels must be int64, got {y.dtype}")
    if y.ndim != 1 or not len(y):
        raise ValueError(f"labels must be a vector with an entry, got shape {tuple(y.shape)}")
    if not 0 <= rate <= 1:
        raise ValueError(f"rate must be from 0 to 1, got {rate}")
    true = y.detach().cpu()
    classes = int(true.max()) + 1 if num_classes is None else num_classes
    if int(true.min()) < 0 or int(true.max()) >= classes or classes < 2:
        raise ValueError(
            f"labels must be in 0 … {classes - 1} with two classes or more, got "
            f"{int(true.min())} … {int(true.max())}"
        )
    if kind not in ("symmetric", "asymmetric", "pair"):
        raise ValueError(f"kind must be 'symmetric', 'asymmetric' or 'pair', got {kind!r}")
    if mapping is not None and kind != "asymmetric":
        raise ValueError(f"mapping belongs to kind='asymmetric', got kind={kind!r}")
    if include_true and kind != "symmetric":
        raise ValueError(f"include_true belongs to kind='symmetric', got kind={kind!r}")
    generator = torch.Generator().manual_seed(seed)
    if kind == "symmetric":
        return _symmetric(true, rate, classes, include_true, generator).to(y.device)
    if kind == "pair":
        mapping = {c: (c + 1) % classes for c in range(classes)}
    elif mapping is None:
        if classes != 10:
            raise ValueError(
                f"there are {classes} classes: give mapping={{class: class it is taken for}}"
            )
        mapping = CIFAR10_CONFUSIONS
    if not all(0 <= c < classes for pair in mapping.items() for c in pair):
        raise ValueError(f"mapping must stay in 0 … {classes - 1}, got {dict(mapping)}")
    return _confused(true, rate, mapping, generator).to(y.device)


def _symmetric(
    true: Tensor, rate: float, classes: int, include_true: bool, generator: torch.Generator
) -> Tensor:
    chosen = torch.randperm(len(true), generator=generator)[: round(rate * len(true))]
    corrupted = true.clone()
    if include_true:
        corrupted[chosen] = torch.randint(classes, (len(chosen),), generator=generator)
    else:
        away = torch.randint(1, classes, (len(chosen),), generator=generator)
        corrupted[chosen] = (true[chosen] + away) % classes
    return corrupted


def _confused(
    true: Tensor, rate: float, mapping: Mapping[int, int], generator: torch.Generator
) -> Tensor:
    corrupted = true.clone()
    for source, target in mapping.items():
        rows = (true == source).nonzero().squeeze(1)
        order = torch.randperm(len(rows), generator=generator)
        corrupted[rows[order[: round(rate * len(rows))]]] = target
    return corrupted
