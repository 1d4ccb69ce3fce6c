"""Independent pieces of work side by side, each on one thread, with few of them in memory.

Source: Python's ``concurrent.futures``; why: an eigendecomposition of a thousand columns is slower
on two threads of OpenMP than on one as soon as the machine does anything else (2026, measured).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch

__all__ = ["in_threads"]

X = TypeVar("X")
Y = TypeVar("Y")


def in_threads(work: Callable[[X], Y], items: Iterable[X], workers: int) -> Iterator[Y]:
    """Results of ``work`` in the order of the items.

    Args:
        work: that gives up the interpreter's lock for long, as linear algebra does.
        items: drawn one at a time, at most ``workers`` ahead.
        workers: threads; torch runs on one in each of them meanwhile.

    Raises:
        ValueError: if there are no workers.

    Example:
        >>> list(in_threads(abs, [-1, 2, -3], 2))
        [1, 2, 3]
    """
    if workers < 1:
        raise ValueError(f"expected workers >= 1, got {workers}")
    if workers == 1:
        yield from map(work, items)
        return
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(workers) as pool:
            waiting: deque[Future[Y]] = deque()
            for item in items:
                if len(waiting) == workers:
                    yield waiting.popleft().result()
                waiting.append(pool.submit(work, item))
            while waiting:
                yield waiting.popleft().result()
    finally:
        torch.set_num_threads(before)
