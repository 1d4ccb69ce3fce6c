"""XML from outside, read without entities, without external files, and with errors that say where.

Source: the project's almanac (2026); the danger is C. Späth et al. 2016, "SoK: XML parser
vulnerabilities", WOOT.
"""

from __future__ import annotations

import codecs
import xml.etree.ElementTree as ET

from thalweg.almanac.paper import IngestError
from thalweg.almanac.plain_text import one_line

__all__ = ["XMLElement", "deep_text", "parsed", "text_of"]

XMLElement = ET.Element
DEPTH = 200  #: of elements: feeds have ten


class _NoDoctype(ET.TreeBuilder):
    """Refuses a document type, in which entities would be declared, and absurd depth."""

    def __init__(self) -> None:
        super().__init__()
        self._open = 0

    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        """Called by the parser for each declaration, in whatever encoding it is written."""
        raise ValueError("it declares a DOCTYPE, which no feed needs; it is refused")

    def start(self, tag: str, attrs: dict[str, str]) -> ET.Element:  # type: ignore[override]
        self._open += 1
        if self._open > DEPTH:
            raise ValueError(f"its elements lie more than {DEPTH} deep")
        return super().start(tag, attrs)

    def end(self, tag: str) -> ET.Element:
        self._open -= 1
        return super().end(tag)


def parsed(data: bytes, name: str) -> ET.Element:
    """The root element.

    Args:
        data: the document.
        name: of the document, for errors.

    Raises:
        IngestError: if it is no XML, or declares a DOCTYPE.
    """
    try:
        parser = ET.XMLParser(target=_NoDoctype())
        parser.feed(data.removeprefix(codecs.BOM_UTF8))
        return parser.close()
    except (ET.ParseError, ValueError, LookupError) as error:
        # LookupError: of an encoding that there is not.
        raise IngestError(name, f"no XML that can be read: {error}") from None


def text_of(element: ET.Element | None, path: str = "") -> str:
    """Text of an element, or of the first at a path below it, on one line; empty if none."""
    found = element.find(path) if element is not None and path else element
    return one_line(found.text or "") if found is not None else ""


def deep_text(element: ET.Element | None) -> str:
    """Text of an element with that of all below it, on one line."""
    return one_line("".join(element.itertext())) if element is not None else ""
