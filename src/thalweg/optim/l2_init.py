"""L2-init: the weights are pulled to where they began instead of to zero.

Source: S. Kumar, H. Marklund, B. Van Roy 2023, arXiv 2308.11958.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

__all__ = ["L2Init"]


class L2Init:
    """A penalty on the distance to the initial parameters, to be added to the loss.

        weight · Σ ‖θ − θ₀‖²

    Args:
        params: parameters or a model; those that require grad count, biases too. Their values now
            are the initial ones.
        weight: the strength λ ≥ 0.

    Raises:
        ValueError: if the weight is negative or nothing requires grad.

    Source:
        Kumar et al. 2023, arXiv 2308.11958; entry adamo-isometry.

    Example:
        >>> p = nn.Parameter(torch.zeros(2))
        >>> regularizer = L2Init([p], weight=0.5)
        >>> _ = p.data.add_(3.0)
        >>> regularizer.penalty().item()
        9.0
    """

    def __init__(self, params: nn.Module | Iterable[Tensor], *, weight: float = 1e-3) -> None:
        if not weight >= 0:
            raise ValueError(f"weight must be ≥ 0, got {weight}")
        given = params.parameters() if isinstance(params, nn.Module) else params
        self._params = [p for p in dict.fromkeys(given) if p.requires_grad]
        if not self._params:
            raise ValueError("no parameter requires grad: there is nothing to pull back")
        self.weight = weight
        self._initial = [p.detach().clone() for p in self._params]

    def penalty(self) -> Tensor:
        """The term of the loss, 0-d, differentiable; float32 for half precision."""
        terms = []
        for p, start in zip(self._params, self._initial, strict=True):
            wide = torch.promote_types(p.dtype, torch.float32)
            terms.append((p.to(wide) - start.to(wide)).square().sum())
        return self.weight * torch.stack([t.to(terms[0]) for t in terms]).sum()

    def state_dict(self) -> dict[str, list[Tensor]]:
        """The initial parameters, to be kept beside those of the model."""
        return {"initial": [start.clone() for start in self._initial]}

    def load_state_dict(self, state: Mapping[str, list[Tensor]]) -> None:
        """Takes the initial parameters of a training that is resumed.

        Args:
            state: from ``state_dict``.

        Raises:
            ValueError: if the shapes are not those of the parameters.
        """
        shapes = [tuple(t.shape) for t in state["initial"]]
        wanted = [tuple(p.shape) for p in self._params]
        if shapes != wanted:
            raise ValueError(f"the state has shapes {shapes}, the parameters {wanted}")
        self._initial = [t.to(p) for t, p in zip(state["initial"], self._params, strict=True)]
