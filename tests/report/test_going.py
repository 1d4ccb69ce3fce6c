import json
import re

import numpy as np
import pytest
import torch
from torch import nn

import thalweg
from thalweg import Run
from thalweg.recorder.snapshots import SketchWriter
from thalweg.report import render
from thalweg.report.going import QUESTION, SLUG, going_section


def recorded(path, walk):
    """A run with nothing but sketches of a path."""
    (path / "weights").mkdir(parents=True)
    header = {"schema_version": 1, "kind": "thalweg.run", "status": "closed", "segments": [{}]}
    (path / "run.json").write_text(json.dumps(header))
    writer = SketchWriter(path, rank=0, segment=0)
    writer.start("0", [torch.zeros(walk.shape[1])])
    for step, row in enumerate(walk, 1):
        writer.write(step, step * 0.1, {"0": [row]})
    writer.close()
    return Run(path)


def test_of_sketches_a_line(tmp_path):
    run = recorded(tmp_path / "run", torch.outer(torch.arange(1.0, 41.0), torch.randn(60)))
    section = going_section(run)
    assert f'id="{SLUG}"' in section and "1 dimension holds nine tenths" in section
    assert "sketches of the weights" in section and "worth a try up to step" in section
    assert section.count("<figure") == 3 and section.count("aria-label") == 3
    page = render(run)
    assert QUESTION in page and f'href="#{SLUG}"' in page


def test_noise_is_called_noise(tmp_path):
    g = torch.Generator().manual_seed(0)
    run = recorded(tmp_path / "run", torch.randn(40, 3000, generator=g).cumsum(0))
    section = going_section(run)
    assert "no fewer than a random walk" in section and "not worth a try" in section


def test_coordinates_lie_in_the_box(tmp_path):
    g = torch.Generator().manual_seed(0)
    section = going_section(recorded(tmp_path / "run", torch.randn(30, 50, generator=g).cumsum(0)))
    for points in re.findall(r'points="([^"]*)"', section):
        xy = np.array([pair.split(",") for pair in points.split()], float)
        assert xy[:, 0].min() >= 0 and xy[:, 0].max() <= 320
        assert xy[:, 1].min() >= 0 and xy[:, 1].max() <= 180


def test_of_snapshots(tmp_path):
    torch.manual_seed(0)
    model = nn.Linear(6, 3)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with thalweg.record(model, optimizer, tmp_path / "run", overhead=20.0):
        for _ in range(130):
            loss = model(torch.ones(4, 6)).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    for file in (tmp_path / "run" / "weights").glob("sketches*"):
        file.unlink()
    assert "whole snapshots" in going_section(Run(tmp_path / "run"))


@pytest.mark.parametrize("walk", [torch.zeros(3, 5), torch.full((20, 5), float("nan"))])
def test_nothing_to_say(tmp_path, walk):
    run = recorded(tmp_path / "run", walk)
    assert going_section(run) == "" and QUESTION not in render(run)


def test_a_path_that_stands_still(tmp_path):
    run = recorded(tmp_path / "run", torch.zeros(20, 5))
    assert going_section(run) == ""
