"""What a user's FILE.py:FUNCTION makes: a model, data, or all that a check needs."""

from __future__ import annotations

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
    from thalweg.errors import ThalwegError
    from thalweg.studies.user_function import user_function

    make = user_function(reference, what)
    try:
        return make()
    except ThalwegError:
        raise
    except Exception as error:
        raise ThalwegError(f"{what} {reference} failed: {type(error).__name__}: {error}") from error
