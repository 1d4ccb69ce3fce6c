"""Looks into ``optimizer.step(closure)`` (LBFGS): the loss comes to be inside the step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["step_closure", "watch_first_call"]


def step_closure(args: Any, kwargs: Any) -> Callable[[], Any] | None:
    """The closure among the arguments of a step (the optimizer is the first), if there is one."""
    return args[1] if len(args) > 1 else kwargs.get("closure")


def watch_first_call(args: Any, kwargs: Any, then: Callable[[], None]) -> tuple[Any, Any]:
    """The same arguments with a closure after whose first call ``then`` runs."""
    closure, first = step_closure(args, kwargs), True
    assert closure is not None

    def watched(*a: Any, **k: Any) -> Any:
        nonlocal first
        out = closure(*a, **k)
        if first:
            first = False
            then()
        return out

    if len(args) > 1:
        return (args[0], watched, *args[2:]), kwargs
    return args, {**kwargs, "closure": watched}
