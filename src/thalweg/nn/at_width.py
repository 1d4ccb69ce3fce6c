"""A model of a given width in muP or in standard parametrisation, from one function of the width.

Source: Yang, Hu et al. 2022, arXiv 2203.03466.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from thalweg.nn.mup import MuReadout, base_shape_of, set_base_shapes, shapes_of

__all__ = ["at_width"]


def at_width(
    make_model: Callable[[int], nn.Module], width: int, *, base_width: int | None = None
) -> nn.Module:
    """A model of a width, in muP relative to a base width, or in standard parametrisation.

    Args:
        make_model: width to model, its readout a ``MuReadout``; in standard parametrisation any
            model. A model that comes with base shapes is left as it is.
        width: of the model.
        base_width: where muP and standard parametrisation agree; None for the standard at every
            width, in which a ``MuReadout`` is a Linear.

    Returns:
        The model, drawn from torch's global random state by one call of ``make_model``; the models
        that only lend their shapes draw nothing from it.

    Raises:
        ValueError: if no parameter depends on the width, and as ``set_base_shapes``.

    Example:
        >>> def mlp(n):
        ...     return nn.Sequential(nn.Linear(8, n), nn.ReLU(), MuReadout(n, 3))
        >>> at_width(mlp, 64, base_width=16)[2].width_mult, at_width(mlp, 64)[2].width_mult
        (4.0, 1.0)
    """
    model = make_model(width)
    if any(base_shape_of(p) is not None for p in model.parameters()):
        return model
    base = width if base_width is None else base_width
    with torch.random.fork_rng(devices=[]):
        shapes, delta = (shapes_of(make_model(n)) for n in (base, 2 * base))
    if shapes == delta:
        raise ValueError(
            f"make_model: no parameter depends on the width, shapes at {base} and {2 * base} agree"
        )
    if base_width is None and not any(isinstance(m, MuReadout) for m in model.modules()):
        return model
    return set_base_shapes(model, shapes, delta)
