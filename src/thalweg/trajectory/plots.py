"""Figures of trajectories with matplotlib (the extra ``plot``): a fit, a dimension, a drift.

Only axes are drawn on, no global state of pyplot's; the caller saves or shows the figure. The
outlook and what a fine-tune changed have figures of their own.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from thalweg.instruments.blank_figure import blank_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from thalweg.trajectory.basis_drift import DriftCurve
    from thalweg.trajectory.dimension_sweep import IntrinsicDimensionResult
    from thalweg.trajectory.extrapolation import TrajectoryModel

__all__ = ["plot_dimensions", "plot_drift", "plot_fit"]

SIZE = (5.6, 3.8)
TENSORS = 6  # coefficients that are drawn, of the tensors that moved most


def plot_fit(model: TrajectoryModel, target: float) -> Figure:
    """First coefficients over time and where their fit puts them at the target.

    Args:
        model: of ``fit_rank1``.
        target: step, after the last observed one.
    """
    figure, ((axis,),) = blank_figure(1, 1, SIZE)
    steps = list(model.steps)
    moved = sorted(model.grams, key=lambda name: -float(model.grams[name][-1, -1]))[:TENSORS]
    ahead = model.weights(target)
    for name in moved:
        G, c = model.grams[name], model.coefficients[name][:, 0].double()
        scale = float(G[-1, -1]) ** 0.5 or 1.0
        sign = -1.0 if float(c.sum()) < 0 else 1.0
        (line,) = axis.plot(steps, sign * c / scale, marker="o", markersize=3, label=name)
        # The coefficient of the prediction is its inner product with the direction, u'Mw/s.
        s = float(c.norm())
        there = sign * float(c @ G @ ahead[name]) / (s * s) if s else 0.0
        color = line.get_color()
        axis.plot([steps[-1], target], [sign * c[-1] / scale, there / scale], "--", color=color)
    null = model.null_report()
    axis.set(
        title=f"coefficients, told up to step {target:g} (a random walk: R² = {null.r2:.2f})",
        xlabel="step",
        ylabel="over the last change's length",
    )
    axis.legend(fontsize="small")
    return figure


def plot_dimensions(found: IntrinsicDimensionResult) -> Figure:
    """Share of the baseline over the dimension, every seed, and where the threshold is crossed."""
    figure, ((axis,),) = blank_figure(1, 1, SIZE)
    full = float(found.baseline.mean()) - found.chance
    dims, means = found.curve()
    for seed in range(found.scores.shape[1]):
        axis.plot(dims, (found.scores[:, seed] - found.chance) / full, ".", color="0.6")
    axis.plot(dims, means, marker="o", label="mean over seeds")
    axis.axhline(found.threshold, linestyle="--", color="0.4", label=f"{found.threshold:g}")
    if math.isfinite(found.interpolated):
        low, high = found.interpolated_ci
        axis.axvline(found.interpolated, color="C1", label=f"d = {found.interpolated:.3g}")
        if math.isfinite(high):
            axis.axvspan(low, high, color="C1", alpha=0.15, linewidth=0)
    title = (
        f"{found.d90:g} of {found.D:,} parameters" if math.isfinite(found.d90) else "not reached"
    )
    axis.set(title=title, xlabel="dimensions", ylabel="share of full training", xscale="log")
    axis.legend(fontsize="small")
    return figure


def plot_drift(curve: DriftCurve) -> Figure:
    """Overlap of later directions with the first, between its ceiling and random ones."""
    figure, ((axis,),) = blank_figure(1, 1, SIZE)
    axis.plot(curve.steps, curve.overlap, marker="o", label="with the first window")
    if math.isfinite(curve.ceiling):
        axis.axhline(curve.ceiling, linestyle=":", color="C1", label="at the same weights")
    axis.axhline(curve.random, linestyle="--", color="0.4", label="random directions")
    axis.set(title=f"{curve.size} directions", xlabel="step", ylabel="overlap", ylim=(0, 1.03))
    axis.legend(fontsize="small")
    return figure
