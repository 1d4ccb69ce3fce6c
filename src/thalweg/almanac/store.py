"""What was read in, in one SQLite file of the user's data folder.

Papers and the record of what was sent lie in ``almanac.sqlite`` (write-ahead log, so that readers
and a writer do not wait for each other). What is read in from one document is one transaction:
after a crash it is there whole or not at all. Everything that is searched by is made from it in
memory, so there is no index that could be half written. Source: the project's almanac (2026).
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from thalweg.almanac.evidence import user_folder
from thalweg.almanac.paper import Near, Paper
from thalweg.errors import ThalwegError

__all__ = ["open_store", "papers", "read_papers", "remove", "store_file", "store_state", "write"]

SCHEMA = 1
_TABLES = """
CREATE TABLE papers (
    id TEXT PRIMARY KEY, date TEXT NOT NULL, added TEXT NOT NULL, changed TEXT NOT NULL,
    importance INTEGER NOT NULL, data TEXT NOT NULL, vector BLOB
) WITHOUT ROWID;
CREATE INDEX papers_by_date ON papers (date);
CREATE TABLE sent (recipient TEXT, item TEXT, sent TEXT, PRIMARY KEY (recipient, item));
CREATE TABLE changes (n INTEGER NOT NULL);
INSERT INTO changes VALUES (0);
"""


def store_file() -> Path:
    """Where the file lies, whether it is there or not."""
    return user_folder() / "almanac.sqlite"


@contextmanager
def open_store() -> Iterator[sqlite3.Connection]:
    """The file, made if it is not there; transactions begin and end by hand.

    Raises:
        ThalwegError: if it cannot be opened or written, or is no such file.
    """
    path = store_file()
    connection = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(path, timeout=30, isolation_level=None)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")  # what is reported as read in, is
        _prepare(connection, path)
        yield connection
    except (sqlite3.Error, OSError) as error:
        raise ThalwegError(f"{path}: {error}") from None
    finally:
        if connection is not None:
            connection.close()


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    """Makes the tables, once even if several processes come at the same time."""
    if _version(connection) == 0:
        with transaction(connection):
            if _version(connection) == 0:
                for statement in filter(str.strip, _TABLES.split(";")):
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version = {SCHEMA}")
    if (found := _version(connection)) != SCHEMA:
        raise ThalwegError(f"{path}: written by another version of Thalweg (schema {found})")


def _version(connection: sqlite3.Connection) -> int:
    return connection.execute("PRAGMA user_version").fetchone()[0]


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """All or nothing, also for what ends the process."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def write(
    connection: sqlite3.Connection, rows: Iterable[Paper], vectors: dict[str, bytes] | None = None
) -> None:
    """Write papers, over those of the same id."""
    for paper in rows:
        connection.execute(
            "INSERT OR REPLACE INTO papers VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                paper.id,
                paper.date,
                paper.added,
                paper.changed,
                paper.importance,
                json.dumps(asdict(paper), ensure_ascii=False),
                (vectors or {}).get(paper.id),
            ),
        )
    connection.execute("UPDATE changes SET n = n + 1")


def remove(connection: sqlite3.Connection, ids: Iterable[str]) -> int:
    """Drop papers; how many there were."""
    gone = sum(
        connection.execute("DELETE FROM papers WHERE id = ?", (i,)).rowcount for i in set(ids)
    )
    connection.execute("UPDATE changes SET n = n + 1")
    return gone


def store_state() -> tuple[str, int]:
    """Changes whenever papers were written; ``("", 0)`` where nothing was ever read in."""
    path = store_file()
    if not path.exists():
        return "", 0
    with open_store() as connection:
        return str(path), connection.execute("SELECT n FROM changes").fetchone()[0]


def read_papers(connection: sqlite3.Connection, ids: Iterable[str] | None = None) -> list[Paper]:
    """All papers, the newest first, or those of some ids."""
    if ids is None:
        rows = connection.execute("SELECT data FROM papers ORDER BY date DESC, id DESC")
        return [_paper(data) for (data,) in rows]
    found = []
    for one in ids:
        row = connection.execute("SELECT data FROM papers WHERE id = ?", (one,)).fetchone()
        found += [_paper(row[0])] if row else []
    return found


def papers(*, limit: int | None = None, since: str | None = None) -> list[Paper]:
    """What was read in, the newest first.

    Args:
        limit: at most so many.
        since: ISO date; only papers of that day or later.

    Raises:
        ThalwegError: if the file of the data folder cannot be read.
        ValueError: for a limit below 0, or a date that is none.

    Example:
        >>> papers(since="9999-01-01")
        []
    """
    import datetime

    if limit is not None and limit < 0:
        raise ValueError(f"papers: limit must be at least 0, got {limit}")
    if since is not None:
        since = datetime.date.fromisoformat(since).isoformat()
    if not store_file().exists():
        return []
    with open_store() as connection:
        rows = connection.execute(
            "SELECT data FROM papers WHERE date >= ? ORDER BY date DESC, id DESC LIMIT ?",
            (since or "", -1 if limit is None else limit),
        ).fetchall()
    return [_paper(data) for (data,) in rows]


_FIELDS = {f.name for f in fields(Paper)}


def _paper(text: str) -> Paper:
    data: dict[str, Any] = {k: v for k, v in json.loads(text).items() if k in _FIELDS}
    for name in ("authors", "categories", "keywords"):
        data[name] = tuple(data.get(name, ()))
    data["near"] = tuple(Near(**near) for near in data.get("near", ()))
    return Paper(**data)
