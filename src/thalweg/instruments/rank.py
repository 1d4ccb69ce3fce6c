"""Three ways to count the directions that a matrix really uses.

For features H, (n, d), or any matrix, by its singular values σ_1 ≥ σ_2 ≥ …; a fall during training
is a collapse of the representation. Not differentiable.
"""

from __future__ import annotations

import torch
from torch import Tensor

from thalweg.instruments.instrument import instrument

__all__ = ["effective_rank", "frobenius_rank", "stable_rank"]


@instrument("activations")
def effective_rank(H: Tensor) -> Tensor:
    """Exponential of the entropy of the normalised singular values.

        exp(−Σ_i p_i ln p_i),   p_i = σ_i / Σσ

    Args:
        H: (..., n, d); leading axes are batched.

    Returns:
        (...,), in [1, rank]; 0 for a zero matrix, nan for a non-finite one.

    Raises:
        ValueError: if H has fewer than 2 dimensions or is not floating.

    Cost: one svd without vectors.

    Source: Roy & Vetterli 2007; entry adamo-isometry.

    Example:
        >>> import torch
        >>> effective_rank(torch.diag(torch.tensor([1.0, 1.0, 0.0])))
        tensor(2.)
    """
    s = _singular_values(H, "effective_rank")
    total = s.sum(-1, keepdim=True)
    p = s / torch.where(total > 0, total, torch.ones_like(total))
    entropy = torch.special.entr(p).sum(-1)
    rank = torch.where(total.squeeze(-1) > 0, entropy.exp(), torch.zeros_like(entropy))
    return torch.where(s.isnan().any(-1), torch.full_like(rank, float("nan")), rank)


@instrument("activations")
def stable_rank(H: Tensor, delta: float = 0.01) -> Tensor:
    """Least number of singular values that hold all but delta of their sum (srank_δ).

        min k :  Σ_{i≤k} σ_i / Σ σ_i ≥ 1 − δ

    Reinforcement learning calls this the stable rank; the ‖H‖_F²/σ_1² of the same name in numerical
    analysis is ``frobenius_rank``.

    Args:
        H: (..., n, d); leading axes are batched.
        delta: δ in [0, 1).

    Returns:
        (...,), a whole number; 0 for a zero matrix, nan for a non-finite one.

    Raises:
        ValueError: if delta is outside [0, 1), or H has fewer than 2 dimensions or isn't floating.

    Cost: one svd without vectors.

    Source: Kumar, Agarwal, Ghosh, Levine 2021, arXiv 2010.14498; entry adamo-isometry.

    Example:
        >>> import torch
        >>> stable_rank(torch.diag(torch.tensor([100.0, 1.0, 0.0])))  # 100/101 ≥ 0.99
        tensor(1.)
    """
    if not 0 <= delta < 1:
        raise ValueError(f"stable_rank: delta must be in [0, 1), got {delta}")
    s = _singular_values(H, "stable_rank").double()
    held = s.cumsum(-1)
    total = held[..., -1:]
    # a hair below: the sum of all is a share of exactly one only up to round-off
    short = (held < (1 - delta) * total * (1 - 1e-12)).sum(-1)
    rank = torch.where(total.squeeze(-1) > 0, short + 1, torch.zeros_like(short)).to(s)
    rank = torch.where(s.isnan().any(-1), torch.full_like(rank, float("nan")), rank)
    return rank.to(torch.float64 if H.dtype == torch.float64 else torch.float32)


@instrument("activations")
def frobenius_rank(H: Tensor) -> Tensor:
    """Squared Frobenius norm over squared spectral norm, Σσ_i² / σ_1².

    Args:
        H: (..., n, d); leading axes are batched.

    Returns:
        (...,), in [1, rank]; 0 for a zero matrix, nan for a non-finite one.

    Raises:
        ValueError: if H has fewer than 2 dimensions or is not floating.

    Source: Rudelson & Vershynin 2007, arXiv math/0503442 ("numerical rank").

    Example:
        >>> import torch
        >>> frobenius_rank(torch.diag(torch.tensor([2.0, 1.0, 0.0])))
        tensor(1.2500)
    """
    s = _singular_values(H, "frobenius_rank")
    top = s[..., :1]
    ratio = s / torch.where(top == 0, torch.ones_like(top), top)
    return ratio.square().sum(-1)


def _singular_values(H: Tensor, who: str) -> Tensor:
    if H.ndim < 2 or not H.is_floating_point() or 0 in H.shape[-2:]:
        raise ValueError(
            f"{who}: expected a floating, non-empty (..., n, d), got {tuple(H.shape)} of {H.dtype}"
        )
    H = H.detach()
    H = H if H.dtype == torch.float64 else H.float()
    good = torch.isfinite(H).all(-1).all(-1)[..., None]
    s = torch.linalg.svdvals(torch.where(good[..., None], H, torch.zeros_like(H)))
    return torch.where(good, s, torch.full_like(s, float("nan")))
