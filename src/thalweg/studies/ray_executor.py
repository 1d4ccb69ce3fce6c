"""The seeds of studies on a Ray cluster, behind the interface that local processes have.

Ray (extra ``[ray]``) is imported when a cluster is joined. A task is retried when its worker or its
node is lost, never when the study itself fails; a worker that has other code or other versions than
this machine refuses, since the evidence states those of this machine.
"""

from __future__ import annotations

import hashlib
import logging
import os
import pickle
import platform
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import thalweg
from thalweg.errors import ThalwegError
from thalweg.studies.executor import Outcome, Task, perform
from thalweg.studies.runner import versions

__all__ = ["RayExecutor", "perform_if_same", "stated"]

#: Times that a task is begun again after its worker or node was lost.
RETRIES = 10
#: A cluster that does not answer in this time is said to be unreachable.
PATIENCE_S = 20.0
_OBJECTS = 128 * 2**20  # bytes; figures are small, Ray would take a third of the memory


class RayExecutor:
    """Runs tasks on a Ray cluster, one CPU for each thread of a task, spread over the nodes.

    A context manager: the cluster is joined on entering and left on leaving. Whatever still runs
    then is cancelled.

    Args:
        address: ``HOST:PORT`` of a cluster that this machine is a node of, ``auto`` for the one
            that runs here, None to start one of this machine alone.
        workers: how many tasks at once; as many as there are CPUs if None.

    Raises:
        ValueError: if there is no worker.
        ThalwegError: on entering, if Ray is not installed or the cluster cannot be joined.
    """

    def __init__(self, address: str | None = None, *, workers: int | None = None) -> None:
        if workers is not None and workers < 1:
            raise ValueError(f"workers must be at least 1, got {workers}")
        self.address, self.workers = address, workers

    def __enter__(self) -> RayExecutor:
        ray = _ray()
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.FATAL}
        if self.address is None:
            # Ray warns of what it writes nowhere but here, and reports nothing to its makers.
            os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
            ray.init(
                address="local",
                num_cpus=os.cpu_count(),
                include_dashboard=False,
                object_store_memory=_OBJECTS,
                **quiet,
            )
            return self
        _ask(self.address)
        try:
            ray.init(address=self.address, **quiet)
        except (OSError, RuntimeError, ValueError) as error:
            raise ThalwegError(f"Ray at {self.address}: {_first_line(error)}") from None
        return self

    def __exit__(self, *_: object) -> None:
        _ray().shutdown()

    def run(self, tasks: Sequence[Task]) -> Iterator[Outcome]:
        """Yield the outcome of every task as it comes, each once.

        Raises:
            ThalwegError: if no node has the CPUs, a node runs something else than this machine,
                or a task lost its worker too often.
        """
        ray = _ray()
        largest = _largest(ray.nodes(), max(task.threads for task in tasks))
        remote = ray.remote(_by_value())
        mine = stated()
        waiting, running = list(enumerate(tasks))[::-1], {}
        try:
            while waiting or running:
                while waiting and len(running) < (self.workers or len(tasks)):
                    index, task = waiting.pop()
                    placed = remote.options(
                        num_cpus=task.threads,
                        # An estimate: a task that seems too large has the largest node alone.
                        memory=min(task.memory, largest) or None,
                        max_retries=RETRIES,
                        retry_exceptions=False,
                        scheduling_strategy="SPREAD",
                    )
                    running[placed.remote(index, pickle.dumps(task), task.threads, mine)] = task
                for ref in ray.wait(list(running))[0]:
                    yield _outcome(ray, ref, running.pop(ref))
        finally:
            for ref in running:
                ray.cancel(ref, force=True)


def stated() -> dict[str, str]:
    """What the evidence of a run says of the machine, and a hash of this package's files."""
    return {**versions(), "platform": f"{platform.system()} {platform.machine()}", "code": _code()}


def perform_if_same(index: int, packed: bytes, wanted: Mapping[str, str]) -> Outcome | str:
    """On a worker: perform a pickled task, or say how this machine differs from what is wanted."""
    mine = stated()
    for what, value in wanted.items():
        if mine[what] != value:
            if what == "code":
                return "has other code of Thalweg, though of the same version"
            return f"has {what} {mine[what]}, this machine {value}"
    return perform(index, pickle.loads(packed))


def _outcome(ray: Any, ref: Any, task: Task) -> Outcome:
    try:
        node, given = ray.get(ref)
    except ray.exceptions.RayError as error:
        raise ThalwegError(
            f"study {task.study}, seed {task.seed}: its worker was lost {RETRIES + 1} times (out "
            f"of memory?): {_first_line(error)}. Finished seeds are kept, the same command goes on "
            "from there"
        ) from None
    if isinstance(given, str):
        raise ThalwegError(
            f"node {node} {given}; evidence would not say what ran. Install the same on every node "
            "and start the cluster again"
        )
    return given


def _by_value() -> Any:
    # A function inside a function is sent by its code, so that a node without this package can
    # say so; what it is given is bytes for the same reason.
    def attempt(index: int, packed: bytes, threads: int, wanted: dict[str, str]) -> Any:
        import os
        import socket

        os.environ["OMP_NUM_THREADS"] = str(threads)  # before numpy and torch are imported
        node = socket.gethostname()
        try:
            from thalweg.studies.ray_executor import perform_if_same

            return node, perform_if_same(index, packed, wanted)
        except ImportError as error:  # perform itself gives those of a study as outcomes
            return node, f"cannot import Thalweg of this version or what it needs ({error})"

    return attempt


def _largest(nodes: Sequence[Mapping[str, Any]], threads: int) -> int:
    """Bytes of the largest node with that many CPUs; a task that fits on none waits for ever."""
    alive = [n["Resources"] for n in nodes if n["Alive"]]
    room = [int(r.get("memory", 0)) for r in alive if r.get("CPU", 0) >= threads]
    if not room:
        raise ThalwegError(f"none of the {len(alive)} nodes of the cluster has {threads} CPU")
    return max(room)


def _ask(address: str) -> None:
    """Ask a cluster for its health in another process: Ray's own client hangs for minutes."""
    host, _, port = address.rpartition(":")
    if address != "auto":
        if not host or not port.isdigit() or "/" in address:
            raise ThalwegError(f"--address must be HOST:PORT or auto, got {address!r}")
        try:
            socket.create_connection((host, int(port)), timeout=5).close()
        except (OSError, OverflowError) as error:
            raise ThalwegError(
                f"nothing answers at {address} ({error}); is `ray start --head` running there?"
            ) from None
    command = [sys.executable, "-m", "ray.scripts.scripts", "health-check"]
    command += [] if address == "auto" else ["--address", address]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S)
    except subprocess.TimeoutExpired:
        raise ThalwegError(f"no Ray cluster answers at {address}") from None
    if done.returncode == 0:
        return
    if "Could not find any running Ray" in done.stderr:
        raise ThalwegError("no Ray cluster runs on this machine; `ray start --head` starts one")
    if "AuthenticationError" in done.stderr:
        # With `auto`, Ray takes its token from this machine by itself when it joins.
        if address == "auto":
            return
        raise ThalwegError(
            f"the Ray cluster at {address} asks for its token: set RAY_AUTH_MODE=token, with the "
            "same ~/.ray/auth_token on every node, or give --address auto on one of them"
        )
    raise ThalwegError(f"no Ray cluster answers at {address}: {_last_line(done.stderr)}")


def _ray() -> Any:
    try:
        import ray
    except ImportError:
        raise ThalwegError(
            "--on ray needs the package ray: pip install 'thalweg[ray]', on every node of the "
            "cluster"
        ) from None
    return ray


@cache
def _code() -> str:
    """Hash of every Python file of this package, to the byte."""
    folder = Path(thalweg.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["no answer"])[-1]
