"""A digest as text, as a page and as a mail.

Source: the project's almanac (2026); mails as in RFC 5322 and RFC 2045.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from email.message import EmailMessage
from email.policy import SMTP
from html import escape
from typing import TYPE_CHECKING

from thalweg.almanac.items import source_url
from thalweg.almanac.weighing import verdicts

if TYPE_CHECKING:
    from thalweg.almanac.bulletin import Digest

__all__ = ["as_html", "as_message", "as_text"]

#: Title of a part, and of each thing in it: heading, address, lines.
Part = tuple[str, list[tuple[str, str, list[str]]]]
STYLE = """
body { max-width: 44rem; margin: 2rem auto; padding: 0 1rem; font: 1rem/1.5 system-ui, sans-serif;
  color: #1a1a1a; background: #fff; overflow-wrap: anywhere }
a { color: #0b57a4 } h1 { font-size: 1.4rem } h2 { font-size: 1.1rem; margin-top: 2rem }
h3 { font-size: 1rem; margin-bottom: 0 } p { margin: .2rem 0 }
@media (prefers-color-scheme: dark) { body { color: #e6e6e6; background: #161616 }
  a { color: #8ab8f0 } }
"""


def as_text(digest: Digest) -> str:
    """Plain text."""
    lines = [_title(digest), "=" * len(_title(digest)), ""]
    for title, things in _parts(digest):
        lines += [title, "-" * len(title), ""]
        for heading, address, said in things:
            lines += textwrap.wrap(heading, 78, break_long_words=False, break_on_hyphens=False)
            for line in said:
                lines += textwrap.wrap(
                    line,
                    78,
                    initial_indent="  ",
                    subsequent_indent="  ",
                    break_long_words=False,
                    break_on_hyphens=False,
                )
            lines += [f"  {address}", ""] if address else [""]
    return "\n".join(lines).rstrip() + "\n"


def as_html(digest: Digest) -> str:
    """A page of its own."""
    body = [f"<h1>{escape(_title(digest))}</h1>"]
    for title, things in _parts(digest):
        body.append(f"<h2>{escape(title)}</h2>")
        for heading, address, said in things:
            shown = escape(heading)
            link = f'<a href="{escape(address)}">{shown}</a>' if address else shown
            body.append(f"<h3>{link}</h3>")
            body += [f"<p>{escape(line)}</p>" for line in said]
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width">\n'
        f"<title>{escape(_title(digest))}</title>\n<style>{STYLE}</style>\n</head>\n"
        "<body>\n" + "\n".join(body) + "\n</body>\n</html>\n"
    )


def as_message(digest: Digest, sender: str = "", recipient: str = "") -> EmailMessage:
    """A mail with the text, and the page as its alternative."""
    message = EmailMessage(policy=SMTP)
    message["Subject"] = _title(digest)
    if sender:
        message["From"] = sender
    if recipient:
        message["To"] = recipient
    message["X-Thalweg-Period"] = digest.period
    message.set_content(digest.text, cte="quoted-printable")
    message.add_alternative(digest.html, subtype="html", cte="quoted-printable")
    message.set_boundary(f"=_thalweg_{digest.period}")  # the same digest is the same bytes
    return message


def _title(digest: Digest) -> str:
    days = digest.first if digest.first == digest.last else f"{digest.first} to {digest.last}"
    return f"Thalweg almanac, {digest.period} ({days})"


def _parts(digest: Digest) -> Iterator[Part]:
    if digest.changes:
        yield (
            "Verdicts that changed",
            [
                (c.title, "", [f"{c.before} → {c.after}, {c.date} (thalweg almanac show {c.slug})"])
                for c in digest.changes
            ],
        )
    if digest.entries:
        judged = verdicts()
        yield (
            "Results published",
            [
                (
                    e.title,
                    source_url(e),
                    [f"{e.kind}, {judged[e.slug]}", " ".join(e.summary.split())],
                )
                for e in digest.entries
            ],
        )
    if digest.papers:
        rows = []
        for paper in digest.papers:
            near = "; ".join(f"{n.slug} ({n.why})" for n in paper.near) or "no entry"
            said = [f"importance {paper.importance}, {paper.date}, near to {near}"]
            if paper.id in digest.runs:
                said.append(digest.runs[paper.id])
            abstract = textwrap.shorten(paper.abstract, 400, placeholder=" …")
            rows.append((paper.title, paper.url, [*said, *([abstract] if abstract else [])]))
        yield "New papers", rows
    if not digest.keys:
        yield "Nothing new", []
