"""Spectral regularisation: the largest singular value of every layer is held near one.

One step of power iteration a call follows the leading singular vectors as the weights move. Biases
are pulled to zero by the same power.

Source: A. Lewandowski et al. 2024, arXiv 2406.06811; power iteration as in T. Miyato et al. 2018,
arXiv 1802.05957. Departure: the first call iterates more often, as the vectors start at random.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from thalweg.losses.parseval import penalised

__all__ = ["SpectralRegularizer"]

FIRST_ITERATIONS = 20
TINY = 1e-12


class SpectralRegularizer:
    """A penalty on the spectral norm of every matrix and the norm of every bias of a model.

        weight · ( Σ_W (σ_max(W)^k − 1)² + Σ_b (‖b‖^k)² )

    Args:
        model: its matrices but embeddings, kernels flattened; and its vectors named ``bias``.
        weight: the strength λ ≥ 0.
        power: k ≥ 1; 2 in the source.
        iterations: steps of power iteration in a call.
        skip: names of matrices left out, such as the head's.
        generator: of the first vectors.

    Raises:
        ValueError: for a value out of range, an unknown name, or if nothing is left to penalise.

    Source:
        Lewandowski et al. 2024, arXiv 2406.06811; entry adamo-isometry.

    Example:
        A matrix 2·I and a bias of zero: (2² − 1)² = 9.

        >>> layer = nn.Linear(3, 3)
        >>> with torch.no_grad():
        ...     _ = layer.weight.copy_(2 * torch.eye(3)), layer.bias.zero_()
        >>> round(SpectralRegularizer(layer, weight=1.0).penalty().item(), 4)
        9.0
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        weight: float = 1e-3,
        power: float = 2.0,
        iterations: int = 1,
        skip: tuple[str, ...] = (),
        generator: torch.Generator | None = None,
    ) -> None:
        if not weight >= 0:
            raise ValueError(f"weight must be ≥ 0, got {weight}")
        if not power >= 1:
            raise ValueError(f"power must be at least 1, got {power}")
        if iterations < 1:
            raise ValueError(f"iterations must be at least 1, got {iterations}")
        self.weight, self.power, self.iterations = weight, power, iterations
        self._matrices = penalised(model, skip)
        named = model.named_parameters()
        self._biases = [p for n, p in named if p.ndim == 1 and n.split(".")[-1] == "bias"]
        self._vectors = [_direction(W, generator) for W in self._matrices]
        self._started = False

    def penalty(self) -> Tensor:
        """The term of the loss, 0-d, differentiable; takes ``iterations`` steps of the vectors."""
        steps = self.iterations if self._started else FIRST_ITERATIONS
        self._started = True
        terms = []
        for i, weight in enumerate(self._matrices):
            W = weight.flatten(1).to(torch.promote_types(weight.dtype, torch.float32))
            v = self._vectors[i].to(W)
            with torch.no_grad():
                u = _unit(W @ v)
                for _ in range(steps):
                    v = _unit(W.T @ u)
                    u = _unit(W @ v)
            self._vectors[i] = v
            terms.append(((u @ W @ v).abs().pow(self.power) - 1).square())
        for bias in self._biases:
            wide = bias.to(torch.promote_types(bias.dtype, torch.float32))
            # (‖b‖²)^k: the norm itself has no gradient at zero
            terms.append(wide.square().sum().pow(self.power))
        return self.weight * torch.stack([t.to(terms[0]) for t in terms]).sum()


def _direction(weight: Tensor, generator: torch.Generator | None) -> Tensor:
    size = weight[0].numel()
    drawn = torch.randn(size, generator=generator, dtype=torch.float64)
    return _unit(drawn).to(weight.device, torch.promote_types(weight.dtype, torch.float32))


def _unit(v: Tensor) -> Tensor:
    return v / v.norm().clamp_min(TINY)
