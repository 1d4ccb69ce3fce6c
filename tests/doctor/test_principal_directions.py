"""The rule for fine-tunes that turn what was learnt, on real trainings and on made snapshots."""

import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import thalweg
from thalweg.data import digits
from thalweg.doctor.principal_directions import principal_directions_moved
from thalweg.recorder.run import Run

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.treated_trainings import fine_tune


@pytest.mark.parametrize(
    ("lr", "steps", "forgets"), [(1e-2, 300, True), (1e-4, 100, False)], ids=["hard", "gentle"]
)
def test_fine_tunes(tmp_path, lr, steps, forgets):
    kept = fine_tune(3, tmp_path / "run", lr=lr, steps=steps)
    found = [
        d for d in thalweg.diagnose(tmp_path / "run") if d.rule == "principal_directions_moved"
    ]
    assert bool(found) == forgets == (kept < 0.8)
    if forgets:
        assert found[0].entry == "rlvr-off-principals" and "replay" in found[0].treatment
        assert found[0].evidence[0].value > 35 and "3 of 3 matrices" in found[0].evidence[0].text


def test_training_from_scratch_is_silent(tmp_path):
    torch.manual_seed(0)
    data = digits()
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    with thalweg.record(model, optimizer, tmp_path / "run", overhead=1.0):
        for _ in range(100):
            rows = torch.randint(len(data.y), (64,))
            loss = nn.functional.cross_entropy(model(data.x[rows]), data.y[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    assert principal_directions_moved(Run(tmp_path / "run")) == []


def kept(run, before, after, last=100):
    """The run, with two snapshots of its weights."""
    (run.path / "weights").mkdir()
    for step, tensors in ((0, before), (last, after)):
        save_file(tensors, run.path / "weights" / f"step-{step:09d}-r0-s0.safetensors")
    return run


def spiked(seed, angle=0.0, side=32):
    """Noise with one direction above it, turned by so many degrees on both sides."""
    g = torch.Generator().manual_seed(seed)
    noise = torch.randn(side, side, generator=g) / side**0.5
    Q, _ = torch.linalg.qr(torch.randn(side, 2, generator=g))
    a = torch.tensor(angle).deg2rad()
    u = Q[:, 0] * a.cos() + Q[:, 1] * a.sin()
    return 1e-3 * noise + 10 * torch.outer(u, u)


def header(**shapes):
    return {"models": [{"label": "", "tensors": shapes, "frozen": []}]}


@pytest.mark.parametrize(("angle", "found"), [(0.0, 0), (20.0, 0), (40.0, 1), (80.0, 1)])
def test_the_angle_is_the_one_put_in(make_run, angle, found):
    run = make_run({}, **header(a=[32, 32]))
    said = principal_directions_moved(kept(run, {"a": spiked(0)}, {"a": spiked(0, angle)}))
    assert len(said) == found
    if found:
        assert said[0].evidence[1].value == pytest.approx(angle, abs=0.1)
        assert said[0].evidence[1].text.startswith("'a': 1 directions turned")


def test_no_fine_tune_no_matrices_or_broken_snapshots(make_run):
    noise = torch.randn(32, 32, generator=torch.Generator().manual_seed(0))
    for before, shapes in (
        ({"a": noise}, {"a": [32, 32]}),
        ({"a": spiked(0), "b": noise, "c": noise.clone()}, {name: [32, 32] for name in "abc"}),
        ({"a": torch.ones(4, 4)}, {"a": [4, 4]}),
        ({"a": torch.zeros(32, 32)}, {"a": [32, 32]}),
        ({"a": spiked(0) * float("nan")}, {"a": [32, 32]}),
    ):
        after = {name: spiked(1, 80.0, len(W)) for name, W in before.items()}
        run = kept(make_run({}, **header(**shapes)), before, after)
        assert principal_directions_moved(run) == []
    assert principal_directions_moved(make_run({})) == []
    short = kept(make_run({}, **header(a=[32, 32])), {"a": spiked(0)}, {"a": spiked(0, 80.0)}, 5)
    assert principal_directions_moved(short) == []
    next((run.path / "weights").glob("step-*")).write_bytes(b"broken")
    assert principal_directions_moved(run) == []
