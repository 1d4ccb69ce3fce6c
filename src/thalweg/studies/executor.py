"""Where the seeds of a study run: local processes here, a cluster behind the same interface.

An executor takes tasks and yields results as they come, in any order. A task is named by plain
data, so that it can travel to another process or machine.
"""

from __future__ import annotations

import multiprocessing
import os
import time
import traceback
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any, Protocol

from thalweg.errors import ThalwegError
from thalweg.studies.figures import Figures

__all__ = ["Executor", "LocalExecutor", "Outcome", "Task", "perform"]


@dataclass(frozen=True)
class Task:
    """One seed of one setting of a study.

    Attributes:
        study: its name.
        config: its settings, a frozen dataclass.
        seed: the seed.
        threads: of torch.
        memory: bytes to set aside where a cluster places tasks; 0 if not known.
    """

    study: str
    config: Any
    seed: int
    threads: int = 1
    memory: int = 0


@dataclass(frozen=True)
class Outcome:
    """What became of a task.

    Attributes:
        index: its place among the tasks given.
        figures: what it measured; None if it failed.
        wall_s: how long it took.
        error: traceback, empty if all is well.
    """

    index: int
    figures: Figures | None
    wall_s: float
    error: str = ""


class Executor(Protocol):
    """Runs tasks; each is performed exactly once, whatever happens to a worker."""

    def run(self, tasks: Sequence[Task]) -> Iterator[Outcome]:
        """Yield the outcome of every task as it comes."""
        ...


class LocalExecutor:
    """Runs tasks in processes of this machine, each with one torch thread.

    Args:
        workers: how many at once.

    Raises:
        ValueError: if there is no worker.
    """

    def __init__(self, workers: int = 1) -> None:
        if workers < 1:
            raise ValueError(f"workers must be at least 1, got {workers}")
        self.workers = workers

    def run(self, tasks: Sequence[Task]) -> Iterator[Outcome]:
        """Yield the outcome of every task as it comes.

        Raises:
            ThalwegError: if a worker was killed.
        """
        # A fresh interpreter: no state of this one (random numbers, threads, hooks) leaks in.
        spawn = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(
            min(self.workers, len(tasks) or 1),
            mp_context=spawn,
            initializer=_limit_threads,
            initargs=(max((task.threads for task in tasks), default=1),),
        ) as pool:
            futures = [pool.submit(perform, i, task) for i, task in enumerate(tasks)]
            try:
                for future in as_completed(futures):
                    yield future.result()
            except BrokenProcessPool:
                raise ThalwegError(
                    "a worker process was killed (out of memory?); finished seeds are kept, the "
                    "same command goes on from there. Fewer --workers need less memory"
                ) from None
            finally:
                pool.shutdown(wait=False, cancel_futures=True)


def _limit_threads(threads: int) -> None:
    # Before a task is unpickled, which imports numpy: its threads are counted on import.
    os.environ["OMP_NUM_THREADS"] = str(threads)


def perform(index: int, task: Task) -> Outcome:
    """Run one task in this process."""
    import torch

    from thalweg.studies.study import load

    torch.set_num_threads(task.threads)
    torch.manual_seed(task.seed)
    start = time.perf_counter()
    try:
        figures = load(task.study).run(task.config, task.seed)
    except Exception:
        return Outcome(index, None, time.perf_counter() - start, traceback.format_exc(limit=-6))
    return Outcome(index, figures, time.perf_counter() - start)
