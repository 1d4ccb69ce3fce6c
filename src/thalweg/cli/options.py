"""Kinds of options that several verbs take, checked before any work begins."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from cyclopts.validators import Number

__all__ = ["Address", "Count", "FigureFile"]

FIGURES = (".svg", ".png", ".pdf")


def _figure_file(_: Any, path: Path | None) -> None:
    if path is not None and path.suffix not in FIGURES:
        raise ValueError(f"expected a name that ends in {', '.join(FIGURES)}")


def _address(_: Any, text: str | None) -> None:
    if text and not text.startswith(("https://", "http://")):
        raise ValueError("expected an address that begins with https://")


#: How many of something, at least one.
Count = Annotated[int, Parameter(validator=Number(gte=1))]
#: Where a figure is drawn to.
FigureFile = Annotated[Path | None, Parameter(validator=_figure_file, show_default=False)]
#: A web address.
Address = Annotated[str, Parameter(validator=_address)]
