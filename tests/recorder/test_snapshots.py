"""Snapshots and sketches: when they are taken, how much they may weigh, what they hold."""

import torch
from torch import nn

import thalweg
from thalweg.recorder.snapshots import SketchWriter, SnapshotSchedule, SnapshotWriter


def test_schedule_is_geometric_then_regular():
    schedule = SnapshotSchedule()
    due = []
    for step in range(1, 5000):
        if schedule.next <= step:
            due.append(step)
            schedule.passed(step)
    assert due == [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 3072, 4096]


def test_late_snapshots_are_not_caught_up():
    schedule = SnapshotSchedule(start=100)
    schedule.passed(130)
    assert schedule.next == 132


def test_cap_thins_but_keeps_the_first_and_the_last(tmp_path):
    schedule = SnapshotSchedule()
    writer = SnapshotWriter(tmp_path, rank=0, segment=0, cap_bytes=4 * 100 * 4 + 1)
    for step in [0, 1, 2, 4, 8, 16, 32]:
        writer.write(step, {"w": torch.full((100,), float(step))}, schedule)
    steps = sorted(int(p.name[5:14]) for p in (tmp_path / "weights").iterdir())
    assert steps[0] == 0 and steps[-1] == 32
    assert len(steps) <= 4
    assert schedule.interval > 1024


def test_a_snapshot_larger_than_the_cap_is_taken_once(tmp_path):
    schedule = SnapshotSchedule()
    writer = SnapshotWriter(tmp_path, rank=0, segment=0, cap_bytes=10)
    for step in (0, 1, 2):
        writer.write(step, {"w": torch.zeros(100)}, schedule)
    assert len(list((tmp_path / "weights").iterdir())) == 1


def test_tied_views_and_strides_are_written(run_dir):
    writer = SnapshotWriter(run_dir, rank=0, segment=0, cap_bytes=1 << 20)
    run_dir.mkdir()
    base = torch.arange(12.0).view(3, 4)
    writer.write(
        5, {"a": base, "tied": base, "part": base[1:], "turned": base.t()}, SnapshotSchedule()
    )
    from safetensors.torch import load_file

    (path,) = (run_dir / "weights").iterdir()
    read = load_file(path)
    assert set(read) == {"a", "part", "turned"}
    assert torch.equal(read["part"], base[1:])
    assert torch.equal(read["turned"], base.t())


def test_sketches_keep_the_geometry_of_the_trajectory(run_dir):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 300), nn.ReLU(), nn.Linear(300, 10))
    adam = torch.optim.Adam(model.parameters(), 1e-2)
    x, y = torch.randn(64, 64), torch.randint(0, 10, (64,))
    with thalweg.record(model, adam, run_dir, overhead=1e6):
        init = torch.cat([p.detach().flatten().clone() for p in model.parameters()])
        path = []
        for _ in range(10):
            adam.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            adam.step()
            path.append(torch.cat([p.detach().flatten() for p in model.parameters()]) - init)
    sketches = thalweg.Run(run_dir).sketches()[""]
    assert sketches.steps.tolist() == list(range(1, 11))
    assert sketches.dim == init.numel()
    got = torch.tensor(sketches.values)
    true = torch.stack(path)
    cosines = torch.corrcoef(true), torch.corrcoef(got)
    assert (cosines[0] - cosines[1]).abs().max() < 0.05
    assert torch.allclose(got.norm(dim=1), true.norm(dim=1), rtol=0.05)


def test_interval_doubles_so_that_long_runs_stay_small(tmp_path):
    writer = SketchWriter(tmp_path, rank=0, segment=0, dim=4)
    weights = [torch.zeros(3)]
    writer.start("", weights)
    written = 0
    for step in range(1, 5000):
        if writer.next <= step:
            writer.write(step, 0.0, {"": weights})
            written += 1
    writer.close()
    assert 1000 < written < 1500
