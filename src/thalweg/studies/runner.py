"""Run a study over its seeds, and make evidence of what it gave.

Evidence is only made of a preset as it stands, with at least three seeds: a run with other settings
is a trial, and says so.
"""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import platform
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import thalweg
from thalweg.almanac.catalogue import study_entries
from thalweg.almanac.code_hash import code_hash, entry_files
from thalweg.almanac.entry import Entry
from thalweg.almanac.evidence import Evidence
from thalweg.almanac.standings import claim_bounds
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
    "evidence_of",
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


def evidence_of(run: StudyRun, entry: Entry, argv: Sequence[str] = ()) -> Evidence:
    """Make evidence for an entry of a finished study.

    Args:
        run: the study's run.
        entry: an entry with claims that it tests.
        argv: how it was started.

    Raises:
        ThalwegError: if the run is no evidence (smoke, other settings, fewer than three seeds), or
            if it did not give a figure that the entry asks for.
    """
    if run.preset == "smoke" or not run.as_preset or len(run.seeds) < 3:
        raise ThalwegError(
            "evidence needs a preset other than smoke, as it stands, and at least 3 seeds"
        )
    claims = [c for c in entry.claims if c.study_name == run.study]
    samples, baselines, controls = {}, {}, {}
    for claim in claims:
        for wanted, kind, into in (
            (True, "samples", samples),
            (claim.baseline is not None, "baselines", baselines),
            (claim.control is not None, "controls", controls),
        ):
            figures = run.samples(claim.id, kind)
            if wanted and not figures:
                raise ThalwegError(
                    f"study {run.study} gave nothing among its {kind} for claim {claim.id!r} of "
                    f"{entry.slug}"
                )
            if figures:
                into[claim.id] = figures
    hashes = sorted({f.data_hash for f in run.figures})
    evidence = Evidence(
        entry=entry.slug,
        study=run.study,
        preset=run.preset,
        config=dataclasses.asdict(run.config),
        run_at=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        commit=git_commit(),
        code_hash=code_hash(entry_files(entry.symbols, run.study)),
        data_hash=hashlib.sha256(" ".join(hashes).encode()).hexdigest()[:16],
        versions=versions(),
        platform=f"{platform.system()} {platform.machine()}",
        threads=1,
        seeds=run.seeds,
        bounds={c.id: claim_bounds(c) for c in claims},
        samples=samples,
        baselines=baselines,
        controls=controls,
        curves=_curves(run),
        verdict="",
        wall_s=run.wall_s,
        argv=tuple(argv),
    )
    return dataclasses.replace(evidence, verdict=evidence.computed_verdict())


def versions() -> dict[str, str]:
    """Versions of python, torch, numpy and this package."""
    found = {name: metadata.version(name) for name in ("torch", "numpy")}
    return {"python": platform.python_version(), **found, "package": thalweg.__version__}


def git_commit() -> str:
    """Commit of the checkout that this package runs from, ``+`` if changed; empty outside one."""
    root = Path(thalweg.__file__).parent

    def git(*words: str) -> str:
        done = subprocess.run(["git", *words], cwd=root, capture_output=True, text=True, timeout=10)
        return done.stdout.strip() if done.returncode == 0 else ""

    try:
        if not git("ls-files", "--error-unmatch", "__init__.py"):
            return ""  # installed inside somebody else's checkout
        changed = git("status", "--porcelain", "--untracked-files=no", "--", ".")
        return git("rev-parse", "--short=12", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.TimeoutExpired):
        return ""


def _curves(run: StudyRun) -> Mapping[str, Mapping[str, Any]]:
    names = run.figures[0].curves
    for name, (x, _) in names.items():
        for figures in run.figures:
            mine = figures.curves.get(name, (x, x))
            if list(mine[0]) != list(x) or len(mine[1]) != len(x):
                raise ThalwegError(
                    f"curve {name!r} has other x for some seeds: give all the same, and nan as y "
                    "where a seed has no figure"
                )
    return {
        name: {
            "x": list(names[name][0]),
            "y": [list(f.curves[name][1]) for f in run.figures],
        }
        for name in names
        if all(name in f.curves for f in run.figures)
    }
