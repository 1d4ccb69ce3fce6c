"""The small files of a run as they are read, its header and events, and where runs lie."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from thalweg.errors import ThalwegError

__all__ = ["list_events", "measured_state", "newest_run", "read_events", "read_header"]

# What readers rely on, where it is there at all.
_TYPES: dict[str, type | tuple[type, ...]] = {
    "created": str,
    "status": str,
    "segments": list,
    "optimizers": list,
    "models": list,
    "instruments": list,
    "overhead": (dict, type(None)),
}
_EVENTS_NAME = re.compile(r"events(-r\d+)?\.jsonl")


def read_header(path: Path) -> dict[str, Any]:
    """``run.json`` of a run.

    Args:
        path: the directory of the run.

    Raises:
        ThalwegError: if there is none, or it is damaged or of another kind.
    """
    expected = f"{path}: expected the directory of a run, which has a run.json in it"
    try:
        header = json.loads((path / "run.json").read_bytes())
    except FileNotFoundError:
        came = "there is none of that name" if not path.exists() else "it has none"
        raise ThalwegError(f"{expected}; {came}. Record one: thalweg record train.py") from None
    except NotADirectoryError:
        raise ThalwegError(f"{expected}; it is a file. Give the directory it lies in") from None
    except OSError as error:
        raise ThalwegError(f"{expected}; it cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise ThalwegError(
            f"{path / 'run.json'}: expected JSON; got damage ({error}). "
            "The measurements beside it are intact: restore run.json from a copy of the run"
        ) from None
    if not isinstance(header, dict) or header.get("kind") != "thalweg.run":
        raise ThalwegError(f"{expected} of kind 'thalweg.run'; this one is of another kind")
    version = header.get("schema_version")
    if version != 1:
        raise ThalwegError(
            f"{path}: run.json has schema_version {version!r}; this Thalweg reads 1. Update it"
        )
    for key, kinds in _TYPES.items():
        if key in header and not isinstance(header[key], kinds):
            wanted = kinds[0] if isinstance(kinds, tuple) else kinds
            raise ThalwegError(
                f"{path / 'run.json'}: expected {key!r} to be a {wanted.__name__}; got "
                f"{type(header[key]).__name__}. Restore run.json from a copy of the run"
            )
    return header


def list_events(path: Path) -> list[Path]:
    """The event files of a run, one a rank."""
    return sorted(file for file in path.iterdir() if _EVENTS_NAME.fullmatch(file.name))


def read_events(path: Path) -> tuple[list[dict[str, Any]], str]:
    """The events of one file, and what was dropped ("" if nothing)."""
    events, dropped, torn = [], 0, 0
    *lines, rest = path.read_bytes().split(b"\n")  # what follows the last newline was cut short
    for line in [*lines, rest]:
        if not line.strip():
            continue
        try:
            event = json.loads(line)
            if not isinstance(event["event"], str) or not isinstance(event["time_s"], int | float):
                raise ValueError
            events.append(event)
        except (ValueError, KeyError, TypeError, RecursionError):
            torn += line is rest
            dropped += line is not rest
    if dropped:
        return events, f"damaged, {dropped} lines dropped"
    return events, f"torn tail, {len(rest)} bytes dropped" if torn else ""


def measured_state(path: Path) -> str:
    """Changes whenever a file of measurements does; the same in every process.

    Args:
        path: the directory of the run.
    """
    facts = hashlib.sha256()
    folder = path / "measurements"
    for file in sorted(folder.iterdir()) if folder.is_dir() else ():
        if file.suffix not in (".arrows", ".parquet"):
            continue
        try:
            stat = file.stat()
        except FileNotFoundError:  # compacted since it was listed
            continue
        facts.update(f"{file.name} {stat.st_size} {stat.st_mtime_ns}\n".encode())
    return facts.hexdigest()[:16]


def newest_run(root: str | os.PathLike[str] = "runs") -> Path:
    """The run under a directory that was created last.

    Args:
        root: where runs lie, each a directory.

    Raises:
        ThalwegError: if none lies there.
    """
    found = sorted(_created(Path(root)))
    if not found:
        raise ThalwegError(
            f"expected a run under {root}; there is none. "
            "Record one (thalweg record train.py), name one, or say where they lie: --root DIR"
        )
    return found[-1][-1]


def _created(root: Path) -> Iterator[tuple[str, float, Path]]:
    for header in root.glob("*/run.json"):
        try:
            yield (
                str(read_header(header.parent).get("created", "")),
                header.stat().st_mtime,
                (header.parent),
            )
        except (ThalwegError, OSError):
            continue
