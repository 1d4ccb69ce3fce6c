"""Several processes: one run, a writer per rank, and norms of sharded weights that are global."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import thalweg

TRAIN = """
import json, os, sys, torch, torch.distributed as dist
import torch.nn.functional as F
from torch import nn
dist.init_process_group("gloo")
rank = dist.get_rank()
torch.manual_seed(0)
model = nn.Sequential(nn.Linear(6, 9), nn.ReLU(), nn.Linear(9, 3))
torch.manual_seed(rank)
x, y = torch.randn(8, 6), torch.randint(0, 3, (8,))
if sys.argv[1] == "fsdp":
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard
    mesh = init_device_mesh("cpu", (2,))
    fully_shard(model[0], mesh=mesh)
    fully_shard(model, mesh=mesh)
    net = model
else:
    net = nn.parallel.DistributedDataParallel(model)
opt = torch.optim.SGD(net.parameters(), 0.1)
def whole(ts):
    return [t.full_tensor() if hasattr(t, "full_tensor") else t for t in ts]
def norm(ts):
    return torch.cat([t.detach().flatten() for t in ts]).norm().item()
said = []
for step in range(4):
    opt.zero_grad()
    loss = F.cross_entropy(net(x), y)
    loss.backward()
    grads = norm(whole([p.grad for p in net.parameters()]))
    before = [t.detach().clone() for t in whole(net.parameters())]
    opt.step()
    after = whole(net.parameters())
    moved = norm([a - b for a, b in zip(after, before)])
    said.append([loss.item(), grads, moved, norm(after), after[0].norm().item()])
with open(f"said-{rank}.json", "w") as f:
    json.dump(said, f)
dist.destroy_process_group()
"""


@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_two_ranks_under_torchrun(kind, tmp_path):
    (tmp_path / "train.py").write_text(TRAIN)
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"),
        *("--master-port", "29511" if kind == "ddp" else "29512"),
        *("-m", "thalweg", "record", "--overhead", "1e6", "train.py", kind),
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=120, env=environment
    )
    assert done.returncode == 0, done.stderr
    (path,) = (tmp_path / "runs").iterdir()
    run = thalweg.Run(path)
    assert run.header["world_size"] == 2 and run.header["status"] == "closed"
    for rank in (0, 1):
        said = json.loads(Path(tmp_path, f"said-{rank}.json").read_text())
        columns = [
            ("loss", ""),
            ("grad_norm", ""),
            ("update_norm", ""),
            ("weight_norm", ""),
            ("weight_norm", "0.weight"),
        ]
        for column, (instrument, part) in enumerate(columns):
            steps, values = run.series(instrument, part, rank=rank)
            assert steps.tolist() == [1, 2, 3, 4], instrument
            assert values.tolist() == pytest.approx([s[column] for s in said], rel=1e-4)
    names = {p.name for p in (path / "measurements").iterdir()}
    assert names == {"r0-s0-0000.parquet", "r1-s0-0000.parquet"}
    assert (path / "events-r1.jsonl").exists()
    shapes = {r: tuple(run.weights(rank=r)[4]["0.weight"].shape) for r in (0, 1)}
    assert shapes == ({0: (5, 6), 1: (4, 6)} if kind == "fsdp" else {0: (9, 6), 1: (9, 6)})
