"""JSON of Hugging Face's daily papers: the list of a day, a search, or one paper.

In lists what belongs to the paper is nested under ``paper``; one paper alone is flat. Whatever is
missing or null stays unknown, never 0. Source: github.com/huggingface/huggingface_hub (2026).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from thalweg.almanac.paper import Document, IngestError, Paper
from thalweg.almanac.plain_text import arxiv_id, one_line, utc, web_link

__all__ = ["read_hf"]


def read_hf(data: bytes, name: str) -> Document:
    """The papers of a document.

    Args:
        data: JSON.
        name: of the document, for errors.

    Raises:
        IngestError: if it is no JSON, or neither a list nor a paper.
    """
    try:
        parsed = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise IngestError(name, f"no JSON that can be read: {error}") from None
    if isinstance(parsed, Mapping):
        papers = parsed.get("papers")
        parsed = papers if isinstance(papers, list) else [parsed]
    if not isinstance(parsed, list):
        raise IngestError(name, f"expected a list of papers, got {type(parsed).__name__}")
    found, errors = [], []
    for number, item in enumerate(parsed, 1):
        try:
            found.append(_Item(item, name, str(number)).paper())
        except IngestError as error:
            errors.append(error)
    return Document("hf", tuple(found), tuple(errors))


class _Item:
    """One item of a list: fields are looked up inside ``paper``, then outside."""

    def __init__(self, item: Any, name: str, record: str) -> None:
        self.name, self.record = name, record
        if not isinstance(item, Mapping):
            raise self.wrong("", f"expected an object, got {type(item).__name__}")
        inner = item.get("paper")
        self.levels = [inner, item] if isinstance(inner, Mapping) else [item]

    def wrong(self, field: str, reason: str) -> IngestError:
        return IngestError(self.name, reason, record=self.record, field=field)

    def get(self, field: str) -> Any:
        return next((v for o in self.levels if (v := o.get(field)) is not None), None)

    def text(self, field: str) -> str | None:
        value = self.get(field)
        if value is not None and not isinstance(value, str):
            raise self.wrong(field, f"expected text, got {type(value).__name__}")
        return (one_line(value) or None) if value else None

    def count(self, field: str) -> int | None:
        value = self.get(field)
        if value is None:
            return None
        fine = isinstance(value, int | float) and not isinstance(value, bool)
        if not fine or not math.isfinite(value) or not 0 <= value < 2**53:
            raise self.wrong(field, f"expected a count, got {str(value)[:60]!r}")
        return int(value)

    def date(self, field: str) -> str | None:
        value = self.text(field)
        try:
            return utc(value) if value else None
        except (ValueError, TypeError):
            raise self.wrong(field, f"expected a date, got {str(value)[:60]!r}") from None

    def objects(self, field: str) -> list[Mapping[str, Any]]:
        value = self.get(field)
        if value is not None and not isinstance(value, list):
            raise self.wrong(field, f"expected a list, got {type(value).__name__}")
        return [v for v in value or [] if isinstance(v, Mapping)]

    def paper(self) -> Paper:
        said = self.text("id") or ""
        known = arxiv_id(said)
        if known is None:
            raise self.wrong("id", f"expected an arXiv id, got {said[:60]!r}")
        self.record = known[0]
        title = self.text("title")
        if title is None:
            raise self.wrong("title", "there is none")
        shown = [a.get("name") for a in self.objects("authors") if not a.get("hidden")]
        keywords = self.get("ai_keywords")
        organization = self.get("organization")
        named = organization if isinstance(organization, Mapping) else {}
        of = named.get("fullname") or named.get("name")
        return Paper(
            id=known[0],
            title=title,
            abstract=self.text("summary") or "",
            authors=tuple(one_line(n) for n in shown if isinstance(n, str) and n.strip()),
            version=known[1],
            published=self.date("publishedAt"),
            featured=self.date("submittedOnDailyAt"),
            keywords=tuple(one_line(k) for k in keywords if isinstance(k, str) and k.strip())
            if isinstance(keywords, list)
            else (),
            code_url=web_link(self.text("githubRepo") or ""),
            code_stars=self.count("githubStars"),
            project_url=web_link(self.text("projectPage") or ""),
            organization=one_line(of) if isinstance(of, str) else None,
            upvotes=self.count("upvotes"),
            comments=self.count("numComments"),
        )
