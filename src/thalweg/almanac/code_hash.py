"""A hash of code that ignores how it is written down.

Evidence goes stale when code changes, not when it is formatted or documented: SHA-256 over abstract
syntax trees without positions and docstrings. Source: the project's almanac (2026).
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterable, Iterator
from functools import cache, lru_cache
from pathlib import Path

import thalweg
from thalweg.errors import ThalwegError

__all__ = ["code_hash", "entry_files", "home_of"]

PACKAGE = Path(thalweg.__file__).parent
# Fields that hold no meaning of their own, or that only some Python versions have.
_IGNORED = {"ctx", "kind", "type_comment", "type_ignores", "type_params"}


def code_hash(files: Iterable[Path]) -> str:
    """SHA-256 of the syntax trees of Python files, in the order of their names.

    Args:
        files: paths; a repeated one counts once.

    Raises:
        ThalwegError: if a file is missing or is not Python.
    """
    # Parsing takes a second for the larger entries: each state of the files is hashed once.
    stated = []
    for path in sorted(set(files), key=lambda p: p.as_posix()):
        try:
            stat = path.stat()
        except OSError as error:
            raise ThalwegError(f"{path.name}: cannot be hashed: {error}") from None
        stated.append((path, stat.st_mtime_ns, stat.st_size, stat.st_ino))
    return _hash(tuple(stated))


@lru_cache(maxsize=1024)
def _hash(stated: tuple[tuple[Path, int, int, int], ...]) -> str:
    digest = hashlib.sha256()
    for path, *_ in stated:
        try:
            tree = ast.parse(path.read_bytes())
        except (OSError, SyntaxError, ValueError) as error:
            raise ThalwegError(f"{path.name}: cannot be hashed: {error}") from None
        digest.update(f"{path.name}\0".encode())
        for token in _tokens(tree):
            digest.update(f"{token}\0".encode())
    return digest.hexdigest()


def entry_files(symbols: Iterable[str], study: str) -> list[Path]:
    """The files that evidence depends on: the homes of an entry's symbols and the study.

    Args:
        symbols: importable names, ``thalweg.optim.AdamO``.
        study: name of the study.

    Raises:
        ThalwegError: if a symbol has no home.
    """
    return [*map(home_of, symbols), PACKAGE / "studies" / f"{study}.py"]


@cache
def home_of(symbol: str) -> Path:
    """The file that defines an importable name, found without importing anything.

    Args:
        symbol: dotted, with the package's name.

    Raises:
        ThalwegError: if no file of the named folder has it in its ``__all__``.

    Example:
        >>> home_of("thalweg.numerics.eigsh").name
        'eigsh.py'
    """
    *where, name = symbol.split(".")[1:]
    folder = PACKAGE.joinpath(*where)
    files = sorted(folder.glob("*.py")) if folder.is_dir() else [folder.with_suffix(".py")]
    for path in files:
        if path.name != "__init__.py" and path.exists() and name in _public(path):
            return path
    raise ThalwegError(f"{symbol}: no file under {'/'.join(where) or 'thalweg'} defines it")


@cache
def _public(path: Path) -> frozenset[str]:
    for node in ast.parse(path.read_bytes()).body:
        if isinstance(node, ast.Assign) and any(
            isinstance(t, ast.Name) and t.id == "__all__" for t in node.targets
        ):
            return frozenset(ast.literal_eval(node.value))
    return frozenset()


def _tokens(node: ast.AST) -> Iterator[str]:
    yield type(node).__name__
    for field, value in ast.iter_fields(node):
        if field in _IGNORED or value is None or value == []:
            continue
        if field == "body" and isinstance(value, list) and _documented(node):
            value = value[1:]
        yield field
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, ast.AST):
                yield from _tokens(item)
            else:
                yield repr(item)
    yield "end"


def _documented(node: ast.AST) -> bool:
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    return isinstance(node, kinds) and ast.get_docstring(node, clean=False) is not None
