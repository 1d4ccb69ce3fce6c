"""What a crash costs: ``kill -9`` at random moments, and a disk that is full.

A row counts as flushed once the recorder's flush has returned: it must be there after the kill. The
rows that only waited in memory are lost; how old they were is measured. Every run that a crash left
behind is then read by every verb of the command line.

    python -m benchmarks.crashes           # about 4 minutes
    python -m benchmarks.crashes --quick   # few, writes no file

The full disk is a tmpfs of 1 MB where the system lets us mount one, else a limit on file sizes.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

import thalweg
from benchmarks.machine import facts
from thalweg.cli.app import main as command_line
from thalweg.recorder.integrity import check
from thalweg.recorder.measurements import MeasurementWriter

RESULT = Path(__file__).parent / "results" / "crashes.json"
EXAMPLES = Path(__file__).parent.parent / "examples"
LONGEST_S = 3.0  # of training before a kill


def train(path: Path, pipe: int) -> None:
    """Trains under the recorder for ever; tells of every step, and of every flush that returned."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    x, y = torch.randn(128, 64), torch.randint(0, 10, (128,))
    appended, flush = 0, MeasurementWriter.flush

    def told(self: MeasurementWriter) -> None:
        before = appended
        flush(self)
        os.write(pipe, f"f {before}\n".encode())

    MeasurementWriter.flush = told
    with thalweg.record(model, optimizer, path):
        while True:
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
            appended += 1
            os.write(pipe, f"s {appended} {time.monotonic()}\n".encode())


def warm_up(path: Path) -> None:
    """Imports in this process what its children would need seconds for."""
    model = nn.Linear(2, 1)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    with thalweg.record(model, optimizer, path):
        for _ in range(10):
            optimizer.zero_grad()
            nn.functional.mse_loss(model(torch.ones(1, 2)), torch.ones(1, 1)).backward()
            optimizer.step()


def kill(path: Path, after_s: float) -> dict[str, Any]:
    """Kills a recorded training and looks at what it left."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(read)
            train(path, write)
        finally:
            os._exit(1)
    os.close(write)
    said = bytearray()
    deadline = time.monotonic() + after_s
    os.set_blocking(read, False)
    while time.monotonic() < deadline:
        with contextlib.suppress(BlockingIOError):
            said += os.read(read, 1 << 16)
        time.sleep(0.001)
    os.kill(child, signal.SIGKILL)
    killed = time.monotonic()
    _, status = os.waitpid(child, 0)
    os.set_blocking(read, True)
    while piece := os.read(read, 1 << 16):
        said += piece
    os.close(read)
    if not os.WIFSIGNALED(status):
        raise RuntimeError("the training ended by itself: nothing was killed")
    lines = [line.split() for line in said.decode().splitlines()]
    flushed = max((int(line[1]) for line in lines if line[0] == "f"), default=0)
    times = {int(line[1]): float(line[2]) for line in lines if line[0] == "s" and len(line) == 3}
    result = {"after_s": round(after_s, 3), "steps": max(times, default=0), "flushed": flushed}
    if not (path / "run.json").exists():
        return {**result, "kept": 0, "lost_flushed": flushed, "damage": 0, "verbs": {}}
    run = thalweg.Run(path)
    kept = run.series("loss")[0].tolist() if run.table("loss").num_rows else []
    oldest = next((at for step, at in sorted(times.items()) if step > len(kept)), killed)
    return {
        **result,
        "kept": len(kept),
        "in_order": kept == list(range(1, len(kept) + 1)),
        "lost_flushed": max(0, flushed - len(kept)),
        "oldest_lost_s": round(killed - oldest, 3),
        "damage": sum(p.severity == "damage" for p in check(path)),
        "verbs": verbs(path),
    }


def verbs(path: Path) -> dict[str, int]:
    """Exit code of each verb that reads a run; a traceback would be an exception or a 3."""
    codes = {}
    with tempfile.TemporaryDirectory() as folder:
        for verb, rest in (
            ("show", []),
            ("check", []),
            ("doctor", []),
            ("compare", [str(path)]),
            ("report", ["-o", f"{folder}/page.html"]),
            ("export", ["--to", "csv", "-o", f"{folder}/table.csv"]),
        ):
            said = io.StringIO()
            with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
                codes[verb] = command_line([verb, str(path), *rest])
            if "Traceback" in said.getvalue():
                codes[verb] = 3
    return codes


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[str]:
    """A disk of 1 MB at ``folder``; yields what it is."""
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    try:
        mounted = os.geteuid() == 0 and subprocess.run(mount, capture_output=True).returncode == 0
    except FileNotFoundError:
        mounted = False
    try:
        yield "tmpfs" if mounted else "limit on file sizes"
    finally:
        if mounted:
            subprocess.run(["umount", str(folder)], check=True)


def full_disk(epochs: int) -> dict[str, Any]:
    """Trains an example to its end on a disk that fills up; what it prints must be the same."""
    example = [str(EXAMPLES / "digits_cnn.py"), "--epochs", str(epochs)]
    limit = (
        "import resource, runpy, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (400_000,) * 2);"
        "sys.argv = sys.argv[1:]; runpy.run_module('thalweg', run_name='__main__')"
    )
    bare = subprocess.run([sys.executable, *example], capture_output=True, text=True, check=True)
    with tempfile.TemporaryDirectory() as folder, small_disk(Path(folder)) as kind:
        python = ["-m", "thalweg"] if kind == "tmpfs" else ["-c", limit, "thalweg"]
        command = [sys.executable, *python, "record", "--out", f"{folder}/run", *example]
        done = subprocess.run(command, capture_output=True, text=True)
        run = thalweg.Run(f"{folder}/run")
        return {
            "disk": kind,
            "exit_code": done.returncode,
            "same_output": _untimed(done.stdout) == _untimed(bare.stdout),
            "warnings": done.stderr.count("warning: cannot write to"),
            "tracebacks": done.stderr.count("Traceback"),
            "steps_kept": len(run.series("loss")[0]),
            "verbs": verbs(Path(folder) / "run"),
        }


def _untimed(text: str) -> str:
    """What the example printed, without its last line, which says how long it took."""
    return text.rstrip().rpartition("\n")[0]


def summary(kills: list[dict[str, Any]]) -> dict[str, Any]:
    """All kills in a few figures."""
    return {
        "kills": len(kills),
        "steps": sum(k["steps"] for k in kills),
        "flushed_steps": sum(k["flushed"] for k in kills),
        "lost_flushed_steps": sum(k["lost_flushed"] for k in kills),
        "runs_out_of_order": sum(not k.get("in_order", True) for k in kills),
        "runs_with_damage": sum(k["damage"] > 0 for k in kills),
        "oldest_lost_s": max((k.get("oldest_lost_s", 0.0) for k in kills), default=0.0),
        "verbs_run": sum(len(k["verbs"]) for k in kills),
        "verbs_failed": sum(code not in (0, 1) for k in kills for code in k["verbs"].values()),
    }


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Runs the benchmark; writes its result unless quick."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.crashes", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few kills, no file written")
    quick = parser.parse_known_args(argv)[0].quick
    torch.set_num_threads(1)
    draw, kills = random.Random(0), []
    with tempfile.TemporaryDirectory() as folder:
        warm_up(Path(folder) / "warm")
        for i in range(4 if quick else 50):
            kills.append(kill(Path(folder) / str(i), draw.uniform(0.0, LONGEST_S)))
            k = kills[-1]
            print(
                f"kill {i + 1} after {k['after_s']:.2f} s: {k['steps']} steps, "
                f"{k['flushed']} flushed, {k['kept']} kept",
                flush=True,
            )
    result = {
        "command": "python -m benchmarks.crashes",
        **facts("torch", "pyarrow"),
        "kill": summary(kills),
        "full_disk": full_disk(2 if quick else 20),
        "each_kill": kills,
    }
    print(json.dumps({k: v for k, v in result.items() if k != "each_kill"}, indent=2))
    if not quick:
        RESULT.write_text(json.dumps(result, indent=1) + "\n")
    return result


if __name__ == "__main__":
    main()
