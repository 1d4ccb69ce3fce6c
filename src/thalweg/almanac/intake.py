"""Papers read in from a file or from the web: scored, related to the entries, and kept.

One document is one transaction: it is there whole or not at all, whatever happens. A record that
cannot be read is reported and left out; a document that cannot be read changes nothing.

Source: the project's almanac (2026).
"""

from __future__ import annotations

import datetime
import os
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from thalweg.almanac.arxiv_atom import read_atom
from thalweg.almanac.arxiv_rss import read_rss
from thalweg.almanac.fetching import LARGEST, Fetcher, is_url
from thalweg.almanac.hf_papers import read_hf
from thalweg.almanac.nearness import nearest
from thalweg.almanac.oai_pmh import read_oai
from thalweg.almanac.pages import first_page, is_short, next_page
from thalweg.almanac.paper import Document, IngestError, Paper, merged
from thalweg.almanac.static_vectors import centred, embed, entry_vectors, model_installed
from thalweg.almanac.store import open_store, read_papers, remove, transaction, write
from thalweg.almanac.xml_document import parsed
from thalweg.errors import unknown_name

__all__ = ["FORMATS", "IngestReport", "ingest", "read_document"]

FORMATS = ("auto", "atom", "rss", "oai", "hf")
MOST_PAGES = 10_000
_ROOTS = {
    "{http://www.w3.org/2005/Atom}feed": ("atom", read_atom),
    "rss": ("rss", read_rss),
    "{http://www.openarchives.org/OAI/2.0/}OAI-PMH": ("oai", read_oai),
}


@dataclass(frozen=True)
class IngestReport:
    """What came of reading in.

    Attributes:
        new: papers that were not there.
        updated: papers of which more or newer is known now.
        skipped: papers of which nothing new was said.
        errors: records that could not be read, and the page at which a source gave out.
        removed: papers that their source has withdrawn.
        resume: the URL from which to go on, if a source gave out; else empty.
        new_ids: ids of the new papers.
    """

    new: int = 0
    updated: int = 0
    skipped: int = 0
    errors: tuple[IngestError, ...] = ()
    removed: int = 0
    resume: str = ""
    new_ids: tuple[str, ...] = ()

    def __add__(self, other: IngestReport) -> IngestReport:
        return IngestReport(
            self.new + other.new,
            self.updated + other.updated,
            self.skipped + other.skipped,
            self.errors + other.errors,
            self.removed + other.removed,
            other.resume,
            self.new_ids + other.new_ids,
        )


def ingest(
    source: str | os.PathLike[str], format: str = "auto", *, fetcher: Fetcher | None = None
) -> IngestReport:
    """Read in papers: arXiv Atom, RSS or OAI-PMH, or Hugging Face's daily-papers JSON.

    Args:
        source: a file, or an http or https address; further pages of an address are followed.
        format: ``auto`` looks at the document; ``atom``, ``rss``, ``oai``, ``hf``.
        fetcher: asks the web; one that waits three seconds between requests by default.

    Raises:
        IngestError: if the (first) document cannot be read; then nothing is changed.
        ThalwegError: for an unknown format, or if the data folder cannot be written.

    Example:
        >>> ingest("nothing.xml")
        Traceback (most recent call last):
        thalweg.almanac.paper.IngestError: nothing.xml: No such file or directory
    """
    if format not in FORMATS:
        raise unknown_name("format", format, FORMATS)
    name = os.fspath(source)
    if is_url(name):
        return _from_web(name, format, fetcher or Fetcher())
    if "://" in name:
        raise IngestError(name, "expected a file, or an http or https address")
    return _keep(read_document(_read_file(Path(name)), name, format))


def read_document(data: bytes, name: str, format: str = "auto") -> Document:
    """What a document holds, without keeping it.

    Args:
        data: the document.
        name: of it, for errors.
        format: as for ``ingest``.

    Raises:
        IngestError: if it cannot be read, or is of another format.
    """
    if len(data) > LARGEST:
        raise IngestError(name, f"is larger than {LARGEST // 2**20} MB, the most that is read")
    start = data.lstrip(b"\xef\xbb\xbf \t\r\n")[:1]
    if format == "hf" or (format == "auto" and start in (b"{", b"[")):
        return read_hf(data, name)
    if format == "auto" and start != b"<" and data[:2] not in (b"\xff\xfe", b"\xfe\xff"):
        shown = data[:60].decode("utf-8", "replace")
        raise IngestError(name, f"expected XML or JSON, got {shown!r}" if data else "is empty")
    root = parsed(data, name)
    found, read = _ROOTS.get(root.tag, ("", None))
    if read is None:
        expected = "an Atom feed, RSS or OAI-PMH"
        raise IngestError(name, f"expected {expected}, got the element {root.tag[:80]!r}")
    if format not in ("auto", found):
        raise IngestError(name, f"expected {format}, got {found}")
    return read(root, name)


def _read_file(path: Path) -> bytes:
    try:
        if path.stat().st_size > LARGEST:
            raise IngestError(str(path), f"is larger than {LARGEST // 2**20} MB")
        with path.open("rb") as file:
            return file.read(LARGEST + 1)
    except (OSError, ValueError) as error:
        raise IngestError(str(path), getattr(error, "strerror", None) or str(error)) from None


def _from_web(url: str, format: str, fetcher: Fetcher) -> IngestReport:
    """Page by page: what has arrived is kept, whatever becomes of the rest."""
    report, seen = IngestReport(), set()
    url, wanted = first_page(url)
    for page in range(MOST_PAGES):
        seen.add(url)
        try:
            document = read_document(fetcher.get(url), url, format)
            if page and is_short(url, document):
                document = read_document(fetcher.get(url), url, format)
        except IngestError as error:
            if not page:
                raise
            return report + IngestReport(errors=(error,), resume=url)
        report += _keep(document)
        url, wanted = next_page(url, document, wanted)
        if not url or url in seen:
            break
    return report


def _keep(document: Document) -> IngestReport:
    """Writes a document in one transaction.

    What is slow (scoring) is done before it, and again if somebody else has written meanwhile.
    """
    with open_store() as connection:
        for last in (False, False, True):
            before = _changes(connection)
            if last:  # do it all while nobody else can write
                with transaction(connection):
                    return _written(connection, document, *_plan(connection, document))
            plan = _plan(connection, document)
            with transaction(connection):
                if _changes(connection) == before:
                    return _written(connection, document, *plan)
    raise AssertionError("the last round always writes")


def _changes(connection: sqlite3.Connection) -> int:
    return connection.execute("SELECT n FROM changes").fetchone()[0]


def _plan(
    connection: sqlite3.Connection, document: Document
) -> tuple[dict[str, Paper], IngestReport]:
    """The papers to write, and what will be reported."""
    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    ids = dict.fromkeys(paper.id for paper in document.papers)
    there = {paper.id: paper for paper in read_papers(connection, ids)}
    latest, new, updated, skipped = dict(there), [], set(), 0
    for paper in document.papers:
        old = latest.get(paper.id)
        if old is None:
            latest[paper.id] = replace(paper, added=now, changed=now)
            new.append(paper.id)
            continue
        latest[paper.id] = both = merged(old, paper)
        if both == old:
            skipped += 1
        elif paper.id in there:
            updated.add(paper.id)
    changed = {i: latest[i] for i in (*new, *sorted(updated))}
    scored = dict(zip(changed, _scored(list(changed.values()), now), strict=True))
    report = IngestReport(len(new), len(updated), skipped, document.errors, new_ids=tuple(new))
    return scored, report


def _scored(papers: list[Paper], now: str) -> Iterator[Paper]:
    for paper in papers:
        near, score = nearest(f"{paper.title}. {paper.abstract}")
        yield replace(paper, near=near, importance=score, changed=now)


def _written(
    connection: sqlite3.Connection,
    document: Document,
    papers: dict[str, Paper],
    report: IngestReport,
) -> IngestReport:
    write(connection, papers.values(), _vectors(list(papers.values())))
    return replace(report, removed=remove(connection, document.deleted))


def _vectors(papers: list[Paper]) -> dict[str, bytes]:
    """Centred vectors as float16, where there is a model for new texts."""
    if not papers or not model_installed():
        return {}
    texts = [f"{paper.title}. {paper.abstract}" for paper in papers]
    rows = centred(embed(texts), entry_vectors()[2]).astype(np.float16)
    return {paper.id: row.tobytes() for paper, row in zip(papers, rows, strict=True)}
