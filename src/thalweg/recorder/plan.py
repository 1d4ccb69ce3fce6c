"""What to record: which instruments, and which work on a step they share.

Instruments that need the same things are read together: the norms in one pass over the weights, the
activation statistics under one set of hooks. Each costly instrument is a unit of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import thalweg.instruments
from thalweg.errors import unknown_name

__all__ = ["Plan", "known_instruments"]

# Figures that the recorder reads off the training itself; no function measures them.
_OWN = ("loss", "lr", "grad_norm_preclip", "val_loss")


def known_instruments() -> dict[str, Callable[..., Any] | None]:
    """Every name that ``--instruments`` takes, and the function that measures it, if one does."""
    functions = {
        name: function
        for name in thalweg.instruments.__all__
        if hasattr(function := getattr(thalweg.instruments, name), "needs")
    }
    return {**dict.fromkeys(_OWN), **functions}


class Plan:
    """The instruments of one recording.

    Args:
        names: default all cheap ones; sketches and snapshots are always kept.

    Raises:
        ThalwegError: for an unknown name, with the three nearest.

    Example:
        >>> Plan(["loss", "grad_norm"]).wants("lr")
        False
    """

    def __init__(self, names: Iterable[str] | None = None) -> None:
        known = known_instruments()
        chosen = list(known) if names is None else list(names)
        for name in chosen:
            if name not in known:
                raise unknown_name("instrument", name, known)
        self.names = tuple(dict.fromkeys(chosen))
        needs = {n for name in self.names for n in getattr(known[name], "needs", ())}
        self.norms = bool(needs & {"grads", "params", "update", "init"}) or self.wants(
            "grad_norm_preclip"
        )
        self.activations = "activations" in needs

    def wants(self, name: str) -> bool:
        """Whether an instrument was chosen."""
        return name in self.names

    def instruments_of(self, unit: str) -> list[str]:
        """The chosen instruments that one unit of work measures."""
        known = known_instruments()
        kinds = {
            "norms": {"grads", "params", "update", "init"},
            "activations": {"activations"},
        }.get(unit, set())
        return [n for n in self.names if kinds & set(getattr(known[n], "needs", ()))]

    def units(self) -> list[str]:
        """The units of work that share the time budget."""
        shared = {"norms": self.norms, "activations": self.activations}
        return [u for u, used in shared.items() if used] + ["sketches", "snapshots"]
