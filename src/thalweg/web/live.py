"""A run while it is recorded: server-sent events tell when there is more to see."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.responses import StreamingResponse

from thalweg.web.run_data import version_of
from thalweg.web.run_folder import RunFolder

__all__ = ["Streams"]

#: Streams at once, seconds between looks, seconds of silence before a sign of life.
MOST_STREAMS = 64
LOOK_S = 1.0
SILENCE_S = 15.0


class Streams:
    """The open streams of a server.

    Args:
        folder: where the runs lie.
    """

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder
        self.open = 0

    async def follow(self, name: str) -> StreamingResponse:
        """Events ``grown`` each time that a run has grown, and ``ended`` when it has ended.

        Raises:
            ThalwegError: if there is no such run.
            HTTPException: 503 if too many are open.
        """
        await run_in_threadpool(self._look, name)
        if self.open >= MOST_STREAMS:
            raise HTTPException(503, "Too many live pages are open. Close some.")
        headers = {"cache-control": "no-store"}
        return StreamingResponse(
            self._events(name), media_type="text/event-stream", headers=headers
        )

    async def _events(self, name: str) -> AsyncIterator[str]:
        self.open += 1
        try:
            seen, told = None, time.monotonic()
            while True:
                version, status = await run_in_threadpool(self._look, name)
                if version != seen:
                    seen, told = version, time.monotonic()
                    yield _event("grown", {"version": version})
                if status != "running":
                    yield _event("ended", {"status": status})
                    return
                if time.monotonic() - told > SILENCE_S:
                    told = time.monotonic()
                    yield ": still running\n\n"
                await asyncio.sleep(LOOK_S)
        finally:
            self.open -= 1

    def _look(self, name: str) -> tuple[str, str]:
        run = self.folder.open(name)
        return version_of(run), str(run.header.get("status"))


def _event(kind: str, data: dict[str, str]) -> str:
    return f"event: {kind}\ndata: {json.dumps(data)}\n\n"
