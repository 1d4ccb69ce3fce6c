"""``thalweg web``: the almanac and the runs of a folder as pages, served on this machine."""

from __future__ import annotations

import ctypes
import os
import socket
import sys
from pathlib import Path

__all__ = ["web"]


def web(runs: Path = Path("runs"), /, *, port: int = 8000, host: str = "127.0.0.1") -> int:
    """Serve the almanac and the runs of a folder, live while training goes on.

    Only this machine can reach it unless --host says otherwise. Ctrl-C ends it; studies that were
    started from it go on.

    Args:
        runs: the folder in which runs lie.
        port: to listen on; 0 takes a free one.
        host: address to listen on.
    """
    from thalweg.errors import ThalwegError

    _give_memory_back()
    try:
        import uvicorn

        from thalweg.web import create_app
        from thalweg.web.guard import is_loopback
    except ImportError as error:
        raise ThalwegError(
            f"the page needs {error.name}, which is not installed: pip install 'thalweg[web]'"
        ) from None
    if runs.exists() and not runs.is_dir():
        raise ThalwegError(f"{runs}: expected the folder of runs; it is a file")
    try:
        listening = listen(host, port)
    except (OSError, OverflowError) as error:
        raise ThalwegError(
            f"cannot listen on {host}, port {port}: {error}. Choose another: --port 0"
        ) from None
    shown = f"[{host}]" if ":" in host else host
    print(f"http://{shown}:{listening.getsockname()[1]}/", flush=True)
    if not is_loopback(host):
        print(
            "Whoever can reach this address may read the runs and start studies.", file=sys.stderr
        )
    config = uvicorn.Config(
        create_app(runs, host=host),
        log_level="warning",
        access_log=False,
        server_header=False,
        # Streams of live pages never end by themselves.
        timeout_graceful_shutdown=1,
    )
    uvicorn.Server(config).run(sockets=[listening])
    return 0


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens; it says that it is TCP.

    asyncio sends small packets at once only on sockets that say so (``create_server`` makes none
    that do), and the second packet of an answer would wait 40 ms for an acknowledgement.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((host, port))
        made.listen(128)
    except BaseException:
        made.close()
        raise
    return made


def _give_memory_back() -> None:
    """What a chart has read goes back to the system and is not kept for the next one.

    glibc keeps a heap per thread and, after the first large array, larger ones too.
    """
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        arena_max, mmap_threshold = -8, -3
        mallopt(arena_max, 2)
        mallopt(mmap_threshold, 262_144)
