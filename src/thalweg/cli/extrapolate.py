"""``thalweg extrapolate``: the checkpoint of a later step, and whether to believe it."""

from __future__ import annotations

import shutil
import textwrap
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter
from cyclopts.validators import Number

from thalweg.cli.options import Count

if TYPE_CHECKING:
    from thalweg.trajectory import Foresight, TrajectoryModel

__all__ = ["extrapolate"]

FAR = 2.0  # times its share of the time that a tensor may be predicted to move before it is listed
LISTED = 5


def extrapolate(
    source: Path,
    /,
    *more: Path,
    to: int,
    rank: Count = 1,
    fit: Literal["linear", "polynomial", "sinusoid"] = "linear",
    steps: Annotated[str | None, Parameter(show_default=False)] = None,
    window: Annotated[int | None, Parameter(validator=Number(gte=2), show_default=False)] = None,
    base: Annotated[Path | None, Parameter(show_default=False)] = None,
    scale: float = 1.0,
    out: Annotated[Path | None, Parameter(name=["--out", "-o"], show_default=False)] = None,
    overwrite: Annotated[bool, Parameter(negative="", show_default=False)] = False,
    json: Annotated[bool, Parameter(negative="", show_default=False)] = False,
) -> int:
    """Write the checkpoint of a later step without training, with a go or no-go.

    One direction and one line per tensor are fitted to the checkpoints that are there. The verdict
    comes from predicting the last of them from earlier ones, as far ahead as is asked for; a go
    (exit code 0) says that the new checkpoint is worth an evaluation, a no-go (exit code 1) that
    the path bends. The checkpoint is written either way.

    Args:
        source: a run, a folder of checkpoints, or the first of several checkpoints with a step in
            their names.
        more: further checkpoints.
        to: the step to write, after the last one observed.
        rank: directions per tensor.
        fit: of each direction's coefficient over time.
        steps: use only these observed steps, FROM:TO.
        window: fit over so many last checkpoints only.
        base: checkpoint that changes are measured from; default: the first one.
        scale: of the whole predicted change.
        out: a .safetensors file, or a folder (model.safetensors and a copy of the configuration
            and tokenizer of the last checkpoint); default: extrapolated-STEP.safetensors.
        overwrite: replace what lies there.
        json: print JSON.
    """
    from thalweg.cli.output import print_json
    from thalweg.cli.progress import part_progress
    from thalweg.cli.trajectory_source import checkpoints
    from thalweg.errors import ThalwegError
    from thalweg.trajectory import DeltaStore, fit_rank1, foresight, write_checkpoint

    target = Path(f"extrapolated-{to}.safetensors") if out is None else out
    found = checkpoints(source, *more)
    file = target if target.suffix == ".safetensors" else target / "model.safetensors"
    if file.exists() and not overwrite:
        raise ThalwegError(f"{file} exists; give another --out, or --overwrite to replace it")
    store = DeltaStore(found, base)
    with part_progress("reading checkpoints", quiet=json) as progress:
        model = fit_rank1(
            store, rank=rank, fit=fit, steps=_span(steps), window=window, progress=progress
        )
    report = foresight(model, to)
    with part_progress("writing", quiet=json) as progress:
        tensors = {**store.tensors, **store.copied}
        note = {
            "step": str(to),
            "thalweg.extrapolated_from": f"{model.steps[0]}:{model.steps[-1]}",
            "thalweg.verdict": "go" if report.go else "no-go",
            "format": "pt",
        }
        stretches = model.stretches(to, scale=scale, progress=progress)
        write_checkpoint(file, tensors, stretches, metadata=note)
    copied = [] if file is target else _companions(found[max(found)], target)
    if json:
        null = model.null_report()
        data = {
            **asdict(report),
            "checkpoints": len(model.steps),
            "steps": [model.steps[0], model.steps[-1]],
            "r2": _weighted(model, model.r2),
            "walk_r2": null.r2,
            "tensors": _per_tensor(model, to),
            "written": str(file),
        }
        print_json(data)
    else:
        print(*_lines(source, model, report, to), sep="\n")
        also = f" and {len(copied)} files of the last checkpoint" if copied else ""
        print(f"wrote {file}{also}")
    return 0 if report.go else 1


def _lines(source: Path, model: TrajectoryModel, report: Foresight, to: int) -> list[str]:
    """What is printed, in 80 columns."""
    size = sum(info.numel for info in model.store.tensors.values())
    null = model.null_report()
    first, last = model.steps[0], model.steps[-1]
    lines = [
        f"{source}: {len(model.steps)} checkpoints, steps {first} to {last}; {size:,} weights in "
        f"{len(model.grams)} tensors",
        "",
        f"{'':34}{'here':>10}{'random walk':>14}",
        f"{'share of the first directions':34}{report.explained:>10.3f}{report.walk:>14.3f}",
        f"{'R² of the line':34}{_weighted(model, model.r2):>10.3f}{null.r2:>14.3f}",
        "",
        f"Step {report.held_out} told from steps up to {report.seen} ({report.horizon:.3g} times "
        f"further; {report.wanted:.3g} are asked for).",
        "Missed by, in units of how far the weights went on:",
        f"  {'this prediction':32}{report.error:>10.2f}",
        f"  {f'expected of it at step {to}':32}{report.expected:>10.2f}",
        f"  {'last change scaled with time':32}{report.last_delta:>10.2f}",
        f"  {'a line through every coordinate':32}{report.per_coordinate:>10.2f}",
        f"  {'last checkpoint as it is':32}{1.0:>10.2f}",
        "",
    ]
    far = [t for t in _per_tensor(model, to) if t["reach"] > FAR]
    if far:
        lines.append(f"Predicted to move over {FAR:g} times further than in proportion to time:")
        worst = sorted(far, key=lambda t: -t["reach"])
        lines += [f"  {t['name']:50} {t['reach']:.1f}" for t in worst[:LISTED]]
        if len(worst) > LISTED:
            lines.append(f"  and {len(worst) - LISTED} more")
        lines.append("")
    verdict = "go" if report.go else "no-go"
    return lines + textwrap.wrap(f"{verdict}: {report.why}", 80)


def _per_tensor(model: TrajectoryModel, to: int) -> list[dict[str, Any]]:
    """Of each tensor: shares, straightness, and how far it is predicted to go beyond proportion."""
    weights, elapsed = model.weights(to), float(model.clock(to)) / float(model.times[-1])
    rows = []
    for name, G in model.grams.items():
        w, observed = weights[name], float(G[-1, -1]) ** 0.5
        ahead = max(float(w @ G @ w), 0.0) ** 0.5
        rows.append(
            {
                "name": name,
                "explained": model.explained_variance[name],
                "r2": model.r2[name],
                "reach": ahead / (observed * elapsed) if observed else 0.0,
            }
        )
    return rows


def _weighted(model: TrajectoryModel, values: Any) -> float:
    """Mean over tensors, by how far each moved."""
    energy = {name: float(G.trace()) for name, G in model.grams.items()}
    moved = {name: e for name, e in energy.items() if e > 0}
    total = sum(moved.values())
    return sum(values[n] * e for n, e in moved.items()) / total if total else float("nan")


def _span(steps: str | None) -> slice | None:
    """FROM:TO as a slice of step numbers."""
    if steps is None:
        return None
    first, _, last = steps.partition(":")
    try:
        span = slice(int(first) if first else None, int(last) if last else None)
    except ValueError:
        raise ValueError(f"--steps: expected FROM:TO, as in 1:75; got {steps!r}") from None
    if first and last and int(first) >= int(last):
        raise ValueError(f"--steps: expected FROM before TO, got {steps!r}")
    return span


def _companions(last: Path, folder: Path) -> list[Path]:
    """Configuration and tokenizer of a checkpoint folder, copied beside the new weights."""
    if not last.is_dir():
        return []
    kept = [
        path
        for path in sorted(last.iterdir())
        if path.is_file()
        and path.suffix in (".json", ".txt", ".model", ".jinja")
        and not path.name.endswith(".index.json")
    ]
    return [Path(shutil.copy2(path, folder / path.name)) for path in kept]
