"""Which parameters of a module are meant by patterns of names, and which belong together.

Source: the filters and the scale for each layer of Aghajanyan, Zettlemoyer, Gupta 2020, arXiv
2012.13255.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Iterable, Sequence
from fnmatch import fnmatchcase

from torch import nn

__all__ = ["chosen_parameters", "groups_of"]


def chosen_parameters(
    module: nn.Module,
    include: str | Sequence[str] | None = None,
    exclude: str | Sequence[str] | None = None,
) -> dict[str, nn.Parameter]:
    """Parameters that require gradients and match, under their first names, tied ones once.

    Args:
        module: theirs.
        include: patterns, each a part of the name between dots (``encoder.layer.5``), a glob or a
            regular expression for the whole name; default all.
        exclude: patterns of names that are left out.

    Raises:
        ValueError: if a parameter is complex, a pattern matches nothing or nothing is left.

    Example:
        >>> list(chosen_parameters(nn.Sequential(nn.Linear(2, 2), nn.ReLU()), exclude="*.bias"))
        ['0.weight']
    """
    trained = {n: p for n, p in module.named_parameters() if p.requires_grad and p.numel()}
    for name, p in trained.items():
        if not p.is_floating_point():
            raise ValueError(f"parameter {name!r} is {p.dtype}; only floating ones are projected")
    chosen = set(trained)
    for what, patterns in (("include", include), ("exclude", exclude)):
        if patterns is None:
            continue
        found: set[str] = set()
        for pattern in [patterns] if isinstance(patterns, str) else patterns:
            hits = {name for name in trained if _matches(pattern, name)}
            if not hits:
                raise ValueError(
                    f"{what}={pattern!r} matches no parameter that requires gradients; there are "
                    f"{list(trained)[:10]}"
                )
            found |= hits
        chosen = chosen & found if what == "include" else chosen - found
    if not chosen:
        raise ValueError("no parameter is left to train: all are frozen or excluded")
    return {n: p for n, p in trained.items() if n in chosen}


def _matches(pattern: str, name: str) -> bool:
    if f".{pattern}." in f".{name}." or fnmatchcase(name, pattern):
        return True
    try:
        return re.fullmatch(pattern, name) is not None
    except re.error:  # a glob such as *.bias, that did not match
        return False


def groups_of(names: Iterable[str], by: str | Callable[[str], Hashable]) -> list[int]:
    """Index of each parameter's group, in order of appearance.

    Args:
        names: of parameters.
        by: ``layer`` (the numbered block that it belongs to, else the module that owns it),
            ``tensor``, or a function from a name to a group.

    Raises:
        ValueError: for another word.

    Example:
        >>> groups_of(["tok.weight", "h.0.fc.weight", "h.0.fc.bias", "h.1.fc.bias"], "layer")
        [0, 1, 1, 2]
    """
    if by not in ("layer", "tensor") and not callable(by):
        raise ValueError(f"said_groups must be 'layer', 'tensor' or a function, got {by!r}")
    keys = [by(n) if callable(by) else n if by == "tensor" else _layer(n) for n in names]
    order = {key: i for i, key in enumerate(dict.fromkeys(keys))}
    return [order[key] for key in keys]


def _layer(name: str) -> str:
    """The numbered block that a parameter belongs to, else the module that owns it."""
    numbered = re.match(r"(?:[^.]+\.)*?\d+(?=\.)", name)
    return numbered[0] if numbered else name.rpartition(".")[0]
