"""``thalweg almanac ingest``, ``digest`` and ``export``: what comes in and what goes out."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from thalweg.cli.options import Address, Count

__all__ = ["digest", "export", "ingest"]

Flag = Parameter(negative="", show_default=False)
Option = Parameter(show_default=False)


def ingest(
    *sources: str,
    format: Literal["auto", "atom", "rss", "oai", "hf"] = "auto",
    runs: Annotated[Path | None, Option] = None,
    json: Annotated[bool, Flag] = False,
) -> int:
    """Read in papers from files or web addresses; exit 1 if a record is bad.

    Exit 2 if a whole document cannot be read; the others are. Formats are
    arXiv's Atom, RSS and OAI-PMH, and Hugging Face's daily papers as JSON. Further pages of an
    address are followed, three seconds apart. New papers are scored and related to the entries.

    Args:
        sources: files, or http or https addresses.
        format: of the documents; found out by itself unless given.
        runs: directory of runs; new papers say which of their diagnoses they have to do with.
        json: print JSON.
    """
    from thalweg.almanac.intake import IngestReport
    from thalweg.almanac.intake import ingest as read
    from thalweg.almanac.paper import IngestError
    from thalweg.almanac.run_findings import run_findings
    from thalweg.almanac.store import papers
    from thalweg.cli.almanac_search import paper_plain, print_papers
    from thalweg.cli.output import print_json
    from thalweg.errors import ThalwegError

    if not sources:
        raise ThalwegError("expected a file or an address: thalweg almanac ingest papers.xml")
    shown = run_findings(runs) if runs is not None else ()
    report, failed = IngestReport(), False
    for source in sources:
        try:
            report += read(source, format)
        except IngestError as error:
            report += IngestReport(errors=(error,))
            failed = True
    fresh = set(report.new_ids)
    new = [p for p in papers() if p.id in fresh] if fresh else []
    new.sort(key=lambda p: (-p.importance, p.id))
    if json:
        plain = asdict(report) | {
            "errors": [
                {"document": e.document, "record": e.record, "field": e.field, "reason": e.reason}
                for e in report.errors
            ],
            "papers": [paper_plain(p, shown) for p in new],
        }
        print_json({k: v for k, v in plain.items() if k != "new_ids"})
        return 2 if failed else int(bool(report.errors))
    print_papers(new[:10], shown)
    if len(new) > 10:
        print(f"... and {len(new) - 10} more: thalweg almanac papers")
    for error in report.errors:
        print(f"thalweg: {error}", file=sys.stderr)
    removed = f", {report.removed} withdrawn" if report.removed else ""
    print(f"{report.new} new, {report.updated} updated, {report.skipped} known already{removed}")
    if report.resume:
        print(f"to go on: thalweg almanac ingest '{report.resume}'")
    return 2 if failed else int(bool(report.errors))


def digest(
    period: Annotated[str | None, Option] = None,
    /,
    *,
    format: Literal["text", "html", "eml"] = "text",
    output: Annotated[Path | None, Parameter(name=["--output", "-o"], show_default=False)] = None,
    limit: Count = 10,
    runs: Annotated[Path | None, Option] = None,
    send_to: Annotated[str | None, Option] = None,
    smtp: Annotated[str | None, Option] = None,
    sender: Annotated[str | None, Option] = None,
    again: Annotated[bool, Flag] = False,
    json: Annotated[bool, Flag] = False,
) -> int:
    """What happened in a week, a month or a day: results, changed verdicts, new papers.

    Sent by mail with --send-to and --smtp, no item twice to the same address.

    Args:
        period: an ISO week 2026-W47, a month 2026-11 or a day 2026-11-24; this week if left out.
        format: text, a page, or a mail as a file.
        output: write it to this file.
        limit: at most so many papers.
        runs: directory of runs; papers say which of their diagnoses they have to do with.
        send_to: a mail address.
        smtp: the mail server, HOST:PORT.
        sender: the sender's address; that of the recipient if left out.
        again: send what was sent before as well.
        json: print JSON.
    """
    from thalweg.almanac.bulletin import digest as make
    from thalweg.almanac.run_findings import run_findings
    from thalweg.almanac.sending import send
    from thalweg.cli.almanac_search import paper_plain
    from thalweg.cli.output import print_json
    from thalweg.errors import ThalwegError

    if bool(send_to) != bool(smtp):
        raise ThalwegError("--send-to ADDRESS and --smtp HOST:PORT go together")
    shown = run_findings(runs) if runs is not None else ()
    made = make(period, k=limit, runs=shown)
    sent = None
    if send_to and smtp:
        sent = send(made, send_to, smtp, sender=sender or "", again=again)
    if json:
        print_json(
            {
                "period": made.period,
                "first": made.first,
                "last": made.last,
                "entries": [
                    {"slug": e.slug, "title": e.title, "date": e.source.date} for e in made.entries
                ],
                "changes": [asdict(c) for c in made.changes],
                "papers": [paper_plain(p, shown) for p in made.papers],
                "sent": asdict(sent) if sent else None,
            }
        )
        return 0
    if sent is not None:
        if sent.items:
            print(f"sent {sent.items} items to {send_to}; {sent.before} had been sent before")
        else:
            print(f"nothing new for {send_to}: all {sent.before} items had been sent before")
        return 0
    data = {"text": made.text.encode(), "html": made.html.encode(), "eml": made.eml}[format]
    _out(data, output)
    return 0


def export(
    format: Literal["atom", "rss", "json", "csv"],
    /,
    *,
    topic: Annotated[str | None, Option] = None,
    kind: Annotated[str | None, Option] = None,
    limit: Annotated[Count | None, Option] = None,
    base_url: Address = "http://127.0.0.1:8000",
    output: Annotated[Path | None, Parameter(name=["--output", "-o"], show_default=False)] = None,
    json: Annotated[bool, Flag] = False,
) -> int:
    """Write entries and papers as a feed or a table: Atom, RSS, JSON Feed or CSV.

    Args:
        format: of the feed; json is a JSON Feed 1.1.
        topic: only on this topic.
        kind: only of this kind; paper for what was read in.
        limit: at most so many, the newest change first.
        base_url: of the pages that the items link to.
        output: write it to this file.
        json: print JSON in which the feed is a text.
    """
    from thalweg.almanac.feeds import export as make
    from thalweg.cli.output import print_json

    text = make(format, topic=topic, kind=kind, limit=limit, base_url=base_url)
    if json:
        print_json({"format": format, "text": text})
    else:
        _out(text.encode(), output)
    return 0


def _out(data: bytes, output: Path | None) -> None:
    """To the file, or to the terminal as it is."""
    from thalweg.errors import ThalwegError

    if output is None:
        print(data.decode(), end="")
        return
    try:
        output.write_bytes(data)
    except OSError as error:
        raise ThalwegError(f"{output}: cannot be written: {error.strerror}") from None
    print(f"{output}: {len(data):,} bytes")
