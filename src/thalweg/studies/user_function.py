"""A user's own function, named as FILE.py:FUNCTION."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from thalweg.errors import ThalwegError, unknown_name

__all__ = ["user_function"]


def user_function(reference: str, what: str) -> Callable[..., Any]:
    """Load FILE.py and take FUNCTION from it.

    Args:
        reference: file and function.
        what: the argument's name, for errors.

    Raises:
        ThalwegError: if there is no such file or function, or the file fails.
    """
    file, _, name = reference.rpartition(":")
    path = Path(file)
    if not file or not name.isidentifier():
        raise ThalwegError(f"{what} must be FILE.py:FUNCTION, got {reference!r}")
    if not path.is_file():
        raise ThalwegError(f"{what}: no file {file!r}")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with _beside(path):
        try:
            spec.loader.exec_module(module)
        except Exception as error:
            raise ThalwegError(
                f"{what} {reference} failed: {type(error).__name__}: {error}"
            ) from error
    if not callable(getattr(module, name, None)):
        known = [n for n in vars(module) if callable(getattr(module, n)) and n[0] != "_"]
        raise unknown_name(f"function of {file}", name, known)
    return getattr(module, name)


@contextmanager
def _beside(path: Path) -> Iterator[None]:
    """Lets the file import its neighbours."""
    folder = str(path.resolve().parent)
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.path.remove(folder)
