"""Empirical neural tangent kernel: how many directions in function space a step can move.

Source: Jacot, Gabriel, Hongler 2018, arXiv 1806.07572; its rank as a measure of plasticity,
entry adamo-isometry. Axes: `n` inputs, `C` outputs.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from thalweg.instruments.instrument import Reading, instrument
from thalweg.instruments.rank import effective_rank
from thalweg.numerics import entk_gram

__all__ = ["EntkRank", "entk", "entk_rank"]


@dataclass(frozen=True)
class EntkRank(Reading):
    """A reading of the kernel's effective rank.

    Attributes:
        value: effective rank, in [1, size].
        uncertainty: nan: the kernel is exact for the inputs given.
        status: ``ok`` or ``nonfinite``.
        rank: eigenvalues above size · eps · the largest.
        condition: largest over smallest eigenvalue; inf for a singular kernel.
        trace: sum of the eigenvalues.
        size: rows of the kernel.
    """

    rank: int = 0
    condition: float = float("nan")
    trace: float = float("nan")
    size: int = 0


@instrument("inputs", cost=10.0)
def entk(model: nn.Module, x: Tensor, outputs: str = "all") -> Tensor:
    """Gram matrix of the gradients of the outputs at each input.

        K = J Jᵀ,   J = ∂f(x_i)_c/∂θ,   row i·C + c

    Args:
        model: module in a mode in which samples don't mix and nothing is random.
        x: (n, ...).
        outputs: ``all``, or ``sum`` for the sum of each input's outputs.

    Returns:
        (n·C, n·C) or (n, n), positive semidefinite.

    Raises:
        ValueError: as ``thalweg.numerics.entk_gram``.

    Cost: C backward passes and a Gram product; fast for networks of Linear layers.

    Example:
        >>> import torch
        >>> entk(torch.nn.Linear(1, 1), torch.tensor([[1.0], [2.0]]))
        tensor([[2., 3.],
                [3., 5.]])
    """
    return entk_gram(model, x, outputs=outputs)


@instrument("inputs", cost=10.0)
def entk_rank(model: nn.Module, x: Tensor, outputs: str = "all") -> EntkRank:
    """Effective rank of the kernel, with its rank, condition number and trace.

    Args:
        model: as for ``entk``.
        x: as for ``entk``.
        outputs: as for ``entk``.

    Returns:
        EntkRank.

    Raises:
        ValueError: as ``entk``.

    Cost: that of ``entk`` and an eigendecomposition.

    Example:
        >>> import torch
        >>> entk_rank(torch.nn.Linear(1, 1, bias=False), torch.tensor([[1.0], [2.0]])).rank
        1
    """
    K = entk_gram(model, x, outputs=outputs)
    size = len(K)
    if not bool(torch.isfinite(K).all()):
        return EntkRank(float("nan"), status="nonfinite", size=size)
    # K is exact to its own round-off; its eigenvalues should not lose more
    values = torch.linalg.eigvalsh(K.double()).clamp(min=0)
    top = float(values[-1])
    cut = size * torch.finfo(K.dtype).eps * top
    low = float(values[0])
    condition = top / low if low > cut else float("inf")
    rank = float(effective_rank(torch.diag(values)))
    return EntkRank(
        rank,
        rank=int((values > cut).sum()),
        condition=condition,
        trace=float(values.sum()),
        size=size,
    )
