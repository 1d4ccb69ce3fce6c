"""``thalweg study``: re-run published claims on this machine."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import App, Parameter

from thalweg.cli.study_output import cost_plain, print_costs, print_run, run_plain, told, wrap

if TYPE_CHECKING:
    from thalweg.almanac.entry import Entry
    from thalweg.studies.runner import StudyRun

__all__ = ["study"]

Flag = Parameter(negative="", show_default=False)
Preset = Literal["smoke", "quick", "full", "paper"]

study = App(
    name="study",
    help="Re-run published claims on this machine.",
    help_epilogue="Example: thalweg study run broken_laws --preset quick",
)


@study.command(name="list", help_epilogue="Example: thalweg study list")
def list_(*, json: Annotated[bool, Flag] = False) -> int:
    """List the studies of this version, what each tests and where its claims stand.

    Args:
        json: print JSON.
    """
    from thalweg.almanac.catalogue import study_entries
    from thalweg.almanac.standings import standing
    from thalweg.cli.output import print_json
    from thalweg.studies.study import available, described, planned

    rows = []
    for name in available():
        claims = [
            f"{entry.slug}/{c.claim.id}: {c.judgement.verdict}" + (" (stale)" if c.stale else "")
            for entry in study_entries(name)
            for c in standing(entry).claims
            if c.claim.study_name == name
        ]
        row = {"name": name, "about": described(name), "claims": claims}
        rows.append({**row, "paper_cost": cost_plain(name)} if json else row)
    waiting = [n for n in planned() if n not in available()]
    if json:
        print_json({"studies": rows, "planned": waiting})
        return 0
    for row in rows:
        wrap("", f"{row['name']}: {row['about']}")
        for claim in row["claims"]:
            wrap("  ", claim)
    if waiting:
        print()
        wrap("planned, not in this version: ", ", ".join(waiting))
    return 0


@study.command(help_epilogue="Example: thalweg study run broken_laws --sweep lr=1e-2,1e-3 --on ray")
def run(
    names: Annotated[list[str] | None, Parameter(negative="")] = None,
    /,
    *,
    preset: Preset = "quick",
    seeds: Annotated[int | None, Parameter(show_default=False)] = None,
    workers: Annotated[int | None, Parameter(show_default=False)] = None,
    on: Literal["local", "ray"] = "local",
    address: Annotated[str | None, Parameter(show_default=False)] = None,
    set: Annotated[list[str] | None, Parameter(negative="", show_default=False)] = None,
    sweep: Annotated[list[str] | None, Parameter(negative="", show_default=False)] = None,
    all: Annotated[bool, Flag] = False,
    fresh: Annotated[bool, Flag] = False,
    ship: Annotated[bool, Flag] = False,
    json: Annotated[bool, Flag] = False,
) -> int:
    """Run studies over several seeds and write evidence with a verdict.

    A finished seed survives a kill: the same command goes on from there. Evidence is written of a
    preset as it stands (not of smoke, not with --set or --sweep) with at least 3 seeds, to the user
    data folder.

    Args:
        names: the studies.
        preset: size of the study.
        seeds: how many seeds, from 0 on; by default as many as the claims ask for.
        workers: seeds at once, one thread each; by default 1, and with --on ray one for each CPU of
            the cluster.
        on: local processes, or a Ray cluster, over which all seeds of all settings are spread.
        address: of the cluster, HOST:PORT, or auto for the one that this machine is a node of; by
            default --on ray starts one of this machine alone.
        set: a setting to change, NAME=VALUE; may be repeated.
        sweep: settings to try, NAME=V1,V2; several give all combinations.
        all: every study of this version.
        fresh: forget seeds that an interrupted run has finished.
        ship: write the evidence into the package (for maintainers).
        json: print JSON.
    """
    from thalweg.cli.output import print_json
    from thalweg.cli.progress import seed_progress
    from thalweg.errors import ThalwegError
    from thalweg.studies.runner import plan_study, run_plans
    from thalweg.studies.study import available, load, with_settings

    wanted = list(names or []) + (available() if all else [])
    if not wanted:
        raise ThalwegError("name a study, or give --all; `thalweg study list` lists them")
    if seeds is not None and seeds < 1:
        raise ThalwegError(f"--seeds must be at least 1, got {seeds}")
    if address is not None and on != "ray":
        raise ThalwegError("--address is that of a Ray cluster: give --on ray with it")
    fixed, grid = _settings(set or []), _grid(sweep or [])
    points = [(name, point) for name in dict.fromkeys(wanted) for point in grid]
    plans = [
        plan_study(
            name,
            preset=preset,
            seeds=None if seeds is None else range(seeds),
            config=with_settings(load(name).config(preset), {**fixed, **point}),
            fresh=fresh,
        )
        for name, point in points
    ]
    if preset == "paper" and not json:
        print_costs(plans)
    labels = [f"{name} {preset} {told(point)}".strip() for name, point in points]
    bars = [(label, len(plan.seeds)) for label, plan in zip(labels, plans, strict=True)]
    runs, failure = {}, None
    with (
        _executor(on, address, workers) as executor,
        seed_progress(bars, quiet=json) as progress,
    ):
        try:
            for place, done in run_plans(plans, executor=executor, progress=progress):
                trial = fixed or points[place][1]
                runs[place] = (points[place][1], done, [] if trial else _evidence(done, ship))
        except ThalwegError as error:
            failure = error  # told after the settings that came to their end
    rows = [runs[place] for place in sorted(runs)]
    if json and rows:
        print_json([run_plain(*row) for row in rows])
    for row in () if json else rows:
        print_run(*row)
    if failure is not None:
        raise failure
    return 0


@study.command(help_epilogue="Example: thalweg study show broken_laws")
def show(name: str, /, *, json: Annotated[bool, Flag] = False) -> int:
    """Show a study: what it does, its presets, the claims it tests and what was measured.

    Args:
        name: the study.
        json: print JSON.
    """
    from dataclasses import asdict

    from thalweg.almanac.catalogue import study_entries
    from thalweg.cli.almanac import claim_lines, claim_plain
    from thalweg.cli.output import print_json
    from thalweg.studies.cost import cost
    from thalweg.studies.runner import default_seeds
    from thalweg.studies.study import load

    loaded = load(name)
    presets = {k: asdict(v) for k, v in loaded.presets.items()}
    rows = [(entry, c) for entry in study_entries(name) for c in _standings(entry, name)]
    if json:
        claims = [{"entry": e.slug, **claim_plain(c)} for e, c in rows]
        about = {"name": name, "about": loaded.doc, "presets": presets}
        print_json({**about, "paper_cost": cost_plain(name), "claims": claims})
        return 0
    print(loaded.doc)
    print()
    print("presets")
    for preset, settings in presets.items():
        wrap(f"  {preset:6} ", " ".join(f"{k}={v}" for k, v in settings.items()))
    wrap("", f"paper: {cost(name).told(len(default_seeds(name, 'paper')))}")
    for entry, c in rows:
        print()
        print(*claim_lines(c, f"{entry.slug}/"), sep="\n")
    return 0


@study.command(help_epilogue="Example: thalweg study plot broken_laws -o broken_laws.svg")
def plot(
    name: str,
    /,
    *,
    output: Annotated[Path | None, Parameter(name=["--output", "-o"], show_default=False)] = None,
) -> int:
    """Draw the evidence of a study: its curves and the figures of each claim, as an SVG.

    Args:
        name: the study.
        output: the file; by default <name>.svg here.
    """
    from thalweg.almanac.catalogue import study_entries
    from thalweg.errors import ThalwegError
    from thalweg.report.evidence import draw
    from thalweg.studies.study import load

    load(name)
    claims = [c for e in study_entries(name) for c in _standings(e, name) if c.evidence]
    if not claims:
        raise ThalwegError(f"no evidence of {name} yet: thalweg study run {name}")
    path = output or Path(f"{name}.svg")
    try:
        path.write_text(draw(claims), "utf-8")
    except OSError as error:
        raise ThalwegError(f"{path}: cannot be written: {error.strerror}") from None
    print(path)
    return 0


def _standings(entry: Entry, name: str) -> list[Any]:
    from thalweg.almanac.standings import standing

    return [c for c in standing(entry).claims if c.claim.study_name == name]


def _executor(on: str, address: str | None, workers: int | None) -> Any:
    """A context manager that gives where seeds run."""
    import os
    from contextlib import nullcontext

    if on == "ray":
        # Ray tells of every lost worker in paragraphs on standard output, among the figures. Those
        # that it makes up for are no news, and the others are said as errors.
        os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".*")
        from thalweg.studies.ray_executor import RayExecutor

        return RayExecutor(address, workers=workers)
    from thalweg.studies.executor import LocalExecutor

    return nullcontext(LocalExecutor(1 if workers is None else workers))


def _evidence(done: StudyRun, ship: bool) -> list[tuple[Entry, Path, Any]]:
    """Writes evidence of a run that counts; of one that does not, nothing."""
    import sys

    from thalweg.almanac.catalogue import study_entries
    from thalweg.almanac.evidence import SHIPPED, user_folder, write_evidence
    from thalweg.studies.made_evidence import evidence_of
    from thalweg.studies.runner import forget

    if done.preset == "smoke" or not done.as_preset or len(done.seeds) < 3:
        return []
    folder = SHIPPED if ship else user_folder() / "evidence"
    argv = ("thalweg", *sys.argv[1:])
    found = [(e, evidence_of(done, e, argv)) for e in study_entries(done.study)]
    written = [(e, write_evidence(item, folder), item) for e, item in found]
    forget(done)
    return written


def _settings(given: Sequence[str]) -> dict[str, str]:
    from thalweg.errors import ThalwegError

    found = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise ThalwegError(f"expected NAME=VALUE, got {text!r}")
        found[name] = value
    return found


def _grid(given: Sequence[str]) -> list[dict[str, str]]:
    """All combinations of what is swept; one empty point if nothing is."""
    axes = [[(k, v) for v in values.split(",")] for k, values in _settings(given).items()]
    return [dict(point) for point in itertools.product(*axes)]
