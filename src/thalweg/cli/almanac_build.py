"""``thalweg almanac build``: the almanac as a static site."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from thalweg.cli.options import Address

__all__ = ["build"]


def build(
    folder: Path,
    /,
    *,
    base_url: Annotated[Address, Parameter(show_default=False)] = "",
    json: Annotated[bool, Parameter(negative="", show_default=False)] = False,
) -> int:
    """Write the almanac as a folder of pages that needs no server; its links are relative.

    Args:
        folder: made if it is not there; an earlier build is written over, nothing else is.
        base_url: where the site will lie, as https://example.org/almanac; feeds are then written.
        json: print JSON.
    """
    from thalweg.cli.output import print_json
    from thalweg.errors import ThalwegError

    try:
        from thalweg.web.static_site import build as write
    except ImportError as error:
        raise ThalwegError(
            f"the pages need {error.name}, which is not installed: pip install 'thalweg[web]'"
        ) from None
    files = write(folder, base_url=base_url.rstrip("/"))
    if json:
        print_json({"folder": str(folder), "files": len(files)})
    else:
        print(folder / "index.html")
    return 0
