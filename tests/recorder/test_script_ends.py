"""How a recorded script may end, or go on, and what is left of its run."""

import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest

import thalweg

TRAIN = """
import sys, torch
torch.manual_seed(0)
net = torch.nn.Linear(3, 1)
opt = torch.optim.SGD(net.parameters(), 0.1)
for _ in range(int(sys.argv[1]) if len(sys.argv) > 1 else 5):
    opt.zero_grad()
    torch.nn.functional.mse_loss(net(torch.ones(4, 3)), torch.zeros(4, 1)).backward()
    opt.step()
"""


@pytest.fixture
def bench(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")

    def write(name, *texts):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(map(textwrap.dedent, texts)))
        return name

    return write


def _run(*command):
    plain = {k: v for k, v in os.environ.items() if k != "THALWEG_DEBUG"}
    return subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, timeout=120, env=plain
    )


def _record(*arguments):
    return _run("-m", "thalweg", "record", "--out", "run", *arguments)


def test_interrupt_ends_the_script_and_keeps_the_run(bench):
    script = bench(
        "train.py", TRAIN.replace("    opt.step()", "    opt.step(); print('.', flush=True)")
    )
    # Where tests run in the background of a shell, the signal is ignored, by their children too.
    heed = "import os, signal, sys; signal.signal(2, signal.SIG_DFL); os.execv(sys.executable, "
    command = ["-m", "thalweg", "record", "--out", "run", script, "1000000000"]
    process = subprocess.Popen(
        [sys.executable, "-c", heed + f"[sys.executable, *{command}])"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    for _ in range(20):
        process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGINT  # as python's own
    assert "KeyboardInterrupt" in err
    run = thalweg.Run("run")
    assert run.header["status"] == "interrupted"
    assert len(run.series("loss")[0]) >= 20


def test_kill_loses_nothing_that_was_flushed(bench):
    script = bench(
        "train.py", TRAIN.replace("    opt.step()", "    opt.step(); print('.', flush=True)")
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "thalweg", "record", "--out", "run", script, "1000000000"],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    for _ in range(200):
        process.stdout.readline()
    time.sleep(1.0)  # everything older than a second is flushed
    process.kill()
    process.communicate()
    run = thalweg.Run("run")
    assert len(run.series("loss")[0]) >= 200
    done = _run("-m", "thalweg", "check", "run")
    assert done.returncode == 0, done.stdout
    assert "Traceback" not in done.stderr


def test_nothing_to_record_is_said(bench):
    assert "no torch.optim optimizer ever stepped" in _record(bench("a.py", "x = 1\n")).stderr
    done = _run("-m", "thalweg", "show", "run")
    assert done.returncode == 0 and "Traceback" not in done.stderr


def test_resume_and_overwrite(bench):
    script = bench("train.py", TRAIN)
    assert _record(script, "4").returncode == 0
    assert _run("-m", "thalweg", "record", "--out", "run", "--resume", script, "3").returncode == 0
    assert thalweg.Run("run").series("loss")[0].tolist() == [1, 2, 3, 4, 5, 6, 7]
    over = _run("-m", "thalweg", "record", "--out", "run", "--overwrite", script, "2")
    assert over.returncode == 0
    assert thalweg.Run("run").series("loss")[0].tolist() == [1, 2]


def test_data_loader_workers_are_left_alone(bench):
    script = bench(
        "train.py",
        """
        import torch
        from torch.utils.data import DataLoader, TensorDataset
        if __name__ == "__main__":
            data = TensorDataset(torch.randn(32, 3), torch.zeros(32, 1))
            net = torch.nn.Linear(3, 1)
            opt = torch.optim.SGD(net.parameters(), 0.1)
            for method in ("fork", "spawn"):
                loader = DataLoader(data, 8, num_workers=2, multiprocessing_context=method)
                for x, y in loader:
                    opt.zero_grad()
                    torch.nn.functional.mse_loss(net(x), y).backward()
                    opt.step()
        """,
    )
    done = _record(script)
    assert done.returncode == 0, done.stderr
    run = thalweg.Run("run")
    assert run.series("loss")[0].tolist() == list(range(1, 9))
    assert len(run.header["segments"]) == 1


def test_a_full_disk_does_not_stop_the_training(bench):
    # No file may grow past 3 kB from here on: what a full disk does to every write.
    limit = "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))\n"
    done = _record(bench("train.py", limit, TRAIN, "print('trained')\n"), "3000")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "trained\n"
    assert done.stderr.count("warning: cannot write to run") == 1
    assert "Traceback" not in done.stderr
    shown = _run("-m", "thalweg", "show", "run")
    assert shown.returncode == 0 and "Traceback" not in shown.stderr, shown.stderr
