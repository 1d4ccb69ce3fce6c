"""Gradient norm: the size of the gradient that the optimizer is about to use.

Read where it is final: after accumulation, unscaling and clipping, just before the step. The
recorder also reads it before clipping (`grad_norm_preclip`); the share of steps on which the two
differ is the share that was clipped.
"""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor

from thalweg.instruments.instrument import instrument
from thalweg.numerics import Norms, norms

__all__ = ["grad_norm"]


@instrument("grads")
def grad_norm(params: Iterable[Tensor]) -> Norms:
    """L2 norm of ``.grad``, whole and per parameter.

    Args:
        params: the parameters. One without a gradient counts 0, as it does for the step.

    Returns:
        Norms in the order of ``params``; nan or inf if a gradient entry is.

    Example:
        >>> import torch
        >>> w = torch.zeros(2, requires_grad=True)
        >>> (w * torch.tensor([3.0, 4.0])).sum().backward()
        >>> grad_norm([w]).total
        tensor(5.)
    """
    params = list(params)
    held = [i for i, p in enumerate(params) if p.grad is not None]
    measured = norms(params[i].grad for i in held)  # pyright: ignore[reportArgumentType]
    if len(held) == len(params):
        return measured
    each = measured.each.new_zeros(len(params))
    each[held] = measured.each
    return Norms(measured.total, each)
