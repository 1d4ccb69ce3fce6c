"""A run while it is recorded: server-sent events tell when there is more to see."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.responses import StreamingResponse

from thalweg.web.run_data import version_of
from thalweg.web.run_folder import RunFolder

__all__ = ["Streams", "event", "follow"]

#: Streams at once, seconds between looks, seconds of silence before a sign of life.
MOST_STREAMS = 64
LOOK_S = 1.0
SILENCE_S = 15.0


class Streams:
    """The open streams of a server; a browser that is closed ends its own."""

    def __init__(self) -> None:
        self.open = 0

    def send(self, events: AsyncIterator[str]) -> StreamingResponse:
        """Events as they come.

        Raises:
            HTTPException: 503 if too many are open.
        """
        if self.open >= MOST_STREAMS:
            raise HTTPException(503, "Too many live pages are open. Close some.")
        headers = {"cache-control": "no-store"}
        media_type = "text/event-stream"
        return StreamingResponse(self._counted(events), media_type=media_type, headers=headers)

    async def _counted(self, events: AsyncIterator[str]) -> AsyncIterator[str]:
        self.open += 1
        try:
            async for event in events:
                yield event
        finally:
            self.open -= 1


async def follow(folder: RunFolder, name: str) -> AsyncIterator[str]:
    """Events ``grown`` each time that a run has grown, and ``ended`` when it has ended."""

    def look() -> tuple[str, str]:
        run = folder.open(name)
        return version_of(run), str(run.header.get("status"))

    seen, told = None, time.monotonic()
    while True:
        version, status = await run_in_threadpool(look)
        if version != seen:
            seen, told = version, time.monotonic()
            yield event("grown", {"version": version})
        if status != "running":
            yield event("ended", {"status": status})
            return
        if time.monotonic() - told > SILENCE_S:
            told = time.monotonic()
            yield ": still running\n\n"
        await asyncio.sleep(LOOK_S)


def event(kind: str, data: Mapping[str, Any]) -> str:
    """One event as it is sent."""
    return f"event: {kind}\ndata: {json.dumps(data)}\n\n"
