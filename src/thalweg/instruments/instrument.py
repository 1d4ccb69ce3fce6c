"""What makes a plain function an instrument: a note of what it needs.

An instrument measures one thing at one moment. The recorder reads ``needs`` to know what to keep
for it and when to call it; called by hand, the note does nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

__all__ = ["Need", "Reading", "instrument"]

Need = Literal[
    "optimizer",
    "grads",
    "params",
    "update",
    "init",
    "activations",
    "closure",
    "micro_batches",
    "inputs",
]
"""What an instrument may need of the moment at which it measures.

``optimizer``: its param groups. ``grads``: final gradients before the step. ``params``: the
weights. ``update``: the weights before and after one step. ``init``: the first weights.
``activations``: outputs of modules and of activation functions. ``closure``: a callable that
re-evaluates the loss of the step. ``micro_batches``: the gradient of each part of an accumulated
step. ``inputs``: the model and inputs for it.
"""

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Reading:
    """One measured figure and how far to trust it.

    Attributes:
        value: the figure; nan where there is none.
        uncertainty: one standard error or a bound, as the instrument says; nan if none.
        status: ``ok``, ``nonfinite``, ``skipped:why`` or ``unsupported:why``.
    """

    value: float
    uncertainty: float = float("nan")
    status: str = "ok"


def instrument(*needs: Need, cost: float = 0.0) -> Callable[[F], F]:
    """Marks a function as an instrument.

    Args:
        needs: what it needs of the moment, see ``Need``.
        cost: rough price in forward-and-backward passes, by which the recorder judges whether the
            first call fits its time budget; later calls go by the measured price.
    """

    def mark(function: F) -> F:
        function.needs = needs  # pyright: ignore[reportFunctionMemberAccess]
        function.cost = cost  # pyright: ignore[reportFunctionMemberAccess]
        return function

    return mark
