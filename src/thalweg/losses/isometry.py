"""The isometry penalty: how far weight matrices are from having orthonormal rows or columns.

It pulls every singular value towards one target, and so moves also the weights of units that no
task gradient reaches. The gradient is known in closed form, which ``thalweg.optim.AdamO`` applies
outside of Adam's moments; in a loss the penalty is what Parseval networks use.

Source: A. Rosseau, R. Müller, A. Nowé 2026, arXiv 2606.09762. Beyond it: the target, for networks
whose layers should have a gain, such as √2 with ReLU. Convolution kernels are flattened to
(out, in·kh·kw), a proxy for their true singular values.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["gram_deviation", "isometry_gradient", "isometry_penalty", "matrices"]


def isometry_penalty(weight_or_module: Tensor | nn.Module, target: float = 1.0) -> Tensor:
    """Squared deviation of the smaller Gram matrix from a multiple of the identity.

        R(W) = ‖WᵀW − s²I‖_F² = Σ_i (σ_i² − s²)²      (WWᵀ where W has fewer rows than columns)

    Args:
        weight_or_module: (out, in, ...), flattened to (out, rest); or a module, whose matrices are
            added up: its parameters of at least two dimensions, embeddings left out, each once.
        target: s > 0.

    Returns:
        0-d, differentiable; float32 for half precision.

    Raises:
        ValueError: for a tensor of fewer than two dimensions, a module without matrices, or a
            target that is not positive.
        TypeError: for complex weights.

    Cost: one product of W with its transpose, min(out, rest)² floats.

    Source:
        Rosseau et al. 2026, arXiv 2606.09762, Eq. 16; entry adamo-isometry.

    Example:
        For c·I of n rows it is n(c² − 1)².

        >>> isometry_penalty(2 * torch.eye(3))
        tensor(27.)
    """
    _check_target(target)
    if isinstance(weight_or_module, nn.Module):
        weights = matrices(weight_or_module)
        if not weights:
            raise ValueError(
                "isometry_penalty: the module has no parameter of at least two dimensions that is "
                "no embedding"
            )
        return torch.stack([_penalty(w, target) for w in weights]).sum()
    return _penalty(_matrix(weight_or_module), target)


def isometry_gradient(weight: Tensor, target: float = 1.0) -> Tensor:
    """Gradient of ``isometry_penalty`` in closed form.

        4 W (WᵀW − s²I),   or 4 (WWᵀ − s²I) W where W has fewer rows than columns

    In singular values 4σ(σ² − s²): zero at σ = s, and at σ = 0, which is no minimum.

    Args:
        weight: (out, in, ...), flattened to (out, rest).
        target: s > 0.

    Returns:
        Of the shape and dtype of the weight, detached.

    Raises:
        ValueError: for fewer than two dimensions, or a target that is not positive.
        TypeError: for complex weights.

    Source:
        Rosseau et al. 2026, arXiv 2606.09762; entry adamo-isometry.

    Example:
        For c·I it is 4c(c² − 1)·I.

        >>> isometry_gradient(2 * torch.eye(2))
        tensor([[24.,  0.],
                [ 0., 24.]])
    """
    _check_target(target)
    W = _matrix(weight.detach()).flatten(1)
    work = _wide(W)
    G = gram_deviation(work, target)
    product = work @ G if len(work) >= work.shape[1] else G @ work
    return (4 * product).to(weight.dtype).view(weight.shape)


def gram_deviation(W: Tensor, target: float = 1.0) -> Tensor:
    """The smaller Gram matrix minus s²I.

    Args:
        W: (..., out, rest), at least float32.
        target: s.

    Returns:
        (..., r, r) with r = min(out, rest).

    Example:
        >>> gram_deviation(torch.tensor([[3.0], [4.0]]))
        tensor([[24.]])
    """
    G = W.mT @ W if W.shape[-2] >= W.shape[-1] else W @ W.mT
    G.diagonal(dim1=-2, dim2=-1).sub_(target**2)
    return G


def matrices(module: nn.Module) -> list[nn.Parameter]:
    """Parameters of at least two dimensions, each once, without those of embeddings.

    Args:
        module: any.

    Example:
        >>> len(matrices(nn.Sequential(nn.Embedding(3, 2), nn.Linear(2, 2), nn.LayerNorm(2))))
        1
    """
    tables = [m for m in module.modules() if isinstance(m, nn.Embedding | nn.EmbeddingBag)]
    left_out = {id(m.weight) for m in tables}
    return [p for p in module.parameters() if p.ndim >= 2 and id(p) not in left_out]


def _penalty(weight: Tensor, target: float) -> Tensor:
    return gram_deviation(_wide(weight.flatten(1)), target).square().sum()


def _wide(W: Tensor) -> Tensor:
    return W.to(torch.promote_types(W.dtype, torch.float32))


def _matrix(weight: Tensor) -> Tensor:
    if weight.ndim < 2:
        raise ValueError(
            f"isometry: a weight has shape {tuple(weight.shape)}; it needs at least 2 dimensions. "
            "Biases and gains have no singular values: leave them out"
        )
    if not weight.is_floating_point():
        raise TypeError(f"isometry: a weight is {weight.dtype}; it must be real and floating")
    return weight


def _check_target(target: float) -> None:
    if not 0 < target < float("inf"):
        raise ValueError(f"target must be positive, got {target}")
