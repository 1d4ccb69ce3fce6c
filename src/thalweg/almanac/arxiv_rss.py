"""RSS 2.0 of arXiv's daily announcements.

Source: arXiv RSS specification (2024), info.arxiv.org/help/rss_specifications.html; the samples of
third parties agree with it.
"""

from __future__ import annotations

import re

from thalweg.almanac.paper import Document, IngestError, Paper
from thalweg.almanac.plain_text import arxiv_id, utc, web_link
from thalweg.almanac.xml_document import XMLElement, deep_text, text_of

__all__ = ["read_rss"]

X = "{http://arxiv.org/schemas/atom}"
DC = "{http://purl.org/dc/elements/1.1/}"
_ABSTRACT = re.compile(r"^arXiv:\S+ Announce Type: \S+ Abstract: ?")


def read_rss(root: XMLElement, name: str) -> Document:
    """The papers of a channel; none at weekends.

    Args:
        root: ``rss``.
        name: of the document, for errors.
    """
    found, errors = [], []
    for number, item in enumerate(root.iterfind("channel/item"), 1):
        try:
            found.append(_paper(item, name, str(number)))
        except IngestError as error:
            errors.append(error)
    return Document("rss", tuple(found), tuple(errors))


def _paper(item: XMLElement, name: str, number: str) -> Paper:
    said = text_of(item, "guid") or text_of(item, "link")
    known = arxiv_id(said.removeprefix("oai:arXiv.org:").rpartition("arxiv.org/abs/")[2])
    known = known or arxiv_id(said.removeprefix("oai:arXiv.org:"))
    if known is None:
        raise IngestError(name, f"expected an arXiv id, got {said!r}", record=number, field="guid")
    paper_id, version = known
    title = deep_text(item.find("title"))
    if not title:
        raise IngestError(name, "there is none", record=paper_id, field="title")
    date = text_of(item, "pubDate")
    try:
        announced = utc(date) if date else None
    except (ValueError, TypeError):
        said = f"expected a date, got {date[:60]!r}"
        raise IngestError(name, said, record=paper_id, field="pubDate") from None
    creators = ", ".join(text_of(c) for c in item.findall(f"{DC}creator"))
    return Paper(
        id=paper_id,
        title=title,
        abstract=_ABSTRACT.sub("", deep_text(item.find("description"))),
        authors=tuple(filter(None, re.split(r",\s*(?:and\s+)?|\s+and\s+", creators))),
        version=version,
        announced=announced,
        announce_type=text_of(item, f"{X}announce_type") or None,
        categories=tuple(filter(None, map(text_of, item.findall("category")))),
        license=web_link(text_of(item, f"{DC}rights")),
    )
