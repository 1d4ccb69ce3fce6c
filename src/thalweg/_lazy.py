"""Lazy re-exports: a package names what it hands on, and imports it when it is first asked for.

The pattern of scipy and of the scientific-python ``lazy_loader``: ``import thalweg`` and
``thalweg --help`` stay free of torch (2 s, 219 MB).
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

__all__ = ["attach"]


def attach(
    package: str, exports: Mapping[str, Sequence[str]]
) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """``__getattr__``, ``__dir__`` and ``__all__`` for a package's ``__init__``.

    Args:
        package: the package's ``__name__``.
        exports: submodule (relative to the package) to the names that it defines.

    Example:
        >>> __getattr__, __dir__, __all__ = attach("thalweg", {"errors": ["ThalwegError"]})
        >>> __all__
        ['ThalwegError']
    """
    home = {name: module for module, names in exports.items() for name in names}

    def __getattr__(name: str) -> Any:
        if name not in home:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f"{package}.{home[name]}"), name)

    def __dir__() -> list[str]:
        return sorted(home)

    return __getattr__, __dir__, sorted(home)
