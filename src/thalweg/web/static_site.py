"""The almanac as a folder of pages that needs no server: relative links, no scripts, no runs."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

from starlette.datastructures import QueryParams

from thalweg.errors import ThalwegError
from thalweg.web import almanac_pages, finding_pages
from thalweg.web.answer import Page, as_json
from thalweg.web.app import static_files
from thalweg.web.site import Site

__all__ = ["build"]

#: Left in the folder, so that no other folder is ever written over.
MARK = ".thalweg-almanac"
STATIC = ("page.css", "web.css", "icon.svg")


def build(folder: str | os.PathLike[str], *, base_url: str = "") -> list[Path]:
    """Write the almanac as a static site.

    Args:
        folder: made if it is not there; one that is not empty must be of an earlier build.
        base_url: where the site will lie; with it feeds are written, whose links are absolute.

    Returns:
        The files.

    Raises:
        ThalwegError: if the folder holds something else, or cannot be written.
    """
    root = Path(folder)
    try:
        if root.exists() and not (root / MARK).exists() and any(root.iterdir()):
            raise ThalwegError(
                f"{root} is not empty and not an earlier build; it is left alone. Name another"
            )
        return [_write(root, name, content) for name, content in _files(base_url).items()]
    except OSError as error:
        raise ThalwegError(f"{root}: the site cannot be written: {error.strerror}") from None


def _files(base_url: str) -> dict[str, bytes]:
    """Every file of the site by its path."""
    site, nothing = Site(live=False, feeds=bool(base_url)), QueryParams()
    shelf = site.shelf.all()
    pages: dict[str, tuple[str, Page]] = {
        "/": ("/api/entries.json", almanac_pages.listing(site, nothing)),
        "/topics": ("/api/topics.json", almanac_pages.topics(site, nothing)),
    }
    for slug in (s.entry.slug for s in shelf):
        twin = f"/api/entries/{slug}.json"
        pages[f"/e/{slug}"] = twin, almanac_pages.entry(site, nothing, slug)
    for topic in sorted({t for s in shelf for t in s.entry.topics}):
        page = almanac_pages.topic(site, nothing, topic)
        pages[f"/topics/{topic}"] = f"/api/topics/{topic}.json", page
    found = {MARK: b"", **{f"static/{name}": static_files()[name] for name in STATIC}}
    for path, (twin, page) in pages.items():
        link = _linker(path)
        text = site.render(page, path, link(twin), link=link)
        found[_file(path)] = text.encode("utf-8", "replace")
        found[_file(twin)] = as_json(page.data)
    for s in shelf:
        slug = s.entry.slug
        found[f"badge/{slug}.svg"] = finding_pages.badge(site, slug).encode()
        if any(c.evidence for c in s.standing.claims):
            found[f"e/{slug}/evidence.svg"] = almanac_pages.evidence_svg(site, slug).encode()
    for name in finding_pages.FEEDS if base_url else ():
        found[f"feed.{name}"] = finding_pages.feed(name, nothing, base_url).encode()
    return found


def _file(path: str) -> str:
    """The file of an address.

    Example:
        >>> _file("/"), _file("/e/relex"), _file("/e/relex/evidence.svg")
        ('index.html', 'e/relex.html', 'e/relex/evidence.svg')
    """
    name = path.lstrip("/") or "index"
    return name if "." in posixpath.basename(name) else f"{name}.html"


def _linker(path: str) -> Callable[..., str]:
    """Gives addresses as seen from a page."""
    here = posixpath.dirname(_file(path))

    def link(to: str, **query: object) -> str:
        return quote(posixpath.relpath(_file(to), here or "."))

    return link


def _write(root: Path, name: str, content: bytes) -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    part.write_bytes(content)
    part.replace(path)
    return path
