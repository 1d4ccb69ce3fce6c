"""The network of structured knowledge accumulation: linear maps with a sigmoid after each.

Small weights and zero biases, so that every unit starts undecided, at ½.

Source: B. Mahi 2025, arXiv 2504.03214.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn

__all__ = ["SKANetwork"]


class SKANetwork(nn.Module):
    """z_l = W_l d_{l−1} + b_l ("knowledge"), d_l = σ(z_l) ("decisions"), d_0 the input.

    Args:
        sizes: of the input and of each layer, at least two.
        init_std: spread of the normal initial weights; biases start at 0.
        dtype: of the parameters.
        device: of the parameters.
        generator: of the weights.

    Attributes:
        layers: the L linear maps, ``nn.Linear``; the paper's W is the transpose of their weight.

    Raises:
        ValueError: for fewer than two sizes, a size below 1 or a negative ``init_std``.

    Source:
        Mahi 2025, arXiv 2504.03214; entry ska.

    Example:
        >>> net = SKANetwork([2, 3, 1], init_std=0.0)
        >>> net(torch.ones(1, 2))
        tensor([[0.5000]], grad_fn=<SigmoidBackward0>)
    """

    def __init__(
        self,
        sizes: Sequence[int],
        init_std: float = 0.01,
        dtype: torch.dtype | None = None,
        *,
        device: torch.device | str | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if len(sizes) < 2 or any(s < 1 for s in sizes):
            raise ValueError(
                f"sizes must be those of the input and of one layer or more, got {list(sizes)}"
            )
        if not init_std >= 0:
            raise ValueError(f"init_std must be at least 0, got {init_std}")
        self.sizes = tuple(sizes)
        self.layers = nn.ModuleList(
            nn.Linear(a, b, dtype=dtype, device=device) for a, b in itertools.pairwise(sizes)
        )
        with torch.no_grad():
            for layer in self.linear_maps():
                layer.weight.normal_(0, init_std, generator=generator)
                layer.bias.zero_()

    def linear_maps(self) -> list[nn.Linear]:
        """The maps in order."""
        return [m for m in self.layers if isinstance(m, nn.Linear)]

    def pre_activations(self, x: Tensor) -> list[Tensor]:
        """z_l of every layer, (n, d_l), for x (n, d_0)."""
        found = []
        for layer in self.linear_maps():
            z = layer(x)
            found.append(z)
            x = torch.sigmoid(z)
        return found

    def forward(self, x: Tensor) -> Tensor:
        """(n, d_0) to the decisions of the last layer, (n, d_L)."""
        return torch.sigmoid(self.pre_activations(x)[-1])

    def extra_repr(self) -> str:
        """Sizes."""
        return f"sizes={list(self.sizes)}"
