"""The pages of a source: where the next one is, after what this one held.

Source: arXiv API user's manual (2026); OAI-PMH 2.0 (2002, 2015).
"""

from __future__ import annotations

from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from thalweg.almanac.paper import Document

__all__ = ["first_page", "next_page"]

PAGE = 500  #: of the arXiv API; it allows 2,000


def first_page(url: str) -> tuple[str, int]:
    """What to ask first, and how many papers are wanted in all; 0 where nobody counts.

    An arXiv query for more than a page is asked in pages.
    """
    query = _query(url)
    if not _is_arxiv_query(url):
        return url, 0
    wanted = _number(query.get("max_results"), 10)
    if wanted <= PAGE:
        return url, wanted
    return _with(url, {**query, "max_results": str(PAGE)}), wanted


def next_page(url: str, document: Document, wanted: int) -> tuple[str, int]:
    """The URL of the next page and how many are still wanted; an empty URL at the end.

    Args:
        url: of this page.
        document: what it held.
        wanted: papers wanted from this page on, from ``first_page`` or the last call.
    """
    if document.next:
        query = _query(url)
        return _with(
            url, {"verb": query.get("verb", "ListRecords"), "resumptionToken": document.next}
        ), 0
    if document.format != "atom" or not _is_arxiv_query(url) or document.total is None:
        return "", 0
    query = _query(url)
    start, asked = _number(query.get("start"), 0), _number(query.get("max_results"), 10)
    left, start = wanted - asked, start + asked
    if left <= 0 or start >= document.total:
        return "", 0
    return _with(url, {**query, "start": str(start), "max_results": str(min(left, PAGE))}), left


def is_short(url: str, document: Document) -> bool:
    """Whether a page of the arXiv API came empty although more papers must follow: it happens."""
    if document.format != "atom" or not _is_arxiv_query(url) or document.total is None:
        return False
    empty = not document.papers and not document.errors
    asked = _number(_query(url).get("max_results"), 10)
    return empty and asked > 0 and _number(_query(url).get("start"), 0) < document.total


def _is_arxiv_query(url: str) -> bool:
    return urlsplit(url).path.rstrip("/").endswith("/api/query")


def _query(url: str) -> dict[str, str]:
    return dict(parse_qsl(urlsplit(url).query, keep_blank_values=True))


def _number(text: str | None, default: int) -> int:
    return int(text) if text and text.isascii() and text.isdigit() and len(text) < 10 else default


def _with(url: str, query: dict[str, str]) -> str:
    return urlunsplit(urlsplit(url)._replace(query=urlencode(query)))
