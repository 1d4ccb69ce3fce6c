"""``thalweg trajectory``: the dimensions a training runs in, and how far ahead it can be told."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from thalweg.cli.options import FigureFile

if TYPE_CHECKING:
    from thalweg.trajectory import DeltaStore, Outlook

__all__ = ["trajectory"]

SHOWN = 12  # tensors, of those that moved most


def trajectory(
    source: Path,
    /,
    *more: Path,
    sketches: Annotated[bool, Parameter(negative="", show_default=False)] = False,
    parts: Annotated[bool, Parameter(negative="", show_default=False)] = False,
    base: Annotated[Path | None, Parameter(show_default=False)] = None,
    plot: FigureFile = None,
    json: Annotated[bool, Parameter(negative="", show_default=False)] = False,
) -> int:
    """Show the path of the weights: its dimensions, what its start tells, how far it can be told.

    Each figure stands beside that of a random walk seen at the same steps: a figure no better than
    that is no more than noise. Of a run, whole snapshots are read, or its sketches if it has fewer
    than four; the first line says which.

    Args:
        source: a run, a folder of checkpoints, or the first of several checkpoints with a step in
            their names.
        more: further checkpoints.
        sketches: read a run's sketches: more points, inner products to about one percent.
        parts: also the tensors that moved most, one by one.
        base: checkpoint that changes are measured from; default: the first one.
        plot: an .svg, .png or .pdf file for a figure (needs the extra plot).
        json: print JSON.
    """
    from thalweg.cli.output import print_json
    from thalweg.cli.progress import part_progress
    from thalweg.trajectory import outlook

    path, store = _opened(source, more, base, sketches=sketches)
    with part_progress("reading checkpoints", quiet=json) as progress:
        found = outlook(path, sketched=sketches, progress=progress)
    rows = _per_tensor(store, path) if parts else []
    if plot is not None:
        from thalweg.trajectory.outlook_plot import plot_outlook

        plot_outlook(found).savefig(plot)
    if json:
        print_json(_plain(found, rows))
        return 0
    print(*_lines(source, found), sep="\n")
    if rows:
        print(*_part_lines(rows), sep="\n")
    if plot is not None:
        print(f"\nwrote {plot}")
    return 0


def _opened(
    source: Path, more: tuple[Path, ...], base: Path | None, *, sketches: bool
) -> tuple[Any, DeltaStore | None]:
    """What to look at, and its weights if they are read."""
    from thalweg.cli.trajectory_source import checkpoints
    from thalweg.recorder.run import Run
    from thalweg.trajectory import DeltaStore

    if not more and (source / "run.json").is_file():
        run = Run(source)
        if sketches or len(run.weights()) < 4:
            return run, None
        store = DeltaStore(run, base)
        return store, store
    if sketches:
        raise ValueError("--sketches: only a run has sketches")
    store = DeltaStore(checkpoints(source, *more), base)
    return store, store


def _lines(source: Path, found: Outlook) -> list[str]:
    """What is printed, in 80 columns."""
    pca = found.components
    first, last = pca.steps[0], pca.steps[-1]
    known = {
        "weights": "whole weights",
        "sketches": f"sketches, inner products to {found.error:.1%}",
    }[found.known_from]
    lines = [
        f"{source}: {len(pca.steps)} points, steps {first} to {last}; {pca.dim:,} weights",
        f"known from {known}",
        "",
        f"{'':40}{'here':>10}{'random walk':>14}",
        f"{'dimensions of 90 % of the path':40}{pca.r(0.9):>10}{pca.null_r(0.9):>14}",
        f"{'dimensions of 99 %':40}{pca.r(0.99):>10}{pca.null_r(0.99):>14}",
        f"{'share of the first component':40}{pca.explained[0]:>10.3f}{pca.null[0]:>14.3f}",
        "",
        "Share of the whole change (squared) in the span of the first changes",
    ]
    shown = _spread(found.prefixes, 6)
    lines += [f"{f'  up to step {p.step}':40}{p.share:>10.3f}{p.walk:>14.3f}" for p in shown]
    lines += ["", "The last point told by a line from earlier ones; missed by, of the way between"]
    for h in found.horizons:
        name = f"  {h.horizon:.3g} times further than step {h.seen}"
        lines.append(f"{name:40}{h.error:>10.2f}{'1 or more':>14}")
    lines += [] if found.horizons else ["  too few points to try"]
    return [*lines, "", *textwrap.wrap(_verdict(found), 80)]


def _verdict(found: Outlook) -> str:
    pca, last = found.components, found.components.steps[-1]
    if pca.r(0.9) == 0:
        return "The weights did not move."
    if not found.structured:
        return (
            "No more than noise: the path needs as many dimensions as a random walk of its length."
        )
    said = f"The path runs in fewer dimensions than noise, {pca.r(0.9)} against {pca.null_r(0.9)}."
    if found.reach <= 1:
        return f"{said} It bends too much for a line to tell where it goes."
    far = pca.steps[0] + round(found.reach * (last - pca.steps[0]))
    return (
        f"{said} A line told its last point from one as much as {found.reach:.3g} times nearer to "
        f"the start: up to step {far} or so, `thalweg extrapolate` is worth a try."
    )


def _per_tensor(store: DeltaStore | None, source: Any) -> list[dict[str, Any]]:
    """Of each tensor, most moved first: its share of the movement, dimensions, first component."""
    from thalweg.trajectory import trajectory_pca

    if store is None:
        raise ValueError("--parts: sketches mix all tensors; the run keeps too few snapshots")
    grams = store.gram()
    energy = {name: float(G[-1, -1]) for name, G in grams.items()}
    total = sum(energy.values()) or 1.0
    rows = []
    for name in sorted(energy, key=lambda n: -energy[n]):
        pca = trajectory_pca(store, names=[name])
        rows.append(
            {
                "name": name,
                "share": energy[name] / total,
                "r90": pca.r(0.9),
                "walk_r90": pca.null_r(0.9),
                "first_component": float(pca.explained[0]),
            }
        )
    return rows


def _part_lines(rows: list[dict[str, Any]]) -> list[str]:
    lines = ["", f"{'moved most':48}{'share':>8}{'dimensions':>12}{'first':>10}"]
    for row in rows[:SHOWN]:
        figures = f"{row['share']:>8.1%}{row['r90']:>12}{row['first_component']:>10.3f}"
        short = row["name"] if len(row["name"]) <= 48 else "…" + row["name"][-47:]
        lines.append(f"{short:48}{figures}")
    if len(rows) > SHOWN:
        lines.append(f"and {len(rows) - SHOWN} more; all with --json")
    return lines


def _plain(found: Outlook, rows: list[dict[str, Any]]) -> dict[str, Any]:
    pca = found.components
    return {
        "known_from": found.known_from,
        "error": found.error,
        "points": len(pca.steps),
        "steps": [pca.steps[0], pca.steps[-1]],
        "weights": pca.dim,
        "r90": pca.r(0.9),
        "walk_r90": pca.null_r(0.9),
        "r99": pca.r(0.99),
        "walk_r99": pca.null_r(0.99),
        "entropy_rank": pca.entropy_rank,
        "explained": pca.explained[:20].tolist(),
        "walk_explained": pca.null[:20].tolist(),
        "prefixes": [{"step": p.step, "share": p.share, "walk": p.walk} for p in found.prefixes],
        "horizons": [
            {"horizon": h.horizon, "seen": h.seen, "error": h.error} for h in found.horizons
        ],
        "reach": found.reach,
        "structured": found.structured,
        "tensors": rows,
    }


def _spread(items: Any, most: int) -> list[Any]:
    """Evenly picked, ends included."""
    if len(items) <= most:
        return list(items)
    return [items[round(i * (len(items) - 1) / (most - 1))] for i in range(most)]
