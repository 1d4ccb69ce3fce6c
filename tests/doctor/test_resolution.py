"""Weights in half precision that do not change."""

import pytest
import torch
from torch import nn

import thalweg
from thalweg.doctor.resolution import below_resolution
from thalweg.recorder.run import Run


def dense():
    return nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4))


def trained(
    path, *, kind=dense, optimizer=torch.optim.Adam, dtype=torch.bfloat16, lr=1e-6, steps=80
):
    torch.manual_seed(0)
    model = kind().to(dtype)
    optimizer = optimizer(model.parameters(), lr)
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


class Normalised(nn.Module):
    """The bias of ``fc`` is taken away by the normalisation: its gradient is round-off."""

    def __init__(self):
        super().__init__()
        self.fc, self.norm, self.head = nn.Linear(16, 32), nn.BatchNorm1d(32), nn.Linear(32, 4)
        nn.init.constant_(self.fc.bias, 8.0)

    def forward(self, x):
        return self.head(self.norm(self.fc(x)).relu())


def test_one_cause_is_named_once(tmp_path):
    rules = {d.rule for d in thalweg.diagnose(trained(tmp_path / "small", kind=Normalised))}
    assert "below_resolution" in rules and "never_moves" not in rules
    run = trained(tmp_path / "usual", kind=Normalised, optimizer=torch.optim.SGD, lr=0.1)
    said = {d.rule: d for d in thalweg.diagnose(run)}
    assert "below_resolution" not in said
    assert said["never_moves"].severity == "note"
    assert said["never_moves"].evidence[0].text.endswith(" fc.bias")


def test_a_run_without_snapshots_or_with_broken_ones(tmp_path):
    run = trained(tmp_path / "run")
    files = sorted((tmp_path / "run" / "weights").glob("step-*"))
    files[0].write_bytes(b"broken")
    assert below_resolution(Run(tmp_path / "run")) == []
    for file in files:
        file.unlink()
    assert below_resolution(Run(tmp_path / "run")) == []
    assert run.path.exists()
