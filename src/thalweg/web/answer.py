"""A page and its JSON twin: one function gives the data of both, an ETag tells of changes."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import Response

from thalweg.report.scale import number

__all__ = ["Page", "address", "as_json", "etagged", "templates"]

TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Page:
    """What a page shows.

    Attributes:
        template: file that draws it.
        title: of the page.
        data: the same as JSON, without the envelope.
        context: what the template needs beside.
        status: of HTTP.
        after: begun when the page has been drawn, for what its reader will ask next.
    """

    template: str
    title: str
    data: Any
    context: Mapping[str, Any] = field(default_factory=dict)
    status: int = 200
    after: Callable[[], None] | None = None


def templates() -> Environment:
    """The templates; everything put into one is escaped, a missing name is an error."""
    env = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    env.filters["figure"] = lambda value: "–" if value is None else number(value, 3)
    env.filters["words"] = lambda value: str(value).replace("_", " ")
    env.filters["moment"] = moment
    return env


def moment(value: Any) -> str:
    """A moment in UTC, ISO, for people; anything else as it is.

    Example:
        >>> moment("2026-11-24T10:00:00Z")
        '2026-11-24 10:00 UTC'
    """
    return re.sub(r"^(\d{4}-\d\d-\d\d)T(\d\d:\d\d)(:[\d.]+)?(Z|\+00:00)$", r"\1 \2 UTC", str(value))


def address(path: str, **query: Any) -> str:
    """An address of this server.

    Example:
        >>> address("/runs/a b", sort="date", kind="")
        '/runs/a%20b?sort=date'
    """
    asked = {name: value for name, value in query.items() if value not in ("", None)}
    return quote(path) + (f"?{urlencode(asked)}" if asked else "")


def as_json(data: Any) -> bytes:
    """``{"schema_version": 1, "data": …}``; what JSON lacks as "nan", "inf", "-inf"."""

    def dumped(data: Any) -> str:
        document = {"schema_version": 1, "data": data}
        return json.dumps(document, ensure_ascii=False, separators=(",", ":"), allow_nan=False)

    try:
        text = dumped(data)  # most has none of that: a walk through a chart takes 30 ms
    except (ValueError, TypeError):
        text = dumped(_plain(data))
    return text.encode("utf-8", "replace")


def etagged(request: Request, body: bytes, media_type: str, status: int = 200) -> Response:
    """A response that a reader who has it already is spared."""
    tag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    known = [
        t.strip().removeprefix("W/") for t in request.headers.get("if-none-match", "").split(",")
    ]
    if status == 200 and tag in known:
        return Response(status_code=304, headers={"etag": tag})
    headers = {"etag": tag} if status == 200 else {}
    return Response(body, status, headers, media_type)


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return "nan" if math.isnan(value) else ("inf" if value > 0 else "-inf")
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return value
