"""``thalweg study``: re-run published claims on this machine."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import App, Parameter

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
        rows.append({"name": name, "about": described(name), "claims": claims})
    waiting = [n for n in planned() if n not in available()]
    if json:
        print_json({"studies": rows, "planned": waiting})
        return 0
    for row in rows:
        _wrap("", f"{row['name']}: {row['about']}")
        for claim in row["claims"]:
            _wrap("  ", claim)
    if waiting:
        print()
        _wrap("planned, not in this version: ", ", ".join(waiting))
    return 0


@study.command(help_epilogue="Example: thalweg study run broken_laws --sweep lr=1e-2,1e-3")
def run(
    names: Annotated[list[str] | None, Parameter(negative="")] = None,
    /,
    *,
    preset: Preset = "quick",
    seeds: Annotated[int | None, Parameter(show_default=False)] = None,
    workers: int = 1,
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
        workers: processes at once, one thread each.
        set: a setting to change, NAME=VALUE; may be repeated.
        sweep: settings to try one after the other, NAME=V1,V2; several give all combinations.
        all: every study of this version.
        fresh: forget seeds that an interrupted run has finished.
        ship: write the evidence into the package (for maintainers).
        json: print JSON.
    """
    from thalweg.cli.output import print_json
    from thalweg.errors import ThalwegError
    from thalweg.studies.study import available

    wanted = list(names or []) + (available() if all else [])
    if not wanted:
        raise ThalwegError("name a study, or give --all; `thalweg study list` lists them")
    if seeds is not None and seeds < 1:
        raise ThalwegError(f"--seeds must be at least 1, got {seeds}")
    fixed, grid = _settings(set or []), _grid(sweep or [])
    runs = []
    for name in dict.fromkeys(wanted):
        for point in grid:
            told = " ".join(f"{k}={v}" for k, v in point.items())
            done = _run_one(name, preset, seeds, workers, {**fixed, **point}, fresh, told, json)
            runs.append((point, done, [] if point or fixed else _evidence(done, ship)))
    if json:
        print_json([_plain(*row) for row in runs])
        return 0
    for point, done, written in runs:
        _print_run(point, done, written)
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
    from thalweg.studies.study import load

    loaded = load(name)
    presets = {k: asdict(v) for k, v in loaded.presets.items()}
    rows = [(entry, c) for entry in study_entries(name) for c in _standings(entry, name)]
    if json:
        claims = [{"entry": e.slug, **claim_plain(c)} for e, c in rows]
        print_json({"name": name, "about": loaded.doc, "presets": presets, "claims": claims})
        return 0
    print(loaded.doc)
    print()
    print("presets")
    for preset, settings in presets.items():
        _wrap(f"  {preset:6} ", " ".join(f"{k}={v}" for k, v in settings.items()))
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


def _run_one(
    name: str,
    preset: str,
    seeds: int | None,
    workers: int,
    settings: dict[str, str],
    fresh: bool,
    told: str,
    quiet: bool,
) -> StudyRun:
    from thalweg.cli.progress import seed_progress
    from thalweg.studies.executor import LocalExecutor
    from thalweg.studies.runner import run_study
    from thalweg.studies.study import load, with_settings

    config = with_settings(load(name).config(preset), settings)
    with seed_progress(f"{name} {preset} {told}".strip(), quiet=quiet) as progress:
        return run_study(
            name,
            preset=preset,
            seeds=None if seeds is None else range(seeds),
            config=config,
            executor=LocalExecutor(workers),
            progress=progress,
            fresh=fresh,
        )


def _evidence(done: StudyRun, ship: bool) -> list[tuple[Entry, Path, Any]]:
    """Writes evidence of a run that counts; of one that does not, nothing."""
    import sys

    from thalweg.almanac.catalogue import study_entries
    from thalweg.almanac.evidence import SHIPPED, user_folder, write_evidence
    from thalweg.studies.runner import evidence_of, forget

    if done.preset == "smoke" or not done.as_preset or len(done.seeds) < 3:
        return []
    folder = SHIPPED if ship else user_folder() / "evidence"
    argv = ("thalweg", *sys.argv[1:])
    found = [(e, evidence_of(done, e, argv)) for e in study_entries(done.study)]
    written = [(e, write_evidence(item, folder), item) for e, item in found]
    forget(done)
    return written


def _print_run(point: dict[str, str], done: StudyRun, written: Sequence[Any]) -> None:
    from thalweg.almanac.catalogue import study_entries
    from thalweg.almanac.verdict import judge
    from thalweg.cli.output import number

    print()
    settings = " ".join(f"{k}={v}" for k, v in point.items())
    print(f"{done.study} {done.preset} {settings}".rstrip(), f"({len(done.seeds)} seeds)")
    for entry in study_entries(done.study):
        for claim in entry.claims:
            samples = done.samples(claim.id)
            if claim.study_name != done.study or not samples:
                continue
            judged = judge(samples, claim.op, claim.threshold)
            figures = " ".join(number(x) for x in samples)
            _wrap("  ", f"{entry.slug}/{claim.id}: {figures} (must be {claim.bound})")
            rest = [
                f"{kind[:-1]} " + " ".join(number(x) for x in done.samples(claim.id, kind))
                for kind in ("baselines", "controls")
                if done.samples(claim.id, kind)
            ]
            if rest:
                _wrap("    ", "; ".join(rest))
            if not written:
                _wrap("    ", f"would be {judged.verdict}; a trial, no evidence")
    for entry, path, item in written:
        for claim_id in item.samples:
            _wrap("  ", f"{entry.slug}/{claim_id}: {item.judgement(claim_id).verdict}")
        _wrap("  ", f"evidence: {path}")


def _plain(point: dict[str, str], done: StudyRun, written: Sequence[Any]) -> dict[str, Any]:
    from dataclasses import asdict

    return {
        "study": done.study,
        "preset": done.preset,
        "sweep": point,
        "config": asdict(done.config),
        "seeds": list(done.seeds),
        "figures": [{k: v for k, v in asdict(f).items() if k != "curves"} for f in done.figures],
        "wall_s": list(done.wall_s),
        "evidence": [
            {"entry": e.slug, "path": str(path), "verdict": item.verdict}
            for e, path, item in written
        ],
    }


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


def _wrap(lead: str, text: str) -> None:
    import textwrap

    from thalweg.cli.output import width

    print(
        textwrap.fill(
            text,
            width(),
            initial_indent=lead,
            subsequent_indent=" " * (len(lead) + (0 if lead.strip() else 2)),
            break_on_hyphens=False,
            break_long_words=False,
        )
    )
