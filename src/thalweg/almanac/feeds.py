"""The almanac as feeds to subscribe to, and as a table: Atom, RSS, JSON Feed, CSV.

``updated`` is the newest change of content and never the time of asking, so a feed changes when
there is something new and not otherwise. Identifiers never change.

Source: M. Nottingham, R. Sayre 2005, RFC 4287 (Atom); RSS Advisory Board 2009, RSS 2.0.11;
M. Reece, B. Simmons 2020, JSON Feed 1.1; Y. Shafranovich 2005, RFC 4180 (CSV).
"""

from __future__ import annotations

import csv
import datetime
import email.utils
import io
import json
import xml.etree.ElementTree as ET
from urllib.parse import quote, urlencode

from thalweg.almanac.items import Item, items
from thalweg.errors import unknown_name

__all__ = ["FORMATS", "NAMESPACE", "export"]

FORMATS = ("atom", "rss", "json", "csv")
NAMESPACE = "https://github.com/thalweg/thalweg/ns/almanac"
ATOM = "http://www.w3.org/2005/Atom"
HOME = "http://127.0.0.1:8000"  #: where ``thalweg web`` serves by default
COLUMNS = (
    *("id", "kind", "title", "published", "updated", "link", "source"),
    *("authors", "topics", "verdict", "importance", "summary"),
)


def export(
    format: str,
    *,
    topic: str | None = None,
    kind: str | None = None,
    limit: int | None = None,
    base_url: str = HOME,
) -> str:
    """Entries and papers as a feed or a table, the newest change first.

    Args:
        format: ``atom``, ``rss``, ``json`` (JSON Feed) or ``csv``.
        topic: only on this topic.
        kind: only of this kind; ``paper`` for what was read in.
        limit: at most so many.
        base_url: of the pages that the items link to.

    Raises:
        ThalwegError: for an unknown format, topic or kind, with the nearest.
        ValueError: for a limit below 0.

    Example:
        >>> export("csv", kind="law").splitlines()[0][:25]
        'id,kind,title,published,u'
    """
    if format not in FORMATS:
        raise unknown_name("format", format, FORMATS)
    if limit is not None and limit < 0:
        raise ValueError(f"export: limit must be at least 0, got {limit}")
    base_url = base_url.rstrip("/")
    found = items(topic=topic, kind=kind, base_url=base_url)[:limit]
    if format == "csv":
        return _csv(found)
    query = urlencode([(n, v) for n, v in (("kind", kind), ("topic", topic)) if v])
    title = " ".join(["Thalweg almanac", *(f"· {v}" for v in (kind, topic) if v)])
    address = f"{base_url}/feed.{format}" + (f"?{query}" if query else "")
    name = "/".join(quote(v) for v in ("feed", kind or "all", topic or "all"))
    make = {"atom": _atom, "rss": _rss, "json": _json}[format]
    return make(found, title, address, f"tag:github.com,2026:thalweg/almanac/{name}", base_url)


def _atom(found: list[Item], title: str, address: str, name: str, home: str) -> str:
    feed = ET.Element("feed", {"xmlns": ATOM, "xmlns:almanac": NAMESPACE})
    _add(feed, "id", name)
    _add(feed, "title", title)
    _add(feed, "updated", _newest(found))
    _add(_add(feed, "author"), "name", "Thalweg")
    _add(feed, "link", rel="self", type="application/atom+xml", href=address)
    _add(feed, "link", rel="alternate", type="text/html", href=f"{home}/")
    for item in found:
        entry = _add(feed, "entry")
        _add(entry, "id", item.tag)
        _add(entry, "title", item.title)
        _add(entry, "updated", item.updated)
        _add(entry, "published", item.published)
        _add(entry, "link", rel="alternate", href=item.link)
        if item.source and item.source != item.link:
            _add(entry, "link", rel="related", href=item.source)
        for author in item.authors:
            _add(_add(entry, "author"), "name", author)
        _add(entry, "summary", item.summary)
        for term in item.topics:
            _add(entry, "category", term=term)
        _add(entry, "almanac:importance", str(item.importance))
        if item.verdict:
            _add(entry, "almanac:verdict", item.verdict)
    return _document(feed)


def _rss(found: list[Item], title: str, address: str, name: str, home: str) -> str:
    names = {"xmlns:atom": ATOM, "xmlns:almanac": NAMESPACE}
    names["xmlns:dc"] = "http://purl.org/dc/elements/1.1/"
    rss = ET.Element("rss", {"version": "2.0", **names})
    channel = _add(rss, "channel")
    _add(channel, "title", title)
    _add(channel, "link", f"{home}/")
    _add(channel, "description", "Published results, what was measured here, and new papers.")
    _add(channel, "lastBuildDate", _mail_date(_newest(found)))
    _add(channel, "atom:link", rel="self", type="application/rss+xml", href=address)
    for item in found:
        entry = _add(channel, "item")
        _add(entry, "title", item.title)
        _add(entry, "link", item.link)
        _add(entry, "description", item.summary)
        _add(entry, "guid", item.tag, isPermaLink="false")
        _add(entry, "pubDate", _mail_date(item.published))
        for author in item.authors:
            _add(entry, "dc:creator", author)
        for term in item.topics:
            _add(entry, "category", term)
        _add(entry, "almanac:importance", str(item.importance))
        if item.verdict:
            _add(entry, "almanac:verdict", item.verdict)
    return _document(rss)


def _json(found: list[Item], title: str, address: str, name: str, home: str) -> str:
    def one(item: Item) -> dict[str, object]:
        row: dict[str, object] = {
            "id": item.tag,
            "url": item.link,
            "title": item.title,
            "content_text": item.summary,
            "summary": item.summary[:300],
            "date_published": item.published,
            "date_modified": item.updated,
            "authors": [{"name": author} for author in item.authors],
            "tags": list(item.topics),
            "_almanac": {
                "kind": item.kind,
                "importance": item.importance,
                "verdict": item.verdict or None,
                "claims": list(item.claims),
            },
        }
        return row | ({"external_url": item.source} if item.source else {})

    feed = {
        "version": "https://jsonfeed.org/version/1.1",
        "title": title,
        "home_page_url": f"{home}/",
        "feed_url": address,
        "authors": [{"name": "Thalweg"}],
        "items": list(map(one, found)),
    }
    return json.dumps(feed, ensure_ascii=False, indent=1) + "\n"


def _csv(found: list[Item]) -> str:
    out = io.StringIO()
    table = csv.writer(out, lineterminator="\r\n")
    table.writerow(COLUMNS)
    for item in found:
        row = [item.name, item.kind, item.title, item.published, item.updated, item.link]
        row += [item.source, "; ".join(item.authors), "; ".join(item.topics), item.verdict]
        table.writerow([*map(_cell, row), item.importance, _cell(item.summary)])
    return out.getvalue()


def _cell(text: str) -> str:
    """Text that no spreadsheet takes for a formula."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


def _newest(found: list[Item]) -> str:
    return max((item.updated for item in found), default="1970-01-01T00:00:00Z")


def _mail_date(moment: str) -> str:
    return email.utils.format_datetime(datetime.datetime.fromisoformat(moment))


def _add(parent: ET.Element, tag: str, text: str | None = None, **attributes: str) -> ET.Element:
    child = ET.SubElement(parent, tag, attributes)
    child.text = text
    return child


def _document(root: ET.Element) -> str:
    ET.indent(root, " ")
    return f'<?xml version="1.0" encoding="utf-8"?>\n{ET.tostring(root, "unicode")}\n'
