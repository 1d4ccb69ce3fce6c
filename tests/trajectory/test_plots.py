import pytest
import torch

from thalweg.trajectory import DriftCurve, IntrinsicDimensionResult, fit_rank1
from thalweg.trajectory.plots import plot_dimensions, plot_drift, plot_fit


def test_a_straight_path_is_drawn_straight_on():
    g = torch.Generator().manual_seed(0)
    direction = torch.randn(20, generator=g).double()
    path = [{"a": t * direction, "b": torch.ones(3).double()} for t in range(6)]
    (axis,) = plot_fit(fit_rank1(path), 10).axes
    observed, ahead = axis.get_lines()[:2]
    assert observed.get_ydata().tolist() == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert ahead.get_xdata().tolist() == [5, 10]
    assert [float(y) for y in ahead.get_ydata()] == pytest.approx([1.0, 2.0])
    assert "random walk" in axis.get_title()


def test_dimensions():
    scores = torch.tensor([[0.5, 0.6], [0.8, 0.7], [0.95, 0.96]]).double()
    found = IntrinsicDimensionResult((10, 20, 40), scores, torch.ones(2).double(), 0.9, 0.0, 99)
    (axis,) = plot_dimensions(found).axes
    assert axis.get_title() == "40 of 99 parameters" and axis.get_xscale() == "log"
    none = IntrinsicDimensionResult((10, 20), scores[:2], torch.ones(2).double(), 0.9, 0.0, 99)
    assert plot_dimensions(none).axes[0].get_title() == "not reached"


def test_drift_lies_between_its_marks():
    curve = DriftCurve((0, 5, 10), (0, 5, 10), (1.0, 0.6, 0.3), 0.05, 0.8, 4, 5)
    (axis,) = plot_drift(curve).axes
    labels = [text.get_text() for text in axis.get_legend().get_texts()]
    assert labels == ["with the first window", "at the same weights", "random directions"]
