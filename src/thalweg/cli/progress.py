"""Progress of long work: a bar with the time left on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

__all__ = ["part_progress", "seed_progress"]


@contextmanager
def seed_progress(
    plans: Sequence[tuple[str, int]], *, quiet: bool = False
) -> Iterator[Callable[[int, int, int, int | None, float], None]]:
    """Tells on standard error how far the seeds of studies are, and how long the rest takes.

    Args:
        plans: what is running, and how many seeds of it.
        quiet: say nothing.

    Yields:
        To be called after each seed as ``(place among the plans, done, total, seed, seconds)``.
    """
    if quiet:
        yield lambda place, done, total, seed, seconds: None
        return
    whole = plans[0][0] if len(plans) == 1 else f"{len(plans)} settings"
    if not sys.stderr.isatty():
        print(f"{whole}: running", file=sys.stderr, flush=True)
        yield lambda place, done, total, seed, seconds: print(
            _line(plans[place][0], done, total, seed, seconds), file=sys.stderr, flush=True
        )
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total} seeds"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[left]}"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        all_seeds = sum(seeds for _, seeds in plans)
        task = bar.add_task(whole, total=all_seeds, left="")
        begun = time.perf_counter()
        ready = fresh = 0

        def advance(place: int, done: int, total: int, seed: int | None, seconds: float) -> None:
            nonlocal ready, fresh
            ready += 1
            fresh += seed is not None
            left = ""
            if fresh and ready < all_seeds:
                rest = (time.perf_counter() - begun) / fresh * (all_seeds - ready)
                left = f"about {_duration(rest)} left"
            bar.update(task, completed=ready, left=left)

        yield advance


@contextmanager
def part_progress(label: str, *, quiet: bool = False) -> Iterator[Callable[[int, int], None]]:
    """A bar on a terminal for work that tells parts done and parts in all; silent elsewhere.

    Args:
        label: what is running.
        quiet: no bar.
    """
    if quiet or not sys.stderr.isatty():
        yield lambda done, total: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(label, total=None)
        yield lambda done, total: bar.update(task, total=total, completed=done)


def _line(label: str, done: int, total: int, seed: int | None, seconds: float) -> str:
    if seed is None:
        return f"{label}: {done} of {total} seeds were finished before"
    left = f", about {_duration(seconds * (total - done))} left" if done < total else ""
    return f"{label}: seed {seed} took {_duration(seconds)} ({done} of {total}{left})"


def _duration(seconds: float) -> str:
    """Seconds in words.

    Example:
        >>> _duration(3.2), _duration(90), _duration(7320)
        ('3 s', '1 min 30 s', '2 h 2 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
