"""Studies that were started from the page: one worker process at a time, which outlives the server.

The worker is a session of its own and writes its log and its end to files, so that neither a closed
page nor a killed server loses anything; finished seeds are kept by the study itself. That a worker
is alive is told by the lock that it holds and nothing else: the kernel drops it with the process.
"""

from __future__ import annotations

import datetime
import fcntl
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from thalweg.almanac.evidence import user_folder
from thalweg.errors import ThalwegError, unknown_name

__all__ = ["Job", "Jobs", "WorkerBusy"]

_ID = re.compile(r"\d{8}T\d{6}Z(-\d+)?-[a-z0-9_]+")
#: Jobs in the list; bytes of a log that are shown; seconds between SIGTERM and SIGKILL.
MOST_LISTED = 50
MOST_LOG = 65_536
GRACE_S = 5.0

Command = Callable[[Path, str, str], Sequence[str]]


class WorkerBusy(ThalwegError):
    """Another study is running."""


@dataclass(frozen=True)
class Job:
    """A study that was started from the page.

    Attributes:
        id: its name.
        study: the study.
        preset: its preset.
        entry: slug of the entry it was started from.
        started: UTC, ISO.
        state: ``running``, ``done``, ``failed``, ``cancelled`` or ``killed``.
        pid: of the worker.
    """

    id: str
    study: str
    preset: str
    entry: str
    started: str
    state: str
    pid: int


def worker(folder: Path, study: str, preset: str) -> list[str]:
    """The command of a worker."""
    return [sys.executable, "-m", "thalweg.web.worker", str(folder), study, preset]


class Jobs:
    """The jobs of this user.

    Args:
        command: gives the command of a worker.
    """

    def __init__(self, command: Command = worker) -> None:
        self._command = command
        self._lock = threading.Lock()

    @property
    def folder(self) -> Path:
        """Where jobs are kept."""
        return user_folder() / "jobs"

    def start(self, study: str, *, entry: str, preset: str = "quick") -> str:
        """Start a study; its id.

        Raises:
            WorkerBusy: if one is running.
            ThalwegError: if the folder cannot be written.
        """
        with self._lock:
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                with (self.folder / "worker.lock").open("a+") as held:
                    return self._start(held, study, entry, preset)
            except OSError as error:
                raise ThalwegError(f"{self.folder}: cannot start a study: {error}") from None

    def _start(self, held: IO[str], study: str, entry: str, preset: str) -> str:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise WorkerBusy("A study is running. Wait until it has ended, or cancel it.") from None
        now = datetime.datetime.now(datetime.UTC)
        stamp, n = now.strftime("%Y%m%dT%H%M%SZ"), 0
        while (place := self.folder / f"{stamp}{f'-{n}' if n else ''}-{study}").exists():
            n += 1
        place.mkdir()
        with (place / "log").open("wb") as log:
            # The lock goes over to the worker with the open file, without a gap.
            child = subprocess.Popen(
                self._command(place, study, preset),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=[held.fileno()],
            )
        # Else it stays a zombie when it has ended.
        threading.Thread(target=child.wait, daemon=True).start()
        facts = {"study": study, "preset": preset, "entry": entry, "pid": child.pid}
        facts["started"] = now.strftime("%Y-%m-%dT%H:%M:%SZ")
        (place / "job.part").write_text(json.dumps(facts), "utf-8")
        (place / "job.part").replace(place / "job.json")
        held.seek(0)
        held.truncate()
        held.write(place.name)
        return place.name

    def all(self) -> list[Job]:
        """The jobs, newest first."""
        names = sorted((p.parent.name for p in self.folder.glob("*/job.json")), reverse=True)
        found = []
        for name in names[:MOST_LISTED]:
            try:
                found.append(self.get(name))
            except ThalwegError:
                continue
        return found

    def get(self, name: str) -> Job:
        """The job of that id.

        Raises:
            ThalwegError: if there is none.
        """
        place = self._place(name)
        facts: dict[str, Any] = json.loads((place / "job.json").read_text("utf-8"))
        return Job(id=name, state=self._state(place), **facts)

    def log(self, name: str, begin: int = -MOST_LOG) -> tuple[bytes, int]:
        """What a job has said from a byte on, and where that ends.

        Args:
            name: its id.
            begin: first byte; negative counts from the end.

        Raises:
            ThalwegError: if there is none.
        """
        with (self._place(name) / "log").open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(size + begin, 0) if begin < 0 else min(begin, size))
            text = file.read(MOST_LOG)
            return text, file.tell()

    def cancel(self, name: str) -> None:
        """End a job that is running; of one that has ended, nothing.

        Raises:
            ThalwegError: if there is none.
        """
        job, place = self.get(name), self._place(name)
        if job.state != "running":
            return
        (place / "cancelled").touch()
        for number, wait in ((signal.SIGTERM, GRACE_S), (signal.SIGKILL, 1.0)):
            try:
                os.killpg(job.pid, number)
            except ProcessLookupError:
                break
            end = time.monotonic() + wait
            while self._runs(name) and time.monotonic() < end:
                time.sleep(0.05)
            if not self._runs(name):
                break

    def _state(self, place: Path) -> str:
        if self._runs(place.name):
            return "running"
        if (place / "exit").exists():
            return "done" if (place / "exit").read_text() == "0" else "failed"
        return "cancelled" if (place / "cancelled").exists() else "killed"

    def _runs(self, name: str) -> bool:
        """Whether the worker of this job holds the lock."""
        try:
            with (self.folder / "worker.lock").open("r") as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
                except BlockingIOError:
                    return file.read() == name
                return False
        except FileNotFoundError:
            return False

    def _place(self, name: str) -> Path:
        place = self.folder / name
        if not _ID.fullmatch(name) or not (place / "job.json").is_file():
            known = [p.parent.name for p in self.folder.glob("*/job.json")]
            raise unknown_name("job", name[:200], known)
        return place


def plain(job: Job) -> dict[str, Any]:
    """A job as JSON."""
    return {k: v for k, v in asdict(job).items() if k != "pid"}
