"""``thalweg diff``: what a fine-tune changed, beside what noise would have changed."""

from __future__ import annotations

import math
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter
from cyclopts.validators import Number

from thalweg.cli.options import Count, FigureFile

if TYPE_CHECKING:
    from thalweg.trajectory import GroupGeometry, UpdateGeometryReport

__all__ = ["diff"]

NOISE = 0.05  # a figure this close to that of noise, relatively, is no more than noise
LISTED = 5


def diff(
    base: Path,
    tuned: Path,
    /,
    *,
    k: Count = 64,
    r: Count = 64,
    alpha: Annotated[float, Parameter(validator=Number(gt=0, lte=1))] = 0.5,
    eta: Annotated[float, Parameter(validator=Number(gte=0, lt=1))] = 1e-3,
    control: Literal["isotropic", "shuffle", "none"] = "isotropic",
    draws: Count = 1,
    max_svd_dim: Count = 4096,
    skip_mismatched: Annotated[bool, Parameter(negative="", show_default=False)] = False,
    plot: FigureFile = None,
    json: Annotated[bool, Parameter(negative="", show_default=False)] = False,
) -> int:
    """Say what changed between two checkpoints, by kind of module and by layer.

    Which weights changed once they are stored in bfloat16, whether those are the small ones or the
    ones that carry the matrix, how far singular values and directions moved, and the same of noise
    that is as large or as visible. A figure equal to that of noise says nothing about training.

    Args:
        base: a .safetensors or torch file, or a folder of Hugging Face, with shards or without.
        tuned: the same of the fine-tuned model.
        k: leading singular directions of each matrix.
        r: rank of the reconstruction behind the principal weights.
        alpha: share of the weights that count as small, and as principal.
        eta: relative difference that counts as none; below 0.002, different bfloat16 numbers.
        control: noise to compare with; none takes half the time.
        draws: of the noise, for the weights; spectra take one.
        max_svd_dim: matrices with a longer smaller side get their leading directions only.
        skip_mismatched: list tensors that only one has, or of other shape, in place of an error.
        plot: an .svg, .png or .pdf file for a figure.
        json: print JSON, with every tensor.
    """
    from thalweg.cli.output import print_json
    from thalweg.cli.progress import part_progress
    from thalweg.trajectory import compare_checkpoints

    with part_progress("comparing", quiet=json) as progress:
        report = compare_checkpoints(
            base,
            tuned,
            eta=eta,
            k=k,
            r=r,
            alpha=alpha,
            control=None if control == "none" else control,
            n_control=draws,
            max_svd_dim=max_svd_dim,
            strict=not skip_mismatched,
            progress=progress,
        )
    if plot is not None:
        from thalweg.trajectory.update_geometry_plot import plot_update_geometry

        plot.parent.mkdir(parents=True, exist_ok=True)
        plot_update_geometry(report).savefig(plot)
    if json:
        print_json({"base": str(base), "tuned": str(tuned), **report.as_dict()})
        return 0
    print(*_lines(base, tuned, report), sep="\n")
    if plot is not None:
        print(f"wrote {plot}")
    return 0


def _lines(base: Path, tuned: Path, report: UpdateGeometryReport) -> list[str]:
    """What is printed, in 80 columns where names allow."""
    s = report.summary
    lines = [f"{base} → {tuned}", f"{s.numel:,} weights in {s.tensors} tensors"]
    if report.dtypes[0] != report.dtypes[1]:
        note = "what one of them cannot hold counts as a change below, but not in bfloat16"
        lines += textwrap.wrap(f"stored as {report.dtypes[0]} and {report.dtypes[1]}: {note}", 80)
    lines += ["", f"{'':46}{'here':>11}{'noise':>11}", *_summary(report), *_reading(report), ""]
    head = ("weights", "equal", "size", "drift", "angle", "energy", "small", "principal")
    lines += [
        "drift, angle, energy, small, principal: over those of noise (1: no more than it)",
        f"{'':7}" + f"{head[0]:>12}" + "".join(f"{h:>8}" for h in head[1:-1]) + f"{head[-1]:>11}",
    ]
    lines += [_row(kind, group) for kind, group in report.modules.items()]
    if report.layers:
        lines += ["", "by layer"]
        lines += [_row(str(i), group) for i, group in report.layers.items()]
    if report.skipped:
        lines += ["", f"not compared ({len(report.skipped)}):"]
        shown = list(report.skipped.items())[:LISTED]
        lines += [f"  {name}: {why}" for name, why in shown]
        if len(report.skipped) > LISTED:
            lines.append(f"  and {len(report.skipped) - LISTED} more")
    return lines


def _figures(report: UpdateGeometryReport) -> list[tuple[str, float, float]]:
    """What is compared: words, here, noise."""
    s, share = report.summary, f"{report.settings.alpha:.0%}"
    return [
        ("drift of the singular values", s.drift, s.drift_control),
        (f"largest turn of {report.settings.k} directions, degrees", s.angle, s.angle_control),
        ("energy between principal directions", s.energy, s.energy_isotropic),
        ("directions of the change (stable rank)", s.stable_rank, s.stable_rank_isotropic),
        (f"changes on the smallest {share} of weights", s.low, s.low_control),
        (f"changes on the principal {share} of weights", s.principal, s.principal_control),
    ]


def _summary(report: UpdateGeometryReport) -> list[str]:
    from thalweg.cli.output import number

    s = report.summary
    lines = [
        f"{'weights equal in bfloat16':46}{s.sparsity:>11.4f}",
        f"{'size of the change, ‖ΔW‖ / ‖W‖':46}{number(s.relative_norm):>11}",
    ]
    return lines + [
        f"{words:46}{number(here):>11}{number(noise):>11}"
        for words, here, noise in _figures(report)
    ]


def _reading(report: UpdateGeometryReport) -> list[str]:
    """What of it means nothing, in words."""
    s = report.summary
    if s.sparsity == 1:
        return ["", "No weight differs in bfloat16: nothing that storage sees has changed."]
    said: list[str] = []
    compared = _figures(report) if report.settings.control else []
    equal = [words for words, here, noise in compared if abs(here - noise) <= NOISE * noise]
    if equal:
        said.append(f"No more than noise: {'; '.join(equal)}.")
    if s.angles_uncertain:
        said.append(
            f"The gap at k = {report.settings.k} is below twice the change in "
            f"{s.angles_uncertain} of {s.matrices} matrices: there the directions cannot be told "
            "apart, and their angles mean little."
        )
    return [line for text in said for line in ["", *textwrap.wrap(text, 80)]]


def _row(name: str, g: GroupGeometry) -> str:
    """One kind or layer."""

    def over(here: float, noise: float) -> str:
        ratio = here / noise if noise else math.nan
        return "-" if math.isnan(ratio) else f"{ratio:.2f}" if ratio < 1000 else f"{ratio:.0e}"

    cells = (
        f"{g.sparsity:.3f}",
        f"{g.relative_norm:.1e}",
        over(g.drift, g.drift_control),
        over(g.angle, g.angle_control),
        over(g.energy, g.energy_isotropic),
        over(g.low, g.low_control),
    )
    tail = f"{over(g.principal, g.principal_control):>11}"
    return f"{name:7}{g.numel:>12,}" + "".join(f"{c:>8}" for c in cells) + tail
