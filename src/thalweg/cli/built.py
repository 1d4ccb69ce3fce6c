"""What a user's FILE.py:FUNCTION makes: a model, data, or all that a check needs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

__all__ = ["called"]


def called(reference: str, what: str) -> Any:
    """The result of FILE.py:FUNCTION.

    Args:
        reference: file and function; the function takes no arguments.
        what: the argument's name, for errors.

    Raises:
        ThalwegError: if there is no such file or function, or it fails.
    """
    import importlib.util
    import sys

    from thalweg.errors import ThalwegError, unknown_name

    file, _, name = reference.rpartition(":")
    path = Path(file)
    if not file or not name.isidentifier():
        raise ThalwegError(f"{what} must be FILE.py:FUNCTION, got {reference!r}")
    if not path.is_file():
        raise ThalwegError(f"{what}: no file {file!r}")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.resolve().parent))
    try:
        spec.loader.exec_module(module)
        if not callable(getattr(module, name, None)):
            known = [n for n in vars(module) if callable(getattr(module, n)) and n[0] != "_"]
            raise unknown_name(f"function of {file}", name, known)
        return getattr(module, name)()
    except ThalwegError:
        raise
    except Exception as error:
        raise ThalwegError(f"{what} {reference} failed: {type(error).__name__}: {error}") from error
    finally:
        sys.path.pop(0)
