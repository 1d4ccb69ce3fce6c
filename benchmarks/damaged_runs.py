"""Damaged and foreign directories: every verb must answer with a message, never a traceback.

A sound run and one that was killed are copied, one file of the copy is cut short, overwritten in
the middle, emptied, filled with noise or deleted, and every verb of the command line reads it. What
is no run at all is read, and recorded onto, likewise.

    python -m benchmarks.damaged_runs           # about 2 minutes
    python -m benchmarks.damaged_runs --quick   # few, writes no file
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import random
import shutil
import signal
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

import thalweg
from benchmarks.crashes import verbs
from benchmarks.machine import facts
from thalweg.cli.app import main as command_line

RESULT = Path(__file__).parent / "results" / "damaged_runs.json"
Draw = random.Random


def make_run(path: Path) -> None:
    """A recorded training of 60 steps."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    x, y = torch.randn(32, 8), torch.randint(0, 3, (32,))
    with thalweg.record(model, optimizer, path, overhead=10.0) as run:
        for _ in range(60):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
        run.run()  # flushes
        if path.name == "killed":
            os.kill(os.getpid(), signal.SIGKILL)


def make_killed_run(path: Path) -> None:
    """The same, killed after its last flush: a stream that was never compacted."""
    child = os.fork()
    if child == 0:
        try:
            make_run(path)
        finally:
            os._exit(1)
    os.waitpid(child, 0)


def cut(data: bytes, draw: Draw) -> bytes:
    """The file up to somewhere: a torn write."""
    return data[: draw.randrange(max(1, len(data)))]


def overwrite(data: bytes, draw: Draw) -> bytes:
    """Sixteen wrong bytes somewhere: a bad disk."""
    at = draw.randrange(max(1, len(data) - 16))
    return data[:at] + draw.randbytes(16) + data[at + 16 :]


def empty(data: bytes, draw: Draw) -> bytes:
    """Nothing left: what some file systems leave of a file that was not synced."""
    return b""


def zeros(data: bytes, draw: Draw) -> bytes:
    """The right length, all zero: what others leave."""
    return bytes(len(data))


def noise(data: bytes, draw: Draw) -> bytes:
    """Another file altogether."""
    return draw.randbytes(len(data))


DAMAGES: tuple[Callable[[bytes, Draw], bytes], ...] = (cut, cut, overwrite, empty, zeros, noise)


def damage(source: Path, folder: Path, draw: Draw) -> list[dict[str, Any]]:
    """Every file of a run damaged in every way, one at a time."""
    results = []
    for file in sorted(p for p in source.rglob("*") if p.is_file()):
        name = file.relative_to(source)
        for how in (*DAMAGES, None):
            copy = folder / "copy"
            shutil.copytree(source, copy)
            if how is None:
                (copy / name).unlink()
            else:
                (copy / name).write_bytes(how(file.read_bytes(), draw))
            codes = verbs(copy)
            shutil.rmtree(copy)
            kind = "delete" if how is None else how.__name__
            results.append({"file": str(name), "damage": kind, "verbs": codes})
    return results


def foreign(folder: Path) -> dict[str, Path]:
    """Things that are no run, by what they are."""
    contents: dict[str, dict[str, bytes]] = {
        "empty directory": {},
        "somebody's project": {"main.py": b"print(1)", "data/x.csv": b"a,b\n1,2\n"},
        "run.json is no JSON": {"run.json": b"{"},
        "run.json is binary": {"run.json": bytes(range(256))},
        "run.json is a list": {"run.json": b"[1, 2]"},
        "run.json is of another tool": {"run.json": b'{"kind": "other", "schema_version": 7}'},
        "run.json is from the future": {
            "run.json": b'{"kind": "thalweg.run", "schema_version": 99, "segments": []}'
        },
        "run.json has wrong types": {
            "run.json": b'{"kind": "thalweg.run", "schema_version": 1, "segments": 3,'
            b' "created": [], "optimizers": "x", "models": 1, "overhead": null}'
        },
        "foreign files inside": {
            "run.json": b'{"kind": "thalweg.run", "schema_version": 1, "created": "",'
            b' "status": "closed", "segments": []}',
            "measurements/r0-s0-0000.parquet": b"PAR1",
            "measurements/r0-s0-0001.arrows": b"hello",
            "weights/step-000000001-r0-s0.safetensors": b"\xff" * 64,
            "weights/sketches-r0-s0.arrows": b"\0" * 64,
            "events.jsonl": b"not json\n\xff\xfe\n[]\n",
        },
    }
    paths = {}
    for i, (what, files) in enumerate(contents.items()):
        paths[what] = path = folder / f"foreign{i}"
        path.mkdir()
        for name, data in files.items():
            (path / name).parent.mkdir(exist_ok=True)
            (path / name).write_bytes(data)
    paths["a file"] = folder / "file"
    paths["a file"].write_text("x")
    paths["a link to itself"] = folder / "link"
    paths["a link to itself"].symlink_to("link")
    paths["nothing"] = folder / "nothing"
    return paths


def record_onto(path: Path) -> tuple[int, bool]:
    """Exit code of ``record --out`` onto it, and whether it stayed as it was."""
    before, said = _listing(path), io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        code = command_line(["record", "--out", str(path), "--resume", "no_such_script.py"])
    return 3 if "Traceback" in said.getvalue() else code, _listing(path) == before


def _listing(path: Path) -> list[tuple[str, bytes]]:
    files = [p for p in path.rglob("*") if p.is_file()] if path.is_dir() else []
    return sorted((str(p), p.read_bytes()) for p in files)


def counts(results: list[dict[str, Any]]) -> dict[str, Any]:
    """Exit codes over all readings; anything but 0, 1 and 2 is a failure."""
    codes = Counter(code for r in results for code in r["verbs"].values())
    return {
        "cases": len(results),
        "readings": sum(codes.values()),
        "exit_codes": {str(code): n for code, n in sorted(codes.items())},
        "failed": sum(n for code, n in codes.items() if code not in (0, 1, 2)),
    }


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Runs the benchmark; writes its result unless quick."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.damaged_runs", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one run, no file written")
    quick = parser.parse_known_args(argv)[0].quick
    torch.set_num_threads(1)
    draw, torn, strange = random.Random(0), [], []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_run(folder / "closed")
        make_killed_run(folder / "killed")
        for source in ("killed",) if quick else ("closed", "killed"):
            torn += damage(folder / source, folder, draw)
            print(f"{source}: {counts(torn)}", flush=True)
        for what, path in foreign(folder).items():
            code, untouched = record_onto(path)
            strange.append(
                {"what": what, "verbs": {**verbs(path), "record": code}, "untouched": untouched}
            )
    failed = [r for r in torn + strange if not {*r["verbs"].values()} <= {0, 1, 2}]
    result = {
        "command": "python -m benchmarks.damaged_runs",
        **facts("torch", "pyarrow"),
        "damaged": counts(torn),
        "foreign": {**counts(strange), "touched": sum(not r["untouched"] for r in strange)},
        "failed": failed,
        "each_foreign": strange,
    }
    print(json.dumps(result, indent=2))
    if not quick:
        RESULT.write_text(json.dumps(result, indent=1) + "\n")
    return result


if __name__ == "__main__":
    main()
