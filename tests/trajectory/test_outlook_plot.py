import torch

from thalweg.trajectory import outlook
from thalweg.trajectory.outlook_plot import plot_outlook


def test_four_panels_with_their_nulls():
    figure = plot_outlook(outlook(torch.randn(12, 40).cumsum(0)))
    assert [a.get_title() for a in figure.axes[:4]] == [
        "the path",
        "dimensions",
        "what the first changes tell of the last",
        "the last point, told from earlier ones",
    ]
    for axis in figure.axes[1:4]:
        labels = [t.get_text() for t in axis.get_legend().get_texts()]
        assert "random walk" in labels or "not training on" in labels
