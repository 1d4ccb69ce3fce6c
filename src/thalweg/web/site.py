"""What all pages share: the shelf of entries, the folder of runs, the templates, the token."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from thalweg import __version__
from thalweg.web.answer import Page, address, templates
from thalweg.web.concerns import Concerns
from thalweg.web.examination import Doctor
from thalweg.web.guard import Token
from thalweg.web.jobs import Jobs
from thalweg.web.live import Streams
from thalweg.web.run_data import RunData
from thalweg.web.run_folder import RunFolder
from thalweg.web.shelf import Shelf

__all__ = ["Site"]

#: Seconds after a page in which its reader asks for what belongs to it.
CALM_S = 1.0


class Site:
    """The page as a whole.

    Args:
        runs: the folder of runs.
        live: whether a server answers: a static site has no forms and no runs.
        feeds: whether there are feeds.
    """

    def __init__(
        self,
        runs: str | os.PathLike[str] = "runs",
        *,
        live: bool = True,
        feeds: bool = True,
    ) -> None:
        self.runs = RunFolder(runs)
        self.data = RunData(self.runs)
        self.doctor = Doctor(self.runs)
        self.concerns = Concerns(self.runs)
        self.jobs = Jobs()
        self.streams = Streams()
        self.shelf = Shelf()
        self.token = Token()
        self.live = live
        self.feeds = feeds
        self._env = templates()
        self._lock = threading.Lock()
        self._waiting = 0
        self._answered = -CALM_S

    @contextlib.contextmanager
    def answering(self) -> Iterator[None]:
        """While somebody waits for an answer."""
        with self._lock:
            self._waiting += 1
        try:
            yield
        finally:
            with self._lock:
                self._waiting -= 1
                self._answered = time.monotonic()

    def busy(self) -> bool:
        """Whether somebody waits, or has just got a page; what can wait is then put off."""
        return self._waiting > 0 or time.monotonic() - self._answered < CALM_S

    def prepare(self) -> None:
        """What the first page of a kind would wait for, done before anybody asks."""
        for name in self._env.list_templates():
            self._env.get_template(name)
        self.shelf.prepare(self.busy)

    def render(
        self,
        page: Page,
        path: str,
        twin: str | None = None,
        *,
        link: Callable[..., str] = address,
    ) -> str:
        """A page as HTML.

        Args:
            page: what to draw.
            path: its own address, marked in the navigation.
            twin: address of its JSON.
            link: gives the address of a path, ``link(path, **query)``.
        """
        shared: dict[str, Any] = {
            "link": link,
            "live": self.live,
            "feeds": self.feeds,
            "path": path,
            "above": _above(path),
            "twin": twin,
            "title": page.title,
            "data": page.data,
            "version": __version__,
        }
        return self._env.get_template(page.template).render(shared, **page.context)


def _above(path: str) -> str:
    """The page of the navigation to which a page belongs.

    Example:
        >>> _above("/e/relex"), _above("/runs/a/diagnosis"), _above("/compare-runs")
        ('/', '/runs', '/runs')
    """
    first = path.split("/")[1]
    return {"e": "/", "compare-runs": "/runs"}.get(first, f"/{first}")
