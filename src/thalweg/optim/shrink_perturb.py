"""Shrink and perturb: weights are scaled down and a little of a new initialisation is added.

Source: J. Ash, R. Adams 2020, arXiv 1910.08475; at every step S. Dohare et al. 2024,
doi.org/10.1038/s41586-024-07711-7.
"""

from __future__ import annotations

import torch
from torch import nn

from thalweg.nn.fresh_weights import fresh_weights

__all__ = ["ShrinkPerturb"]


class ShrinkPerturb:
    """Moves the parameters of a model towards a newly drawn initialisation.

        θ ← shrink · θ + noise · θ_fresh,   θ_fresh drawn anew each time

    ``after_step()`` does so at every ``every``-th step, ``apply()`` at once, as when the task
    changes. Buffers and the state of the optimizer are left alone.

    Args:
        model: its parameters that require grad.
        shrink: in [0, 1]; 0.5 suits changes of task.
        noise: ≥ 0; 1 − shrink if None.
        every: steps between two.
        generator: of the draws.

    Raises:
        ValueError: for a value out of range, or if a layer has no ``reset_parameters``.

    Source:
        Ash & Adams 2020, arXiv 1910.08475; entry adamo-isometry.

    Example:
        A gain is drawn as 1: (0.5 · 3) + (0.5 · 1).

        >>> layer = nn.LayerNorm(2)
        >>> _ = layer.weight.data.fill_(3.0)
        >>> ShrinkPerturb(layer, shrink=0.5).apply()
        >>> layer.weight.data
        tensor([2., 2.])
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        shrink: float = 1 - 1e-4,
        noise: float | None = None,
        every: int = 1,
        generator: torch.Generator | None = None,
    ) -> None:
        noise = 1 - shrink if noise is None else noise
        if not 0 <= shrink <= 1:
            raise ValueError(f"shrink must be in [0, 1], got {shrink}")
        if not noise >= 0:
            raise ValueError(f"noise must be ≥ 0, got {noise}")
        if every < 1:
            raise ValueError(f"every must be at least 1, got {every}")
        self.model, self.shrink, self.noise, self.every = model, shrink, noise, every
        self.generator = generator
        self._steps = 0
        with torch.random.fork_rng(devices=[]):
            fresh_weights(model, generator=torch.Generator())  # refuses now, not in the middle

    @torch.no_grad()
    def apply(self) -> None:
        """Once, now."""
        fresh = fresh_weights(self.model, generator=self.generator)
        for name, p in self.model.named_parameters():
            if p.requires_grad:
                p.mul_(self.shrink).add_(fresh[name], alpha=self.noise)

    def after_step(self) -> None:
        """To be called after each step of the optimizer."""
        self._steps += 1
        if self._steps % self.every == 0:
            self.apply()
