"""The plainest law: what is frozen does not move.

Source: by definition of ``requires_grad=False``; after D. Kunin et al. 2020, arXiv 2012.04728.
"""

from __future__ import annotations

from torch import nn

from thalweg.laws.law import Law, Piece

__all__ = ["frozen_laws"]


def frozen_laws(module: nn.Module) -> list[Law]:
    """One law for every frozen parameter: its squared norm is constant.

    An average kept in it, a decay applied to all weights, or a copy from elsewhere breaks it.

    Args:
        module: any module.

    Returns:
        Laws of the parameters with ``requires_grad=False``.

    Example:
        >>> layer = nn.Linear(2, 3)
        >>> _ = layer.bias.requires_grad_(False)
        >>> [law.name for law in frozen_laws(layer)]
        ['frozen: bias']
    """
    return [
        Law(f"frozen: {name}", f"‖{name}‖²", (Piece(name),), "rows", verified=True)
        for name, p in module.named_parameters()
        if not p.requires_grad and p.numel()
    ]
