"""An empty matplotlib figure (the extra ``plot``), without pyplot and its global state."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from thalweg.errors import ThalwegError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["blank_figure"]


def blank_figure(rows: int, columns: int, size: tuple[float, float]) -> tuple[Figure, Any]:
    """A figure and its axes, (rows, columns); the caller saves or shows it.

    Args:
        rows: of panels.
        columns: of panels.
        size: width and height in inches.

    Raises:
        ThalwegError: if matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ThalwegError("plots need matplotlib: pip install 'thalweg[plot]'") from None
    figure = Figure(figsize=size, layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False)
