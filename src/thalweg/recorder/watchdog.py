"""Writes rows out when the training is busy elsewhere for long: an evaluation, a checkpoint."""

from __future__ import annotations

import threading

from thalweg.recorder.store import Store

__all__ = ["Watchdog"]


class Watchdog(threading.Thread):
    """A daemon thread that flushes a store whose rows have waited for almost a second.

    Args:
        store: whose rows.
    """

    def __init__(self, store: Store) -> None:
        super().__init__(name="thalweg-flush", daemon=True)
        self._store = store
        self._done = threading.Event()
        self.start()

    def run(self) -> None:
        """Looks ten times a second."""
        while not self._done.wait(0.1):
            if self._store.stale(0.9):
                self._store.flush()

    def stop(self) -> None:
        """Ends the thread."""
        self._done.set()
        self.join(timeout=5)
