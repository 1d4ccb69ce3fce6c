"""OAI-PMH ``ListRecords`` in arXiv's own metadata format.

Source: The Open Archives Initiative protocol for metadata harvesting 2.0 (2002, 2015); arXiv's
schema ``http://arxiv.org/OAI/arXiv/``.
"""

from __future__ import annotations

from thalweg.almanac.paper import Document, IngestError, Paper
from thalweg.almanac.plain_text import arxiv_id, utc, web_link
from thalweg.almanac.xml_document import XMLElement, deep_text, text_of

__all__ = ["read_oai"]

O = "{http://www.openarchives.org/OAI/2.0/}"  # noqa: E741
R = "{http://arxiv.org/OAI/arXiv/}"


def read_oai(root: XMLElement, name: str) -> Document:
    """The records of a page, those deleted, and the token of the next page.

    Args:
        root: ``OAI-PMH``.
        name: of the document, for errors.

    Raises:
        IngestError: if the answer is an error; no records is none.
    """
    problem = root.find(f"{O}error")
    if problem is not None and problem.get("code") != "noRecordsMatch":
        raise IngestError(name, f"the archive answered {problem.get('code')}: {text_of(problem)}")
    found, errors, deleted = [], [], []
    for number, record in enumerate(root.iterfind(f"{O}ListRecords/{O}record"), 1):
        try:
            header = record.find(f"{O}header")
            if header is not None and header.get("status") == "deleted":
                said = text_of(header, f"{O}identifier")
                deleted.append(_id(said, name, str(number), "identifier")[0])
            else:
                found.append(_paper(record, name, str(number)))
        except IngestError as error:
            errors.append(error)
    token = root.find(f"{O}ListRecords/{O}resumptionToken")
    size = token.get("completeListSize", "") if token is not None else ""
    return Document(
        "oai",
        tuple(found),
        tuple(errors),
        tuple(deleted),
        next=text_of(token),
        total=int(size) if size.isascii() and size.isdigit() and len(size) < 10 else None,
    )


def _id(said: str, name: str, number: str, field: str) -> tuple[str, int | None]:
    known = arxiv_id(said.removeprefix("oai:arXiv.org:"))
    if known is None:
        raise IngestError(name, f"expected an arXiv id, got {said!r}", record=number, field=field)
    return known


def _paper(record: XMLElement, name: str, number: str) -> Paper:
    data = record.find(f"{O}metadata/{R}arXiv")
    if data is None:
        wanted = "expected metadataPrefix=arXiv"
        raise IngestError(name, wanted, record=number, field="metadata")
    paper_id, version = _id(text_of(data, f"{R}id"), name, number, "id")
    title = deep_text(data.find(f"{R}title"))
    if not title:
        raise IngestError(name, "there is none", record=paper_id, field="title")
    dates = {}
    for field in ("created", "updated"):
        text = text_of(data, f"{R}{field}")
        try:
            dates[field] = utc(text) if text else None
        except (ValueError, TypeError):
            said = f"expected a date, got {text[:60]!r}"
            raise IngestError(name, said, record=paper_id, field=field) from None
    authors = []
    for author in data.iterfind(f"{R}authors/{R}author"):
        parts = (text_of(author, f"{R}{part}") for part in ("forenames", "keyname", "suffix"))
        authors.append(" ".join(filter(None, parts)))
    return Paper(
        id=paper_id,
        title=title,
        abstract=deep_text(data.find(f"{R}abstract")),
        authors=tuple(filter(None, authors)),
        version=version,
        published=dates["created"],
        updated=dates["updated"],
        categories=tuple(text_of(data, f"{R}categories").split()),
        comment=text_of(data, f"{R}comments") or None,
        journal_ref=text_of(data, f"{R}journal-ref") or None,
        doi=text_of(data, f"{R}doi") or None,
        license=web_link(text_of(data, f"{R}license")),
    )
