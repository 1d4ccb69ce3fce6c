"""The black box beside a training: what it holds, what it lets go of, when it says no."""

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import torch
from torch import nn

import thalweg
from thalweg.cli import main
from thalweg.errors import ThalwegError
from thalweg.recorder.integrity import check
from thalweg.recorder.kept import list_kept, read, read_meta, write
from thalweg.recorder.replay import choose

TRAIN = """
import math, os, sys, torch, torch.nn.functional as F
net = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.Dropout(0.5), torch.nn.Linear(8, 2))
sgd = torch.optim.SGD(net.parameters(), 0.1)
print("training")
for step in range(60):
    x = torch.randn(4, 6)
    if step == 40:
        x[0, 0] = math.nan
    if step == 50 and "--wait" in sys.argv:
        open("ready", "w").close()
        import time
        time.sleep(60)
    sgd.zero_grad()
    F.cross_entropy(net(x), torch.randint(0, 2, (4,))).backward()
    sgd.step()
"""


def _train(run_dir, bad_step=None, steps=60, width=6, **options):
    model = nn.Sequential(nn.Linear(width, 8), nn.Linear(8, 1))
    sgd = torch.optim.SGD(model.parameters(), 0.01)
    with thalweg.record(model, sgd, run_dir, overhead=50.0, **options) as run:
        for step in range(1, steps + 1):
            x = torch.randn(4, width)
            if step == bad_step:
                x[0, 0] = torch.inf
            sgd.zero_grad()
            model(x).square().mean().backward()
            sgd.step()
    return run.run()


def _files(run_dir):
    return sorted(p.name for p in (run_dir / "blackbox").iterdir())


def test_a_healthy_run_leaves_no_file(run_dir):
    run = _train(run_dir, blackbox_mb=8)
    assert run.header["blackbox"] == {"kept": []}
    assert _files(run_dir) == []
    assert check(run_dir) == []
    with pytest.raises(ThalwegError, match="kept nothing: no value that is not finite"):
        choose(run_dir)


def test_an_alarm_keeps_a_state_and_the_steps_since(run_dir):
    run = _train(run_dir, bad_step=50, blackbox_mb=8)
    (kept,) = list_kept(run_dir)
    assert (kept.step, kept.kind) == (50, "nonfinite")
    meta = read_meta(kept.path)
    assert _files(run_dir) == sorted([kept.path.name, meta["state"]])
    steps = [chunk["step"] for chunk in meta["chunks"]]
    assert steps == list(range(meta["first"], 51))
    assert meta["first"] <= 47  # some steps before the bad one
    (event,) = [e for e in run.events if e["event"] == "black box"]
    assert (event["step"], event["kept"]) == (50, kept.path.name)
    assert check(run_dir) == []


def test_the_cap_on_memory_leaves_a_gap_and_says_so(run_dir):
    # A step takes 4 × 65,536 numbers, 1 MB; a quarter of 16 MB holds four of them.
    run = _train(run_dir, bad_step=35, steps=40, width=65536, blackbox_mb=16)
    events = [e["event"] for e in run.events]
    assert events.count("black box gap") == 1
    (kept,) = list_kept(run_dir)  # from the next state on it holds steps again
    assert 1 <= len(read_meta(kept.path)["chunks"]) <= 4


def test_a_state_that_does_not_fit_switches_it_off(run_dir):
    run = _train(run_dir, bad_step=20, steps=30, width=65536, blackbox_mb=4)
    assert run.header["blackbox"].startswith("skipped:memory: two states of 2 MB")
    with pytest.raises(ThalwegError, match="black box was off: skipped:memory"):
        choose(run_dir)


def test_off_is_off(run_dir):
    run = _train(run_dir, bad_step=20, blackbox_mb=0)
    assert "blackbox" not in run.header
    with pytest.raises(ThalwegError, match="it has no black box"):
        choose(run_dir)
    with pytest.raises(ValueError, match="megabytes ≥ 0"):
        _train(run_dir, blackbox_mb=-1)


def test_a_batch_written_into_afterwards_is_copied_from_then_on(run_dir):
    model = nn.Linear(6, 1)
    sgd = torch.optim.SGD(model.parameters(), 0.01)
    x = torch.empty(4, 6)
    with thalweg.record(model, sgd, run_dir, overhead=50.0, blackbox_mb=8):
        for step in range(1, 61):
            x.normal_()
            if step == 50:
                x[0, 0] = torch.nan
            sgd.zero_grad()
            model(x).square().mean().backward()
            sgd.step()
    tensors, meta = read(list_kept(run_dir)[0].path)
    batches = [c["events"][0][2][0]["tensor"] for c in meta["chunks"]]
    assert len(set(batches)) == len(batches)
    assert not torch.equal(tensors[batches[0]], tensors[batches[1]])


def test_a_pause_in_which_the_weights_move_empties_it(run_dir):
    model = nn.Linear(6, 1)
    sgd = torch.optim.SGD(model.parameters(), 0.01)

    def step(x):
        sgd.zero_grad()
        model(x).square().mean().backward()
        sgd.step()

    with thalweg.record(model, sgd, run_dir, overhead=50.0, blackbox_mb=8) as run:
        for _ in range(30):
            step(torch.randn(4, 6))
        with run.paused():
            step(torch.randn(4, 6))
        step(torch.full((4, 6), torch.nan))
    assert list_kept(run_dir) == []
    (event,) = [e for e in run.run().events if e["event"] == "black box"]
    assert event["message"] == "nothing kept: no state was written before it"


def test_writing_is_all_or_nothing(tmp_path):
    path = tmp_path / "blackbox" / "a.safetensors"
    shared = torch.arange(6.0)
    write(path, {"a": shared, "b": shared[2:], "c": shared.view(2, 3).t()}, {"n": 1})
    tensors, meta = read(path)
    assert meta == {"n": 1}
    assert tensors["b"].tolist() == [2, 3, 4, 5]
    assert torch.equal(tensors["c"], shared.view(2, 3).t())
    assert [p.name for p in path.parent.iterdir()] == ["a.safetensors"]


# -- the command line --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """A script recorded by the command line, once."""
    folder = tmp_path_factory.mktemp("recorded")
    (folder / "train.py").write_text(TRAIN)
    done = _thalweg(folder, "record", "--blackbox", "64", "--overhead", "50", "--out", "run",
                    "train.py")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "step 41: the loss is nan; kept for: thalweg replay run" in done.stderr
    return folder


def _thalweg(folder, *arguments):
    return subprocess.run(
        [sys.executable, "-m", "thalweg", *arguments],
        capture_output=True, text=True, timeout=120, cwd=folder,
    )  # fmt: skip


def test_replay_prints_json_and_the_scripts_output_goes_elsewhere(recorded, tmp_path):
    done = _thalweg(tmp_path, "replay", str(recorded / "run"), "--json", "--steps", "3")
    assert done.returncode == 0, done.stderr
    assert "training" in done.stderr
    data = json.loads(done.stdout)["data"]
    assert data["identical"]
    assert data["bad"]["phase"] == "input"
    assert [m["step"] for m in data["moments"]] == [39, 40, 41]
    assert data["notes"] == []


def test_a_changed_script_departs_with_exit_code_1_and_fits_80_columns(recorded):
    changed = recorded / "changed.py"
    changed.write_text(TRAIN.replace("Dropout(0.5)", "Dropout(0.4)"))
    done = _thalweg(recorded, "replay", "run", "--", "changed.py")
    assert done.returncode == 1, done.stderr
    assert "DEPARTS at step" in done.stdout
    assert "note: changed.py has changed since it was recorded" in done.stdout
    lines = [line for line in done.stdout.splitlines() if not line.startswith("/")]
    assert max(map(len, lines)) <= 80


def test_the_doctor_names_the_replay(recorded):
    found = {d.rule: d for d in thalweg.diagnose(recorded / "run")}
    assert f"thalweg replay {recorded / 'run'}" in found["nonfinite"].treatment


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--at", "7"], "nothing was kept at step 7; there is 41 (nonfinite)"),
        (["--steps", "0"], "steps must be ≥ 1"),
        (["--", "gone.py"], "gone.py; it is gone"),
    ],
)
def test_wrong_input_is_exit_code_2(recorded, capsys, arguments, said, monkeypatch):
    monkeypatch.chdir(recorded)
    assert main(["replay", str(recorded / "run"), *arguments]) == 2
    assert said in capsys.readouterr().err


def test_another_model_and_damaged_files_are_told(recorded, tmp_path, monkeypatch, capsys):
    shutil.copytree(recorded / "run", tmp_path / "run")
    (kept,) = list_kept(tmp_path / "run")
    (state,) = (tmp_path / "run" / "blackbox").glob("state-*")
    monkeypatch.delenv("THALWEG_DEBUG")
    (recorded / "wider.py").write_text(TRAIN.replace("8", "9"))
    done = _thalweg(recorded, "replay", "run", "--", "wider.py")
    assert done.returncode == 2
    assert "the script builds another model than was recorded" in done.stderr
    state.rename(state.with_name("aside"))
    assert [p.message for p in check(tmp_path / "run") if p.severity == "damage"] == [
        f"the state it starts from, {state.name}, is missing"
    ]
    assert main(["replay", str(tmp_path / "run")]) == 2
    state.with_name("aside").rename(state)
    kept.path.write_bytes(kept.path.read_bytes()[:-100])
    assert main(["replay", str(tmp_path / "run")]) == 2
    assert "got damage" in capsys.readouterr().err
    assert [p.severity for p in check(tmp_path / "run")] == ["damage"]


def test_a_kill_leaves_the_last_state_and_a_sound_run(tmp_path):
    (tmp_path / "train.py").write_text(textwrap.dedent(TRAIN).replace("step == 40", "step == -1"))
    command = [sys.executable, "-m", "thalweg", "record", "--blackbox", "64", "--overhead", "50"]
    process = subprocess.Popen(
        [*command, "--out", "run", "train.py", "--wait"], cwd=tmp_path,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while not (tmp_path / "ready").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    states = sorted((tmp_path / "run" / "blackbox").glob("state-*"))
    assert 1 <= len(states) <= 2
    tensors, meta = read(states[-1])
    assert meta["optimizers"][0]["class"] == "SGD"
    assert tensors["model0.0.weight"].shape == (8, 6)
    assert all(p.severity == "note" for p in check(tmp_path / "run"))
    assert Path(tmp_path / "run" / "run.json").exists()
