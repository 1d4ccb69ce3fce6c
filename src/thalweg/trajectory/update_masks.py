"""Sets of weights as masks: what a fine-tune changed, what carries a matrix, what is near zero.

Source: H. Zhu, Z. Zhang, H. Huang et al. 2025, arXiv 2511.08567; Yu et al. 2026, arXiv 2606.13657.
"""

from __future__ import annotations

import torch
from torch import Tensor

from thalweg.trajectory.matrix_spectrum import matrix_spectrum

__all__ = ["low_magnitude_mask", "lowest", "mask_overlap", "principal_mask", "update_mask"]


def lowest(x: Tensor, count: int) -> Tensor:
    """Mask of the ``count`` smallest entries; of equal ones the first.

    Args:
        x: any shape, without nan.
        count: 0 … numel.

    Returns:
        bool, the shape of x, with exactly ``count`` entries.
    """
    flat = x.reshape(-1)
    if count <= 0 or count >= flat.numel():
        return torch.full(x.shape, count > 0, dtype=torch.bool, device=x.device)
    bound = flat.kthvalue(count).values
    mask = flat < bound
    ties = (flat == bound).nonzero()[: count - int(mask.sum()), 0]
    mask[ties] = True
    return mask.reshape(x.shape)


def low_magnitude_mask(W: Tensor, alpha: float = 0.5) -> Tensor:
    """The smallest weights of a tensor.

    Args:
        W: floating, any shape, finite.
        alpha: share of the entries, in (0, 1]; their number is the integer part of αn, at least 1.

    Returns:
        bool, the shape of W; of equal weights the first.

    Raises:
        ValueError: if α is out of range or W is empty or not finite.

    Source: arXiv 2511.08567; entry rlvr-off-principals.

    Example:
        >>> import torch
        >>> low_magnitude_mask(torch.tensor([3.0, -1.0, 2.0, 0.0]), 0.5)
        tensor([False,  True, False,  True])
    """
    return lowest(_finite("low_magnitude_mask", W).abs(), _share("low_magnitude_mask", W, alpha))


def principal_mask(W: Tensor, r: int = 64, alpha: float = 0.5) -> Tensor:
    """The weights that the leading singular directions of a matrix are largest in.

    The top entries of |Σ_{i≤r} σ_i u_i v_iᵀ|.

    Args:
        W: (m, n), finite.
        r: singular directions kept, at least 1; min(m, n) at most count.
        alpha: share of the entries, in (0, 1]; their number is the integer part of αmn, at least 1.

    Returns:
        (m, n) bool.

    Raises:
        ValueError: if W is not a finite matrix or an argument is out of range.

    Cost: an eigendecomposition of the smaller Gram matrix.

    Source: arXiv 2511.08567; entry rlvr-off-principals.

    Example:
        >>> import torch
        >>> principal_mask(torch.diag(torch.tensor([3.0, 2.0])), r=1, alpha=0.25)
        tensor([[ True, False],
                [False, False]])
    """
    count = _share("principal_mask", W, alpha)
    spectrum = matrix_spectrum(_finite("principal_mask", W), r)
    return lowest(-spectrum.reconstruction(r).abs(), count).to(W.device)


def update_mask(base: Tensor, tuned: Tensor, atol: float = 0.0) -> Tensor:
    """The weights that changed by more than a distance, |w1 − w0| > atol.

    Args:
        base: floating, any shape, at the precision in question: bfloat16 asks what storage saw.
        tuned: the same shape.
        atol: strictly exceeded.

    Returns:
        bool, the same shape; True where one is nan.

    Raises:
        ValueError: if the shapes differ or atol is negative.

    Source: Yu et al. 2026, arXiv 2606.13657; entry opd-geometry.

    Example:
        >>> import torch
        >>> update_mask(torch.zeros(3), torch.tensor([0.0, 1e-5, 1.0]), atol=1e-5)
        tensor([False, False,  True])
    """
    if base.shape != tuned.shape or not atol >= 0:
        raise ValueError(
            "update_mask: expected two tensors of one shape and atol >= 0, got "
            f"{tuple(base.shape)}, {tuple(tuned.shape)} and {atol}"
        )
    wide = torch.promote_types(torch.promote_types(base.dtype, tuned.dtype), torch.float32)
    return ~((tuned.to(wide) - base.to(wide)).abs() <= atol)


def mask_overlap(a: Tensor, b: Tensor) -> float:
    """Jaccard index of two masks, |a ∩ b| / |a ∪ b|.

    Independent masks of densities p and q have pq / (p + q − pq).

    Args:
        a: bool, any shape.
        b: bool, the same shape.

    Returns:
        In [0, 1]; 1 for two empty masks.

    Raises:
        TypeError: if one is not bool.
        ValueError: if the shapes differ.

    Source: Yu et al. 2026, arXiv 2606.13657; entry opd-geometry.

    Example:
        >>> import torch
        >>> mask_overlap(torch.tensor([True, True, False]), torch.tensor([False, True, True]))
        0.3333333333333333
    """
    if a.dtype != torch.bool or b.dtype != torch.bool:
        raise TypeError(f"mask_overlap: expected two bool masks, got {a.dtype} and {b.dtype}")
    if a.shape != b.shape:
        raise ValueError(
            f"mask_overlap: expected masks of one shape, got {tuple(a.shape)} and {tuple(b.shape)}"
        )
    either = int((a | b).sum())
    return int((a & b).sum()) / either if either else 1.0


def _share(who: str, W: Tensor, alpha: float) -> int:
    if not 0 < alpha <= 1:
        raise ValueError(f"{who}: expected 0 < alpha <= 1, got {alpha}")
    return max(1, int(alpha * W.numel()))


def _finite(who: str, W: Tensor) -> Tensor:
    if not W.is_floating_point() or not W.numel() or not bool(W.isfinite().all()):
        raise ValueError(
            f"{who}: expected finite floating weights, at least one; got shape {tuple(W.shape)}, "
            f"{W.dtype}"
        )
    return W
