"""The one error family for runs, files, entries and ingest, and the form of its messages.

Functions of the library raise ``ValueError`` and ``TypeError`` at their doors; ``ThalwegError`` is
for what lies outside the process: a directory that is no run, a damaged file, an unknown name.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = ["ThalwegError", "unknown_name"]


class ThalwegError(RuntimeError):
    """What was expected, what came, what to do: a message for the user, never a crash of ours."""


def unknown_name(kind: str, name: str, known: Iterable[str]) -> ThalwegError:
    """The error for a name that is not among ``known``, with the three nearest that are.

    Args:
        kind: what the name stands for, as in "instrument".
        name: what was asked for.
        known: the names that exist.

    Example:
        >>> str(unknown_name("instrument", "los", ["loss", "lr", "grad_norm"]))
        "unknown instrument 'los'; nearest: 'loss', 'lr', 'grad_norm'"
    """
    choices = sorted(set(known))
    if not choices:
        return ThalwegError(f"unknown {kind} {name!r}; there is none here")
    near = difflib.get_close_matches(name, choices, n=3, cutoff=0.0)
    return ThalwegError(f"unknown {kind} {name!r}; nearest: {', '.join(map(repr, near))}")
