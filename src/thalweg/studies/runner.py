"""Run studies over their seeds: one setting, or many as one heap of tasks."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Any

import thalweg
from thalweg.almanac.catalogue import study_entries
from thalweg.almanac.code_hash import code_hash, entry_files
from thalweg.errors import ThalwegError
from thalweg.studies.cost import cost
from thalweg.studies.executor import Executor, LocalExecutor, Task
from thalweg.studies.figures import Figures
from thalweg.studies.study import load
from thalweg.studies.unfinished import Unfinished

__all__ = [
    "Plan",
    "Progress",
    "StudyRun",
    "default_seeds",
    "plan_study",
    "run_plans",
    "run_study",
]

#: Called as ``(done, total, seed, seconds)`` after each seed; ``seed`` is None for those that were
#: there already.
Progress = Callable[[int, int, int | None, float], None]


@dataclass(frozen=True)
class Plan:
    """One setting of a study, ready to run.

    Attributes:
        study: its name.
        preset: the preset.
        config: the settings.
        as_preset: whether the settings are those of the preset.
        seeds: in order.
        kept: its finished seeds.
        memory: bytes that a seed needs at most; 0 if not known.
    """

    study: str
    preset: str
    config: Any
    as_preset: bool
    seeds: tuple[int, ...]
    kept: Unfinished
    memory: int = 0


@dataclass(frozen=True)
class StudyRun:
    """A study that ran to its end.

    Attributes:
        study: its name.
        preset: the preset.
        config: the settings.
        as_preset: whether the settings are those of the preset.
        seeds: in order.
        figures: one per seed.
        wall_s: seconds, one per seed.
    """

    study: str
    preset: str
    config: Any
    as_preset: bool
    seeds: tuple[int, ...]
    figures: tuple[Figures, ...]
    wall_s: tuple[float, ...]

    def samples(self, claim_id: str, kind: str = "samples") -> tuple[float, ...]:
        """The figures of a claim, its baseline or its control, one per seed; empty if none."""
        rows = [getattr(f, kind) for f in self.figures]
        return tuple(float(r[claim_id]) for r in rows) if claim_id in rows[0] else ()


def default_seeds(name: str, preset: str) -> tuple[int, ...]:
    """One seed for ``smoke``, else as many as the claims ask for, at least three."""
    if preset == "smoke":
        return (0,)
    claims = [c for e in study_entries(name) for c in e.claims if c.study_name == name]
    return tuple(range(max([3, *(c.seeds for c in claims)])))


def plan_study(
    name: str,
    *,
    preset: str = "quick",
    seeds: Sequence[int] | None = None,
    config: Any = None,
    fresh: bool = False,
) -> Plan:
    """Check a study's settings, and find what is finished of it.

    Args:
        name: the study.
        preset: ``smoke``, ``quick``, ``full`` or ``paper``.
        seeds: default ``default_seeds``.
        config: settings, if other than the preset's.
        fresh: forget finished seeds.

    Raises:
        ThalwegError: for an unknown study or preset, or seeds that are not different.
    """
    study = load(name)
    settings = study.config(preset) if config is None else config
    seeds = default_seeds(name, preset) if seeds is None else tuple(seeds)
    if not seeds or len(set(seeds)) != len(seeds):
        raise ThalwegError(f"seeds must be different and at least one, got {list(seeds)}")
    symbols = [s for e in study_entries(name) for s in e.symbols]
    kept = Unfinished.of(name, settings, code_hash(entry_files(symbols, name)), versions())
    if fresh:
        kept.clear()
    memory = cost(name).memory if preset == "paper" else 0
    return Plan(name, preset, settings, settings == study.config(preset), seeds, kept, memory)


def run_plans(
    plans: Sequence[Plan],
    *,
    executor: Executor | None = None,
    progress: Callable[[int, int, int, int | None, float], None] | None = None,
) -> Iterator[tuple[int, StudyRun]]:
    """Run the seeds of several settings as one heap of tasks, first plan first.

    A failed seed gives up its plan; the others go on.

    Args:
        plans: settings and studies.
        executor: where the seeds run; by default one local process.
        progress: told after each seed, as ``Progress`` with the place of the plan before it.

    Yields:
        The place of each plan, and its run, as it comes to its end.

    Raises:
        ThalwegError: when no plan is left, if a seed failed.
    """
    done = [{s: r for s, r in p.kept.read().items() if s in p.seeds} for p in plans]
    for place, plan in enumerate(plans):
        for n, (_, seconds) in enumerate(done[place].values()):
            if progress:
                progress(place, n + 1, len(plan.seeds), None, seconds)
    todo = [(i, s) for i, plan in enumerate(plans) for s in plan.seeds if s not in done[i]]
    left = {i for i, _ in todo}
    for place, plan in enumerate(plans):
        if place not in left:
            yield place, _run(plan, done[place])
    tasks = [Task(plans[i].study, plans[i].config, s, memory=plans[i].memory) for i, s in todo]
    failures = []
    for outcome in (executor or LocalExecutor()).run(tasks) if tasks else ():
        place, seed = todo[outcome.index]
        plan, mine = plans[place], done[place]
        if outcome.figures is None:
            failures.append(f"study {plan.study}, seed {seed} failed:\n{outcome.error.rstrip()}")
            left.discard(place)
        else:
            plan.kept.write(seed, outcome.figures, outcome.wall_s)
            mine[seed] = (outcome.figures, outcome.wall_s)
            if progress:
                progress(place, len(mine), len(plan.seeds), seed, outcome.wall_s)
            if len(mine) == len(plan.seeds):
                left.discard(place)
                yield place, _run(plan, mine)
        if not left:
            break
    if failures:
        more = f"\n{len(failures) - 1} more failed" if failures[1:] else ""
        raise ThalwegError(failures[0] + more)


def _run(plan: Plan, done: Mapping[int, tuple[Figures, float]]) -> StudyRun:
    return StudyRun(
        study=plan.study,
        preset=plan.preset,
        config=plan.config,
        as_preset=plan.as_preset,
        seeds=plan.seeds,
        figures=tuple(done[s][0] for s in plan.seeds),
        wall_s=tuple(round(done[s][1], 3) for s in plan.seeds),
    )


def run_study(
    name: str,
    *,
    preset: str = "quick",
    seeds: Sequence[int] | None = None,
    config: Any = None,
    executor: Executor | None = None,
    progress: Progress | None = None,
    fresh: bool = False,
) -> StudyRun:
    """Run a study; seeds that an interrupted run has finished are not repeated.

    Args:
        name: the study.
        preset: ``smoke``, ``quick``, ``full`` or ``paper``.
        seeds: default ``default_seeds``.
        config: settings, if other than the preset's.
        executor: where the seeds run; by default one local process.
        progress: told after each seed.
        fresh: forget finished seeds.

    Raises:
        ThalwegError: for an unknown study or preset, or if a seed fails.
    """
    plan = plan_study(name, preset=preset, seeds=seeds, config=config, fresh=fresh)
    told = None if progress is None else lambda _, *what: progress(*what)
    [(_, run)] = run_plans([plan], executor=executor, progress=told)
    return run


def forget(run: StudyRun) -> None:
    """Drop the kept seeds of a run whose evidence is written."""
    symbols = [s for e in study_entries(run.study) for s in e.symbols]
    code = code_hash(entry_files(symbols, run.study))
    Unfinished.of(run.study, run.config, code, versions()).clear()


def versions() -> dict[str, str]:
    """Versions of python, torch, numpy and this package."""
    found = {name: metadata.version(name) for name in ("torch", "numpy")}
    return {"python": platform.python_version(), **found, "package": thalweg.__version__}
