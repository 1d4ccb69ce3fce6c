"""The Hessian of one captured loss, taken and let go of so that an instrument can read it.

What can't be measured comes back as a status, never as an exception: a non-finite loss or product
as ``nonfinite``, a loss that can't be differentiated twice as ``unsupported:why``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

import torch
from torch import Tensor

from thalweg.instruments.instrument import Reading
from thalweg.numerics import CurvatureOperator, hessian_operator

__all__ = ["blank", "hessian_reading"]

R = TypeVar("R")


def hessian_reading(
    closure: Callable[[], Tensor],
    params: Iterable[Tensor],
    measure: Callable[[CurvatureOperator], R],
    fail: Callable[[str], R],
) -> R:
    """Measures something of the Hessian of a loss.

    Args:
        closure: evaluates the loss at the present weights; calls no backward.
        params: the weights; those that don't require grad are left out.
        measure: what to read from the Hessian; may raise FloatingPointError.
        fail: makes a reading of a status.

    Raises:
        ValueError: if no parameter requires grad or the loss is not a differentiable scalar.

    Example:
        >>> import torch
        >>> w = torch.ones(2, requires_grad=True)
        >>> hessian_reading(lambda: (w**2).sum(), [w], lambda H: H.dim, lambda status: status)
        2
    """
    wanted = [p for p in params if p.requires_grad]
    if any(hasattr(p, "device_mesh") for p in wanted):
        return fail("unsupported:sharded parameters")
    try:
        with hessian_operator(closure, wanted) as H:
            if not bool(torch.isfinite(H.loss)):
                return fail("nonfinite")
            return measure(H)
    except FloatingPointError:
        return fail("nonfinite")
    except RuntimeError as error:
        text = str(error)
        # an operation without a derivative of its derivative; a network under torch.compile
        if "not implemented" not in text and "double backward" not in text:
            raise
        why = text.splitlines()[0]
        return fail(f"unsupported:no second derivative ({why})")


def blank(status: str) -> Reading:
    """A reading without a figure."""
    return Reading(float("nan"), float("nan"), status)
