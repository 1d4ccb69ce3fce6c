"""The almanac as the page shows it: every entry and where it stands, by the evidence of now."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from thalweg.almanac.catalogue import entries
from thalweg.almanac.code_hash import PACKAGE
from thalweg.almanac.entry import Entry
from thalweg.almanac.evidence import SHIPPED, user_folder
from thalweg.almanac.standings import Standing, standing
from thalweg.errors import unknown_name

__all__ = ["Shelf", "Shelved"]

# Seconds for which nothing is looked at: 32 readers do not make 32 walks through the files.
_STILL_S = 1.0
#: Seconds after which it is looked again whether somebody waits.
PAUSE_S = 0.05


@dataclass(frozen=True)
class Shelved:
    """An entry and where it stands."""

    entry: Entry
    standing: Standing

    @property
    def date(self) -> str:
        """The newest of its publication and its evidence, ISO."""
        runs = [c.evidence.run_at for c in self.standing.claims if c.evidence is not None]
        return max([self.entry.source.date, *runs])


class Shelf:
    """All entries, kept until evidence or code changes on the disk."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seen: object = None
        self._looked = -_STILL_S
        self._all: dict[str, Shelved] = {}

    def all(self) -> list[Shelved]:
        """Every entry, by slug."""
        with self._lock:
            if time.monotonic() - self._looked > _STILL_S:
                if (seen := _state()) != self._seen:
                    self._all = {e.slug: Shelved(e, standing(e)) for e in entries()}
                    self._seen = seen
                self._looked = time.monotonic()
            return list(self._all.values())

    def prepare(self, busy: Callable[[], bool]) -> None:
        """Judge every entry before anybody asks; what takes long is remembered by file.

        Args:
            busy: whether somebody waits for a page, who then goes first: this is all Python, and
                a reader beside it would get the processor every few milliseconds only.
        """
        for entry in entries():
            while busy():
                time.sleep(PAUSE_S)
            standing(entry)
        self.all()

    @property
    def state(self) -> object:
        """Changes whenever a verdict or its freshness may have."""
        self.all()
        return self._seen

    def get(self, slug: str) -> Shelved:
        """The entry of that slug.

        Raises:
            ThalwegError: if there is none, with the nearest names.
        """
        found = {shelved.entry.slug: shelved for shelved in self.all()}
        if slug not in found:
            raise unknown_name("entry", slug, found)
        return found[slug]


def _state() -> object:
    """Changes whenever a verdict or its freshness could."""
    evidence = [
        p for folder in (SHIPPED, user_folder() / "evidence") for p in folder.glob("*/*.json")
    ]
    facts = [(str(p), p.stat().st_mtime_ns) for p in [*evidence, *PACKAGE.rglob("*.py")]]
    return hash(tuple(facts))
