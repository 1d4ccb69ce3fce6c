"""Text from outside made plain: one line, nothing that no format can carry, links only to the web.

Source: the project's almanac (2026).
"""

from __future__ import annotations

import datetime
import email.utils
import re
from urllib.parse import urlsplit

__all__ = ["ARXIV_ID", "arxiv_id", "one_line", "utc", "web_link"]

#: New and old identifiers, with or without version.
ARXIV_ID = re.compile(
    r"(?P<id>\d{4}\.\d{4,5}|[a-z-]+(?:\.[A-Z]{2})?/\d{7})(?:v(?P<version>\d{1,3}))?"
)
# What neither XML nor a line of text can carry, and what turns the direction of what follows.
_BAD = re.compile(
    r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff"
    r"\u202a-\u202e\u2066-\u2069]"
)
LONGEST = 20_000  #: characters of a field


def one_line(text: str) -> str:
    r"""White space collapsed, control characters dropped, at most 20,000 characters.

    Example:
        >>> one_line("  Slow features of\n  late\x00 training ")
        'Slow features of late training'
    """
    return " ".join(_BAD.sub("", text).split())[:LONGEST]


def arxiv_id(text: str) -> tuple[str, int | None] | None:
    """Id without version, and the version if there is one; None if it is no arXiv id.

    Example:
        >>> arxiv_id("2401.00001v3"), arxiv_id("astro-ph/0601001"), arxiv_id("errors#x")
        (('arxiv:2401.00001', 3), ('arxiv:astro-ph/0601001', None), None)
    """
    found = ARXIV_ID.fullmatch(text.strip())
    if not found:
        return None
    version = found["version"]
    return f"arxiv:{found['id']}", int(version) if version else None


def utc(text: str) -> str:
    """A moment as ``YYYY-MM-DDTHH:MM:SSZ``, from ISO or the form of mails; a day stays a day.

    Raises:
        ValueError: if it is neither.

    Example:
        >>> utc("2024-01-01T18:00:00.000Z"), utc("Mon, 01 Jan 2024 00:00:00 -0500")
        ('2024-01-01T18:00:00Z', '2024-01-01T05:00:00Z')
    """
    text = text.strip()
    if re.fullmatch(r"\d{4}-\d{2}-\d{2}", text):
        return datetime.date.fromisoformat(text).isoformat()
    try:
        moment = datetime.datetime.fromisoformat(text)
    except ValueError:
        moment = email.utils.parsedate_to_datetime(text)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=datetime.UTC)
    try:
        return moment.astimezone(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ").rjust(20, "0")
    except OverflowError as error:
        raise ValueError(f"{text!r} is no date: {error}") from None


def web_link(text: str) -> str | None:
    """The link if it is http or https with a host, else None: no other may stand on a page.

    Example:
        >>> web_link("https://example.org/a"), web_link("javascript:alert(1)")
        ('https://example.org/a', None)
    """
    text = text.strip()
    try:
        parts = urlsplit(text)
        fine = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        return None
    return text if fine and len(text) <= 2000 and not re.search(r"[\s\"'<>\\]", text) else None
