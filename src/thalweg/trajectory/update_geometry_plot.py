"""What a fine-tune changed as a figure, with matplotlib (the extra ``plot``).

Only axes are drawn on, no global state of pyplot's; the caller saves or shows the figure.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from thalweg.instruments.blank_figure import blank_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from thalweg.trajectory.compare_checkpoints import UpdateGeometryReport

__all__ = ["plot_update_geometry"]


def plot_update_geometry(report: UpdateGeometryReport) -> Figure:
    """Changed weights by layer and kind, overlaps over noise, drift and angles beside noise.

    Args:
        report: of ``compare_checkpoints``.

    Raises:
        ThalwegError: if matplotlib is not installed.
    """
    figure, ((where, lifts), (drift, angle)) = blank_figure(2, 2, (9, 7))
    _changed(where, report)
    kinds = report.modules
    names = [kind for kind, g in kinds.items() if not math.isnan(g.low / (g.low_control or 1))]
    for offset, field, label in ((-0.2, "low", "smallest"), (0.2, "principal", "principal")):
        heights = [
            getattr(kinds[n], field) / (getattr(kinds[n], f"{field}_control") or math.nan)
            for n in names
        ]
        lifts.bar([i + offset for i in range(len(names))], heights, 0.4, label=label)
    lifts.axhline(1, color="0.4", linestyle=":")
    lifts.set(title="visible changes on these weights, over noise", xticks=range(len(names)))
    lifts.set_xticklabels(names)
    lifts.legend(fontsize="small")
    matrices = [t for t in report.tensors if t.k and t.change_norm]
    _against(drift, [(t.drift_control, t.drift) for t in matrices], "drift of singular values")
    largest = [(t.angle_control, max(t.angle_left, t.angle_right)) for t in matrices]
    _against(angle, largest, f"largest turn of {report.settings.k} directions, degrees")
    return figure


def _changed(ax: Any, report: UpdateGeometryReport) -> None:
    """Share of the stored weights that changed, a row per layer and a column per kind."""
    kinds = list(report.modules)
    layers = list(report.layers) or [0]
    numel = [[0] * len(kinds) for _ in layers]
    changed = [[0] * len(kinds) for _ in layers]
    for t in report.tensors:
        if t.layer is not None or layers == [0]:
            at = layers.index(t.layer or 0)
            numel[at][kinds.index(t.kind)] += t.numel
            changed[at][kinds.index(t.kind)] += t.changed
    shares = [
        [c / n if n else math.nan for c, n in zip(*pair, strict=True)]
        for pair in zip(changed, numel, strict=True)
    ]
    image = ax.imshow(shares, vmin=0, vmax=1, aspect="auto", origin="lower")
    ax.set(title="changed in bfloat16", ylabel="layer", xticks=range(len(kinds)))
    ax.set_xticklabels(kinds, rotation=45)
    ax.figure.colorbar(image, ax=ax)


def _against(ax: Any, points: list[tuple[float, float]], title: str) -> None:
    """Each matrix, noise of the same norm across."""
    known = [(x, y) for x, y in points if x > 0 and y > 0]
    ax.set(title=title, xlabel="noise of the same norm", ylabel="the change")
    if known:
        xs, ys = zip(*known, strict=True)
        ax.scatter(xs, ys, s=14)
        ends = [min(*xs, *ys), max(*xs, *ys)]
        ax.plot(ends, ends, color="0.4", linestyle=":")
        ax.set(xscale="log", yscale="log")
