"""The application: which address gives which page, and what becomes of errors."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import AsyncIterator, Callable
from functools import cache
from pathlib import Path
from typing import Any

import anyio.to_thread
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from thalweg.almanac.bulletin import digest
from thalweg.errors import ThalwegError
from thalweg.web import almanac_pages, finding_pages, job_pages, run_pages
from thalweg.web.answer import Page, as_json, etagged
from thalweg.web.guard import Guard
from thalweg.web.live import follow
from thalweg.web.site import Site

__all__ = ["PAGES", "create_app"]

PageFunction = Callable[..., Page]

#: Address of a page, address of its JSON, and what gives both.
PAGES: tuple[tuple[str, str, PageFunction], ...] = (
    ("/", "/api/entries.json", almanac_pages.listing),
    ("/e/{slug}", "/api/entries/{slug}.json", almanac_pages.entry),
    ("/topics", "/api/topics.json", almanac_pages.topics),
    ("/topics/{topic}", "/api/topics/{topic}.json", almanac_pages.topic),
    ("/compare", "/api/compare.json", almanac_pages.compare),
    ("/search", "/api/search.json", finding_pages.search),
    ("/digest", "/api/digest.json", finding_pages.digest),
    ("/digest/{period}", "/api/digest/{period}.json", finding_pages.digest),
    ("/runs", "/api/runs.json", run_pages.listing),
    ("/runs/{name}", "/api/runs/{name}.json", run_pages.run),
    ("/runs/{name}/diagnosis", "/api/runs/{name}/diagnosis.json", run_pages.diagnosis),
    ("/compare-runs", "/api/compare-runs.json", run_pages.compare_runs),
    ("/jobs", "/api/jobs.json", job_pages.listing),
    ("/jobs/{id}", "/api/jobs/{id}.json", job_pages.job),
)
#: What only scripts ask for.
DATA: tuple[tuple[str, PageFunction], ...] = (
    ("/api/runs/{name}/series.json", run_pages.series),
    ("/api/compare-runs/series.json", run_pages.series_of_runs),
)

#: Requests that are worked on at once.
THREADS = 6
_STATIC = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


def create_app(runs: str | os.PathLike[str] = "runs", *, host: str = "127.0.0.1") -> Guard:
    """The page as an ASGI application.

    Args:
        runs: the folder of runs.
        host: the address that the server will be bound to.

    Example:
        uvicorn.run(create_app("runs"), host="127.0.0.1", port=8000)
    """
    site = Site(runs)
    routes = [
        Route("/digest/{period}.txt", _digest_file(site, "text/plain")),
        Route("/digest/{period}.eml", _digest_file(site, "message/rfc822")),
    ]
    for path, twin, function in PAGES:
        routes += [Route(twin, _json(site, function)), Route(path, _html(site, function, twin))]

    async def live(request: Request) -> Response:
        name = request.path_params["name"]
        await run_in_threadpool(site.runs.open, name)
        return site.streams.send(follow(site.runs, name))

    routes += [Route(path, _json(site, function)) for path, function in DATA]
    routes += job_pages.routes(site)
    routes += [
        *(Route(f"/feed.{name}", _feed(name)) for name in finding_pages.FEEDS),
        Route("/badge/{slug}.svg", _badge(site)),
        Route("/runs/{name}/live", live),
        Route("/runs/{name}/chart.svg", _picture(site)),
        Route("/e/{slug}/evidence.svg", _evidence(site)),
        Route("/static/{name}", _static),
    ]

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        # More threads than these would only hold memory while they wait for each other.
        anyio.to_thread.current_default_thread_limiter().total_tokens = THREADS
        # The first verdicts take seconds; the page answers meanwhile.
        threading.Thread(target=site.prepare, daemon=True).start()
        yield

    def failed(request: Request, error: Exception) -> Response:
        return _error(site, request, error)

    kinds = {HTTPException: failed, ThalwegError: failed, Exception: failed}
    app = Starlette(routes=routes, lifespan=lifespan, exception_handlers=kinds)
    app.state.site = site
    return Guard(app, host)


def _html(site: Site, function: PageFunction, twin: str) -> Callable[[Request], Response]:
    def endpoint(request: Request) -> Response:
        with site.answering():
            return answer(request)

    def answer(request: Request) -> Response:
        page = function(site, request.query_params, **request.path_params)
        query = f"?{request.url.query}" if request.url.query else ""
        other = twin.format(**request.path_params) + query
        text = site.render(page, request.url.path, other)
        if page.after is not None:
            page.after()
        return etagged(request, text.encode("utf-8", "replace"), "text/html", page.status)

    return endpoint


def _json(site: Site, function: PageFunction) -> Callable[[Request], Response]:
    def endpoint(request: Request) -> Response:
        with site.answering():
            page = function(site, request.query_params, **request.path_params)
            return etagged(request, as_json(page.data), "application/json", page.status)

    return endpoint


def _evidence(site: Site) -> Callable[[Request], Response]:
    def endpoint(request: Request) -> Response:
        return _svg(request, almanac_pages.evidence_svg(site, request.path_params["slug"]))

    return endpoint


def _picture(site: Site) -> Callable[[Request], Response]:
    def endpoint(request: Request) -> Response:
        name = request.path_params["name"]
        return _svg(request, run_pages.draw(site, request.query_params, name))

    return endpoint


def _badge(site: Site) -> Callable[[Request], Response]:
    def endpoint(request: Request) -> Response:
        return _svg(request, finding_pages.badge(site, request.path_params["slug"]))

    return endpoint


def _feed(format: str) -> Callable[[Request], Response]:
    def endpoint(request: Request) -> Response:
        base = f"{request.url.scheme}://{request.url.netloc}"
        text = finding_pages.feed(format, request.query_params, base)
        return etagged(request, text.encode("utf-8", "replace"), finding_pages.FEEDS[format])

    return endpoint


def _digest_file(site: Site, media_type: str) -> Callable[[Request], Response]:
    def endpoint(request: Request) -> Response:
        found = digest(request.path_params["period"], runs=site.concerns.all()[0])
        plain = media_type == "text/plain"
        return etagged(request, found.text.encode() if plain else found.eml, media_type)

    return endpoint


def _svg(request: Request, text: str) -> Response:
    response = etagged(request, text.encode(), "image/svg+xml")
    # The picture brings its own styles; opened by itself it still runs nothing.
    response.headers["content-security-policy"] = "default-src 'none'; style-src 'unsafe-inline'"
    return response


def _static(request: Request) -> Response:
    files = static_files()
    name = request.path_params["name"]
    if name not in files:
        raise HTTPException(404, "There is no such file.")
    return etagged(request, files[name], _STATIC[Path(name).suffix])


@cache
def static_files() -> dict[str, bytes]:
    """Styles and scripts by name; what is not in here is not served."""
    folder = Path(__file__).parent / "static"
    found = {p.name: p.read_bytes() for p in sorted(folder.iterdir()) if p.suffix in _STATIC}
    report = Path(__file__).parents[1] / "report" / "page.css"
    return found | {"page.css": report.read_bytes()}


def _error(site: Site, request: Request, error: Exception) -> Response:
    """A page, or JSON where JSON was asked for, that says what went wrong and nothing else."""
    if isinstance(error, HTTPException):
        status, said = error.status_code, error.detail
    elif isinstance(error, ThalwegError):
        status, said = 404, str(error)
    else:
        status, said = 500, f"An error of Thalweg's own: {type(error).__name__}."
    headers: dict[str, Any] = dict(getattr(error, "headers", None) or {})
    if request.url.path.startswith("/api/"):
        body = as_json({"error": said})
        return Response(body, status, headers, "application/json")
    page = Page(
        "error.html", "Not found" if status == 404 else "That did not work", {"error": said}
    )
    return Response(site.render(page, request.url.path), status, headers, "text/html")
