"""Figures of what was measured over widths, with matplotlib (the extra ``plot``).

Only axes are drawn on, no global state of pyplot's; the caller saves or shows the figure.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from thalweg.instruments.blank_figure import blank_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from thalweg.instruments.coordinate_check import CoordCheck
    from thalweg.instruments.width_scaling import LrWidthScaling

__all__ = ["plot_coordinates", "plot_rates"]


def plot_coordinates(check: CoordCheck, quantity: str) -> Figure:
    """Size against width, a panel for each step and a line for each module."""
    steps = sorted({r.step for r in check.rows})
    shown = steps if len(steps) <= 4 else [steps[round(i * (len(steps) - 1) / 3)] for i in range(4)]
    figure, axes = _panels(len(shown))
    for axis, step in zip(axes, shown, strict=True):
        for module, sizes in check.sizes(quantity, step=step).items():
            at = {w: v for w, v in sizes.items() if 0 < v < math.inf}
            axis.plot(list(at), list(at.values()), marker="o", label=module or "model")
        _logarithmic(axis, f"after {step} steps", "width", quantity if step == shown[0] else "")
    axes[-1].legend(fontsize="small")
    figure.suptitle(f"coordinate check, {check.parametrization}")
    return figure


def plot_rates(found: LrWidthScaling) -> Figure:
    """Final loss against the rate for each width, and the two rates against the width."""
    figure, (left, right) = _panels(2)
    for width in found.widths:
        sums: dict[float, list[float]] = {}
        for r in found.runs:
            if r.width == width and r.stable:
                sums.setdefault(r.lr, []).append(r.loss)
        whole = {lr: sum(v) / len(v) for lr, v in sums.items() if len(v) == len(found.seeds)}
        left.plot(list(whole), list(whole.values()), marker="o", label=f"width {width}")
    _logarithmic(left, "stable rates", "learning rate", "final loss")
    left.legend(fontsize="small")
    for name, rates, fit in (
        ("largest stable", found.max_stable, found.fit_max),
        ("best", found.optimal, found.fit_opt),
    ):
        label = name if fit is None else f"{name}, exponent {fit.exponent:.2f}"
        line = right.plot(list(rates), list(rates.values()), marker="o", linestyle="", label=label)
        if fit is not None:
            ends = fit.window
            right.plot(ends, [fit(w) for w in ends], color=line[0].get_color())
    _logarithmic(right, "learning rate over width", "width", "learning rate")
    right.legend(fontsize="small")
    return figure


def _panels(count: int) -> tuple[Figure, Any]:
    figure, (axes,) = blank_figure(1, count, (4 * count, 3.2))
    return figure, axes


def _logarithmic(axis: Any, title: str, x: str, y: str) -> None:
    axis.set(title=title, xlabel=x, ylabel=y)
    axis.set_xscale("log", base=2)
    axis.set_yscale("log", base=2)
