"""What to record: which instruments, and which work on a step they share.

Instruments that need the same things are read together: the norms in one pass over the weights, the
activation statistics under one set of hooks. Each costly instrument is a unit of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import thalweg.instruments
from thalweg.errors import unknown_name

__all__ = ["LAWS", "MICRO_BATCHES", "RANKS", "Plan", "known_instruments"]

# Of each micro-batch of an accumulated step.
MICRO_BATCHES = ("micro_batch_items", "micro_batch_loss", "item_weight")
# Figures that the recorder reads off the training itself; no function measures them.
_OWN = ("loss", "lr", "grad_norm_preclip", "val_loss", *MICRO_BATCHES)
# Read along with the norms.
_WITH_NORMS = ("grad_norm_preclip", *MICRO_BATCHES)
# A matrix, and eight figures a layer that the cheap instruments mostly have.
_BY_HAND = ("entk", "layer_statistics")
# Singular values of activations: under the same hooks as the cheap ones, but not cheap.
RANKS = ("effective_rank", "stable_rank", "frobenius_rank")

# Conservation laws: followed at every step, so only on request.
LAWS = ("law_drift", "law_residual")


def known_instruments() -> dict[str, Callable[..., Any] | None]:
    """Every name that ``--instruments`` takes, and the function that measures it, if one does."""
    functions = {
        name: function
        for name in thalweg.instruments.__all__
        if hasattr(function := getattr(thalweg.instruments, name), "needs")
        and name not in _BY_HAND
        and "optimizer" not in function.needs
    }
    return {**dict.fromkeys((*_OWN, *LAWS)), **functions}


class Plan:
    """The instruments of one recording.

    Args:
        names: default all cheap ones, which ``"default"`` stands for among others; ``"laws"`` for
            conservation laws, ``"all"`` for everything that a recording can measure. Sketches and
            snapshots are always kept.

    Raises:
        ThalwegError: for an unknown name, with the three nearest.

    Example:
        >>> Plan(["loss", "grad_norm"]).wants("lr")
        False
    """

    def __init__(self, names: Iterable[str] | None = None) -> None:
        known = known_instruments()
        apart = (*RANKS, *LAWS)
        cheap = [n for n, f in known.items() if not getattr(f, "cost", 0) and n not in apart]
        groups = {"default": cheap, "laws": list(LAWS), "all": list(known)}
        chosen: list[str] = []
        for name in ["default"] if names is None else names:
            if name not in known and name not in groups:
                raise unknown_name("instrument", name, [*known, *groups])
            chosen += groups.get(name, [name])
        self.names = tuple(dict.fromkeys(chosen))
        self.probes = {
            n: f for n in self.names if (f := known[n]) is not None and getattr(f, "cost", 0)
        }
        shared = [known[n] for n in self.names if n not in self.probes]
        needs = {need for f in shared for need in getattr(f, "needs", ())}
        self.norms = bool(needs & {"grads", "params", "update", "init"}) or any(
            self.wants(n) for n in _WITH_NORMS
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
        if unit in self.probes:
            return [unit]
        if unit == "laws":
            return [n for n in LAWS if self.wants(n)]
        names = [n for n in self.names if n not in self.probes]
        return [n for n in names if kinds & set(getattr(known[n], "needs", ()))]

    def units(self) -> dict[str, float]:
        """The units of work that share the time budget, and what each may cost, in steps."""
        laws = any(self.wants(n) for n in LAWS)
        shared = {"norms": self.norms, "activations": self.activations, "laws": laws}
        cheap = [u for u, used in shared.items() if used] + ["sketches", "snapshots"]
        return {**dict.fromkeys(cheap, 0.0), **{n: f.cost for n, f in self.probes.items()}}  # pyright: ignore[reportFunctionMemberAccess]
