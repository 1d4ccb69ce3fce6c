"""Parseval regularisation: rows of the weights are pulled to be orthogonal, within the loss.

Source: M. Cisse et al. 2017, arXiv 1704.08847; as a term against loss of plasticity W. Chung et al.
2024, arXiv 2412.07224. It differs from ``isometry_penalty`` in that the Gram matrix is always that
of the rows, which a matrix with more rows than columns cannot make orthogonal.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from thalweg.losses.isometry import matrices

__all__ = ["ParsevalRegularizer"]


class ParsevalRegularizer:
    """A penalty on the rows of every matrix of a model, to be added to the loss.

        weight · Σ_W ‖W Wᵀ − s I‖_F²

    Args:
        model: its parameters of at least two dimensions, but embeddings; kernels are flattened.
        weight: the strength λ ≥ 0.
        scale: s > 0, the squared length that rows are pulled to.
        skip: names of parameters left out, such as the head's.

    Raises:
        ValueError: for a value out of range, an unknown name, or if nothing is left to penalise.

    Source:
        Cisse et al. 2017, arXiv 1704.08847; entry adamo-isometry.

    Example:
        Two equal rows of length 1: the Gram matrix is off by 1 in two places.

        >>> layer = nn.Linear(2, 2, bias=False)
        >>> _ = layer.weight.data.copy_(torch.tensor([[1.0, 0.0], [1.0, 0.0]]))
        >>> ParsevalRegularizer(layer, weight=0.5).penalty().item()
        1.0
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        weight: float = 1e-3,
        scale: float = 1.0,
        skip: tuple[str, ...] = (),
    ) -> None:
        if not weight >= 0:
            raise ValueError(f"weight must be ≥ 0, got {weight}")
        if not 0 < scale < float("inf"):
            raise ValueError(f"scale must be positive, got {scale}")
        self.weight, self.scale = weight, scale
        self._matrices = penalised(model, skip)

    def penalty(self) -> Tensor:
        """The term of the loss, 0-d, differentiable; float32 for half precision."""
        return self.weight * torch.stack([self._one(W) for W in self._matrices]).sum()

    def _one(self, weight: Tensor) -> Tensor:
        W = weight.flatten(1).to(torch.promote_types(weight.dtype, torch.float32))
        eye = torch.eye(len(W), dtype=W.dtype, device=W.device)
        return (W @ W.T - self.scale * eye).square().sum()


def penalised(model: nn.Module, skip: tuple[str, ...]) -> list[nn.Parameter]:
    """Matrices of a model but for those named.

    Args:
        model: any.
        skip: names of parameters.

    Raises:
        ValueError: for a name the model lacks, or if nothing is left.
    """
    params = dict(model.named_parameters())
    unknown = [name for name in skip if name not in params]
    if unknown:
        raise ValueError(f"skip names {unknown}, but the parameters are {list(params)}")
    left_out = {id(params[name]) for name in skip}
    kept = [p for p in matrices(model) if id(p) not in left_out]
    if not kept:
        raise ValueError("the model has no parameter of at least two dimensions to penalise")
    return kept
