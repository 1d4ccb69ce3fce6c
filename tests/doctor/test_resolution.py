"""Weights in half precision that do not change."""

import pytest
import torch
from torch import nn

import thalweg
from thalweg.doctor.resolution import below_resolution
from thalweg.recorder.run import Run


def trained(path, *, dtype=torch.bfloat16, lr=1e-6, steps=80):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4)).to(dtype)
    optimizer = torch.optim.Adam(model.parameters(), lr)
    with thalweg.record(model, optimizer, path, overhead=20.0):
        for _ in range(steps):
            x = torch.randn(32, 16)
            y = (x[:, 0] > 0).long()
            loss = nn.functional.cross_entropy(model(x.to(dtype)).float(), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return Run(path)


def test_small_steps_in_bfloat16_are_found(tmp_path):
    run = trained(tmp_path / "run")
    (found,) = below_resolution(run)
    assert found.rule == "below_resolution" and found.severity == "problem"
    assert found.entry == "rlvr-off-principals" and "autocast" in found.treatment
    assert found.evidence[0].value >= 0.9 and "bfloat16 weights" in found.evidence[0].text
    assert "below_resolution" in {d.rule for d in thalweg.diagnose(run)}


@pytest.mark.parametrize(
    "settings", [{"lr": 1e-2}, {"dtype": torch.float32}, {"steps": 20}], ids=str
)
def test_others_are_not(tmp_path, settings):
    assert below_resolution(trained(tmp_path / "run", **settings)) == []


def test_a_run_without_snapshots_or_with_broken_ones(tmp_path):
    run = trained(tmp_path / "run")
    files = sorted((tmp_path / "run" / "weights").glob("step-*"))
    files[0].write_bytes(b"broken")
    assert below_resolution(Run(tmp_path / "run")) == []
    for file in files:
        file.unlink()
    assert below_resolution(Run(tmp_path / "run")) == []
    assert run.path.exists()
