"""Pages of the jobs: start a study from its entry, follow its log, cancel it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import QueryParams
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from thalweg.studies.study import available
from thalweg.web.answer import Page, address
from thalweg.web.guard import read_form
from thalweg.web.jobs import WorkerBusy, plain
from thalweg.web.live import event

if TYPE_CHECKING:
    from thalweg.web.site import Site

__all__ = ["job", "listing", "routes"]

LOOK_S = 0.5


def listing(site: Site, query: QueryParams) -> Page:
    """The studies that were started from the page."""
    return Page("jobs.html", "Studies", {"jobs": [plain(j) for j in site.jobs.all()]})


def job(site: Site, query: QueryParams, id: str) -> Page:
    """One of them and the end of its log."""
    found = site.jobs.get(id)
    text, end = site.jobs.log(id)
    data = {**plain(found), "log": text.decode("utf-8", "replace"), "end": end}
    return Page("job.html", f"Study {found.study}", data, {"token": site.token.value})


def routes(site: Site) -> list[Route]:
    """What acts, which asks for a token, and what streams."""

    async def start(request: Request) -> Response:
        form = await read_form(request)
        site.token.check(form)
        slug, study = request.path_params["slug"], form.get("study", "")
        entry = (await run_in_threadpool(site.shelf.get, slug)).entry
        if study not in entry.studies or study not in available():
            raise HTTPException(404, f"{slug} has no study of that name in this version.")
        try:
            id = await run_in_threadpool(site.jobs.start, study, entry=slug)
        except WorkerBusy as busy:
            raise HTTPException(409, str(busy)) from None
        return RedirectResponse(address(f"/jobs/{id}"), 303)

    async def cancel(request: Request) -> Response:
        form = await read_form(request)
        site.token.check(form)
        id = request.path_params["id"]
        await run_in_threadpool(site.jobs.cancel, id)
        return RedirectResponse(address(f"/jobs/{id}"), 303)

    async def log(request: Request) -> Response:
        id, begin = request.path_params["id"], request.query_params.get("begin", "0")
        if not (begin.isascii() and begin.isdigit() and len(begin) < 16):
            raise HTTPException(404, "begin: expected a whole number")
        await run_in_threadpool(site.jobs.get, id)
        return site.streams.send(_log(site, id, int(begin)))

    return [
        Route("/e/{slug}/study", start, methods=["POST"]),
        Route("/jobs/{id}/cancel", cancel, methods=["POST"]),
        Route("/jobs/{id}/log", log),
    ]


async def _log(site: Site, id: str, begin: int) -> AsyncIterator[str]:
    while True:
        # The state first: what a job says before its end is then read after it.
        state = (await run_in_threadpool(site.jobs.get, id)).state
        text, end = await run_in_threadpool(site.jobs.log, id, begin)
        if text:
            begin = end
            yield event("log", {"text": text.decode("utf-8", "replace"), "end": end})
        elif state != "running":
            yield event("ended", {"state": state})
            return
        else:
            await asyncio.sleep(LOOK_S)
