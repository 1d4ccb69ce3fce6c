"""The outlook of a training as a figure, with matplotlib (the extra ``plot``).

Only axes are drawn on, no global state of pyplot's; the caller saves or shows the figure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from thalweg.instruments.blank_figure import blank_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from thalweg.trajectory.outlook import Outlook

__all__ = ["plot_outlook"]


def plot_outlook(found: Outlook) -> Figure:
    """The path in its first two components, its dimensions, its prefix and its horizon.

    Args:
        found: of ``outlook``.

    Raises:
        ThalwegError: if matplotlib is not installed.
    """
    figure, ((path, dims), (prefix, horizon)) = blank_figure(2, 2, (9, 6.4))
    pca = found.components
    xy = pca.scores[:, :2].numpy()
    path.plot(xy[:, 0], xy[:, 1], color="0.7", zorder=1)
    points = path.scatter(xy[:, 0], xy[:, 1], c=pca.steps, s=14, zorder=2)
    figure.colorbar(points, ax=path, label="step")
    path.set(title="the path", xlabel="first component", ylabel="second component")

    count = list(range(1, min(len(pca.explained), 12) + 1))
    dims.plot(count, pca.explained[: len(count)].cumsum(0), marker="o", label="here")
    dims.plot(count, pca.null[: len(count)].cumsum(0), "--", color="0.4", label="random walk")
    dims.axhline(0.9, color="0.8", linewidth=1, zorder=0)
    dims.set(title="dimensions", xlabel="components", ylabel="share of the path", ylim=(None, 1.02))
    dims.legend(fontsize="small")

    steps = [p.step for p in found.prefixes]
    prefix.plot(steps, [p.share for p in found.prefixes], marker="o", label="here")
    prefix.plot(steps, [p.walk for p in found.prefixes], "--", color="0.4", label="random walk")
    prefix.set(
        title="what the first changes tell of the last", xlabel="up to step", ylabel="share of it"
    )
    prefix.set_xscale("log")
    prefix.legend(fontsize="small")

    far = [h.horizon for h in found.horizons]
    horizon.plot(far, [h.error for h in found.horizons], marker="o", label="a line")
    horizon.plot(
        far, [h.last_delta for h in found.horizons], marker=".", label="last change, scaled"
    )
    horizon.axhline(1.0, linestyle="--", color="0.4", label="not training on")
    horizon.set(
        title="the last point, told from earlier ones",
        xlabel="times further than what is seen",
        ylabel="missed by, of the way between",
        ylim=(0, None),
    )
    horizon.legend(fontsize="small")
    return figure
