"""Kept steps run again bit for bit: trainings of many kinds, scripts that know nothing of it.

Scripts shuffle, draw noise and anneal by a clock of their own, so that a replay that merely ran
them again would see other batches; most are not even seeded.
"""

import random
import sys
import textwrap
import types
from pathlib import Path

import pytest
import torch

import thalweg
from thalweg.recorder.kept import list_kept
from thalweg.recorder.replay import replay
from thalweg.recorder.script import record_script, run_file

HEAD = """
import math, sys, torch, torch.nn.functional as F
from torch import nn
"""

MLP = """
model = nn.Sequential(
    nn.Linear(20, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(0.3), nn.Linear(32, 5)
)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
x, y = torch.randn(400, 20), torch.randint(0, 5, (400,))
for step in range(60):
    batch = torch.randperm(400)[:16]
    optimizer.zero_grad()
    inputs = x[batch]
    if step == 41:
        inputs[3, 2] = math.inf
    F.cross_entropy(model(inputs), y[batch]).backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
    optimizer.step()
    if step % 10 == 9:
        model.eval()
        with torch.no_grad():
            F.cross_entropy(model(x), y)
        model.train()
"""

TRANSFORMER = """
layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.1, batch_first=True)
model = nn.Sequential(nn.Embedding(11, 16), nn.TransformerEncoder(layer, 2), nn.Linear(16, 11))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=60)
for step in range(40):
    tokens = torch.randint(0, 11, (8, 9))
    for part in tokens.chunk(4):
        out = model(part[:, :-1])
        loss = F.cross_entropy(out.flatten(0, 1), part[:, 1:].flatten())
        (loss / 4).backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    if step == 30:
        optimizer.param_groups[0]["lr"] = 1e36
    optimizer.step()
    schedule.step()
    optimizer.zero_grad(set_to_none=True)
"""

# The loss is the script's own arithmetic; its factor is annealed; the bad value is inside a module.
CUSTOM = """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(4, 8), nn.Linear(8, 1)

    def forward(self, x, scale):
        h = torch.relu(self.first(x)) + 1e-3
        return self.last((h * scale).log())

model = Net()
optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
for step in range(40):
    x = torch.randn(16, 4)
    target = x.sum(1, keepdim=True).sin() + 0.1 * torch.randn(16, 1)
    optimizer.zero_grad()
    error = (model(x, scale=0.0 if step == 33 else 1.0) - target).square().mean()
    (error * 0.97**step + 1e-4 * sum(p.square().sum() for p in model.parameters())).backward()
    optimizer.step()
"""

GAN = """
g = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 2))
d = nn.Sequential(nn.Linear(2, 16), nn.LeakyReLU(0.2), nn.Linear(16, 1))
og, od = torch.optim.Adam(g.parameters(), 1e-3), torch.optim.RMSprop(d.parameters(), 1e-3)
for step in range(40):
    fake = g(torch.randn(16, 4))
    real = torch.randn(16, 2) if step != 35 else torch.full((16, 2), math.nan)
    od.zero_grad()
    (F.softplus(-d(real)).mean() + F.softplus(d(fake.detach())).mean()).backward()
    od.step()
    og.zero_grad()
    F.softplus(-d(fake)).mean().backward()
    og.step()
"""

LBFGS = """
model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 1))
optimizer = torch.optim.LBFGS(model.parameters(), lr=0.3, max_iter=4)
for step in range(30):
    x = torch.randn(32, 6)
    y = x.square().sum(1, keepdim=True)
    if step == 24:
        y = y / 0

    def closure():
        optimizer.zero_grad()
        loss = F.mse_loss(model(x), y)
        loss.backward()
        return loss

    optimizer.step(closure)
"""

# A gradient scaler that skips a step on the way, and one static buffer for all batches.
SCALER = """
model = nn.Linear(6, 3)
optimizer = torch.optim.SGD(model.parameters(), lr=0.3)
scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=7)
buffer = torch.empty(16, 6)
for step in range(60):
    buffer.copy_(torch.randn(16, 6) * (1e38 if step == 40 else 1))
    optimizer.zero_grad()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = F.cross_entropy(model(buffer), torch.randint(0, 3, (16,)) + 3 * (step == 50))
    scaler.scale(loss).backward()
    scaler.step(optimizer)
    scaler.update()
"""

SPIKE = """
model = nn.Linear(8, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)
for step in range(90):
    x = torch.randn(32, 8)
    y = x.sum(1, keepdim=True) + 0.1 * torch.randn(32, 1)
    optimizer.zero_grad()
    nn.MSELoss()(model(x * (1000 if step == 80 else 1)), y).backward()
    optimizer.step()
"""

BAD_BATCH = """
model = nn.Sequential(nn.Embedding(10, 4), nn.Flatten(), nn.Linear(8, 3))
optimizer = torch.optim.Adam(model.parameters())
for step in range(60):
    words = torch.randint(0, 10, (4, 2))
    if step == 37:
        words[1, 1] = 10
    optimizer.zero_grad()
    F.cross_entropy(model(words), torch.randint(0, 3, (4,))).backward()
    optimizer.step()
"""


@pytest.fixture
def recorded(tmp_path, monkeypatch):
    """Records a script as ``thalweg record`` does, with all the budget there is."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", sys.argv)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setitem(sys.modules, "__main__", types.ModuleType("__main__"))

    def record(source, blackbox_mb=64.0, **options):
        Path("train.py").write_text(HEAD + textwrap.dedent(source))
        record_script("train.py", out="run", overhead=50.0, blackbox_mb=blackbox_mb, **options)
        torch.manual_seed(random.randrange(10**6))  # a replay must not lean on ours
        return tmp_path / "run"

    return record


@pytest.mark.parametrize(
    ("source", "step", "phase", "where"),
    [
        (MLP, 42, "input", ""),
        (TRANSFORMER, 32, "forward", "1.layers.0.self_attn"),
        (CUSTOM, 34, "forward", ""),
        (GAN, 36, "input", ""),
        (LBFGS, 25, "input", ""),
    ],
    ids=["mlp", "transformer", "custom loss", "two optimizers", "lbfgs"],
)
def test_a_nan_is_replayed_bit_for_bit(recorded, source, step, phase, where):
    run = recorded(source)
    done = replay(run)
    assert done.departs is None
    assert (done.kind, done.step) == ("nonfinite", step)
    assert done.losses >= 8
    assert done.bad is not None
    assert (done.bad.step, done.bad.phase, done.bad.where) == (step, phase, where)


def test_the_operation_inside_a_module_is_named(recorded):
    done = replay(recorded(CUSTOM), steps=3)
    assert done.bad.what == "the result of log"
    assert [m.step for m in done.moments] == [32, 33, 34]
    assert list(done.moments[0].activation_rms) == ["first", "last"]
    assert done.moments[0].update_norm["first.weight"] > 0


def test_a_branch_on_the_scripts_own_clock_departs_and_says_so(recorded):
    branch = "        if step == 30:\n            loss = loss * math.nan\n        (loss / 4)"
    done = replay(recorded(TRANSFORMER.replace("        (loss / 4)", branch)))
    assert done.step == 31
    assert done.departs.startswith("step 31: the loss is ")
    assert done.departs.endswith("in the recording it was nan; not called again: mul")


def test_an_exception_is_raised_again(recorded, capsys):
    done = replay(recorded(BAD_BATCH))
    assert (done.kind, done.step, done.departs) == ("exception", 38, None)
    assert done.why.startswith("IndexError")


def test_scaler_skipped_steps_and_a_reused_buffer(recorded, capsys):
    done = replay(recorded(SCALER))
    assert (done.kind, done.step, done.departs) == ("exception", 51, None)
    run = thalweg.Run("run")
    assert [e["step"] for e in run.events if e["event"] == "skipped step"] == [41]


def test_a_spike_is_kept_and_the_run_goes_on(recorded):
    run = recorded(SPIKE)
    assert [k.step for k in list_kept(run) if k.kind == "spike"][-1] == 81
    done = replay(run, at=81)
    assert (done.kind, done.departs, done.bad) == ("spike", None, None)
    assert sum(done.moments[-1].losses) > 100 * sum(done.moments[-2].losses)


def test_a_script_that_records_itself_is_replayed_unrecorded(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", sys.argv)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setitem(sys.modules, "__main__", types.ModuleType("__main__"))
    body = textwrap.indent(MLP[MLP.index("for step") :], "    ")
    body = body.replace(
        "        optimizer.step()\n", '        optimizer.step()\n        run.log({"a": 1})\n'
    )
    start = 'import thalweg\nwith thalweg.record(model, optimizer, "run", overhead=50.0) as run:\n'
    Path("own.py").write_text(HEAD + MLP[: MLP.index("for step")] + start + body)
    sys.argv = ["own.py"]
    run_file(Path("own.py"), ["own.py"])
    before = sorted(p.relative_to(tmp_path) for p in tmp_path.rglob("*"))
    done = replay(tmp_path / "run")
    assert (done.kind, done.step, done.departs) == ("nonfinite", 42, None)
    assert sorted(p.relative_to(tmp_path) for p in tmp_path.rglob("*")) == before
