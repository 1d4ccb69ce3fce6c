"""What all pages share: the shelf of entries, the folder of runs, the templates, the token."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from thalweg import __version__
from thalweg.web.answer import Page, address, templates
from thalweg.web.examination import Doctor
from thalweg.web.guard import Token
from thalweg.web.jobs import Jobs
from thalweg.web.live import Streams
from thalweg.web.run_data import RunData
from thalweg.web.run_folder import RunFolder
from thalweg.web.shelf import Shelf

__all__ = ["Site"]


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
        self.jobs = Jobs()
        self.streams = Streams()
        self.shelf = Shelf()
        self.token = Token()
        self.live = live
        self.feeds = feeds
        self._env = templates()

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
