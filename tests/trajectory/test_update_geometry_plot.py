import io
import sys

import pytest
import torch

from thalweg.errors import ThalwegError
from thalweg.trajectory import compare_checkpoints
from thalweg.trajectory.update_geometry_plot import plot_update_geometry


def drawn(base, tuned):
    figure = plot_update_geometry(compare_checkpoints(base, tuned, k=2, r=2))
    out = io.StringIO()
    figure.savefig(out, format="svg")
    return out.getvalue()


def test_with_layers_without_and_unchanged():
    base = {f"layers.{i}.q_proj.weight": torch.randn(6, 5) for i in range(3)}
    assert "changed in bfloat16" in drawn(base, {n: W + 0.1 for n, W in base.items()})
    assert drawn(
        {"w": torch.ones(3, 4), "b": torch.ones(3)}, {"w": torch.ones(3, 4), "b": torch.ones(3)}
    )


def test_without_matplotlib(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ThalwegError, match=r"thalweg\[plot\]"):
        drawn({"w": torch.ones(3, 4)}, {"w": torch.ones(3, 4)})
