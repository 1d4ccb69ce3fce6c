"""Atom of the arXiv API, and of ``rss.arxiv.org/atom``.

Source: arXiv API user's manual (2026), info.arxiv.org/help/api; recorded responses of 2026.
"""

from __future__ import annotations

from thalweg.almanac.paper import Document, IngestError, Paper
from thalweg.almanac.plain_text import arxiv_id, utc, web_link
from thalweg.almanac.xml_document import XMLElement, deep_text, text_of

__all__ = ["read_atom"]

A = "{http://www.w3.org/2005/Atom}"
X = "{http://arxiv.org/schemas/atom}"
S = "{http://a9.com/-/spec/opensearch/1.1/}"
DC = "{http://purl.org/dc/elements/1.1/}"


def read_atom(root: XMLElement, name: str) -> Document:
    """The papers of a feed.

    Args:
        root: ``atom:feed``.
        name: of the document, for errors.

    Raises:
        IngestError: if the feed is arXiv's answer to a wrong question.
    """
    found, errors = [], []
    for number, entry in enumerate(root.findall(f"{A}entry"), 1):
        if "/api/errors" in text_of(entry, f"{A}id"):  # its total says 1, and it looks like a paper
            said = text_of(entry, f"{A}summary") or "no reason given"
            raise IngestError(name, f"arXiv answered with an error: {said}")
        try:
            found.append(_paper(entry, name, str(number)))
        except IngestError as error:
            errors.append(error)
    total = text_of(root, f"{S}totalResults")
    return Document(
        "atom",
        tuple(found),
        tuple(errors),
        total=int(total) if total.isascii() and total.isdigit() and len(total) < 10 else None,
    )


def _paper(entry: XMLElement, name: str, number: str) -> Paper:
    said = text_of(entry, f"{A}id")
    known = arxiv_id(said.rpartition("arxiv.org/abs/")[2].removeprefix("oai:arXiv.org:"))
    if known is None:
        raise IngestError(name, f"expected an arXiv id, got {said!r}", record=number, field="id")
    paper_id, version = known
    title = deep_text(entry.find(f"{A}title"))
    if not title:
        raise IngestError(name, "there is none", record=paper_id, field="title")
    dates = {}
    for field in ("published", "updated"):
        text = text_of(entry, f"{A}{field}")
        try:
            dates[field] = utc(text) if text else None
        except (ValueError, TypeError):
            said = f"expected a date, got {text[:60]!r}"
            raise IngestError(name, said, record=paper_id, field=field) from None
    pdfs = [
        web_link(link.get("href", ""))
        for link in entry.findall(f"{A}link")
        if link.get("title") == "pdf"
    ]
    authors = [text_of(author, f"{A}name") for author in entry.findall(f"{A}author")]
    primary = entry.find(f"{X}primary_category")
    return Paper(
        id=paper_id,
        title=title,
        abstract=deep_text(entry.find(f"{A}summary")).partition("Abstract: ")[2]
        if text_of(entry, f"{X}announce_type")
        else deep_text(entry.find(f"{A}summary")),
        authors=tuple(filter(None, authors)),
        version=version,
        published=dates["published"],
        updated=dates["updated"],
        announce_type=text_of(entry, f"{X}announce_type") or None,
        primary_category=(primary.get("term") if primary is not None else None) or None,
        categories=tuple(filter(None, (c.get("term") for c in entry.findall(f"{A}category")))),
        comment=text_of(entry, f"{X}comment") or None,
        journal_ref=text_of(entry, f"{X}journal_ref") or None,
        doi=text_of(entry, f"{X}doi") or None,
        license=web_link(text_of(entry, f"{DC}rights")),
        pdf_url=next(filter(None, pdfs), None),
    )
