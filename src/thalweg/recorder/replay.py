"""Runs the steps again that the black box of a run kept, bit for bit, and walks through them.

The script itself runs, so that whatever lies between ``backward`` and ``step`` (clipping,
accumulation, a gradient scaler) is the script's own code. Its first step introduces the models and
optimizers; then the kept state is put in place, and from there on every batch, target, factor and
setting of the optimizer is replaced by the kept one as it comes by. When the kept steps are through
the script is stopped. Each loss, and in the end every weight, is held against the recording.

What a replay cannot know of is state of the script's own that neither module, optimizer nor
argument holds: a step counter in the forward pass, say. Then the losses differ, and it says where.
"""

from __future__ import annotations

import hashlib
import os
import runpy
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from thalweg.errors import ThalwegError
from thalweg.recorder.kept import FOLDER, Kept, list_kept, read
from thalweg.recorder.redact import HIDDEN
from thalweg.recorder.rerun import Replay, Rerun
from thalweg.recorder.run_files import read_header
from thalweg.recorder.script import run_file

__all__ = ["Replay", "choose", "replay"]


def choose(run: Path, at: int | None = None) -> Kept:
    """The kept steps to run again.

    Args:
        run: the run directory.
        at: the step of their alarm; default the most telling ones.

    Raises:
        ThalwegError: if there are none.
    """
    header, kept = read_header(run), list_kept(run)
    if not kept:
        said = header.get("blackbox")
        why = f"its black box was off: {said}" if isinstance(said, str) else (
            "its black box kept nothing: no value that is not finite, no loss spike, no exception"
        )  # fmt: skip
        if said is None and not (run / FOLDER).exists():
            why = "it has no black box"
        raise ThalwegError(f"{run}: expected steps to replay; {why}")
    if at is None:
        return kept[0]
    for k in kept:
        if k.step == at:
            return k
    steps = ", ".join(f"{k.step} ({k.kind})" for k in kept)
    raise ThalwegError(f"{run}: nothing was kept at step {at}; there is {steps}")


def replay(
    run: Path, *, at: int | None = None, steps: int = 10, command: Sequence[str] = ()
) -> Replay:
    """Runs kept steps again, in this process, in the working directory of the recording.

    Args:
        run: the run directory.
        at: the step of the alarm; default the most telling one.
        steps: how many, up to the last, are looked at in detail.
        command: SCRIPT [ARGS...] or -m MODULE [ARGS...]; default as recorded.

    Returns:
        What was seen. The script's output goes to stderr.

    Raises:
        ThalwegError: if there is nothing to replay, a file is damaged, or the script is gone, fails
            before the kept steps, or builds another model.
        ValueError: if ``steps`` is not positive.
    """
    if steps < 1:
        raise ValueError(f"steps must be ≥ 1, got {steps}")
    chosen = choose(run, at)
    tensors, meta = read(chosen.path)
    state, rest = read(chosen.path.with_name(meta["state"]))
    header = read_header(run)
    command, notes = _command(header, command)
    os.chdir(_directory(header))
    start = _starter(command, header, notes)
    threads = (header.get("hardware") or {}).get("threads")
    if isinstance(threads, int):
        torch.set_num_threads(threads)  # sums are split by threads: their bits depend on it
    here, there = torch.__version__, (header.get("versions") or {}).get("torch")
    if there not in (None, here):
        notes.append(f"recorded with torch {there}, replayed with {here}: bits may differ")
    if meta["opaque"]:
        notes.append(f"model arguments that were not looked into: {', '.join(meta['opaque'])}")
    again = Rerun(tensors, meta, state, rest, steps)
    error = again.run(start)
    return again.result(error, notes)


def _command(header: dict[str, Any], command: Sequence[str]) -> tuple[list[str], list[str]]:
    """The command to run, and notes."""
    if command:
        return list(command), []
    recorded = header.get("command")
    if not isinstance(recorded, list) or not recorded or not header.get("script"):
        raise ThalwegError(
            "expected a run of a script; it was recorded without one (in a notebook?). "
            "A script that builds the same model and takes a step will do: "
            "thalweg replay RUN -- script.py"
        )
    if any(HIDDEN in argument for argument in recorded):
        raise ThalwegError(
            "the recorded command has hidden secrets; give it whole: "
            "thalweg replay RUN -- " + " ".join(recorded)
        )
    return [str(argument) for argument in recorded], []


def _directory(header: dict[str, Any]) -> Path:
    directory = Path(str(header.get("cwd", ".")))
    if not directory.is_dir():
        raise ThalwegError(
            f"expected the working directory of the recording, {directory}; it is gone. "
            "Make it again, or a link of that name"
        )
    return directory


def _starter(
    command: Sequence[str], header: dict[str, Any], notes: list[str]
) -> Callable[[], None]:
    """What runs the script."""
    was = header.get("script_sha256")
    if command[0] == "-m":
        name, arguments = command[1], list(command[2:])
        path = Path(str(header.get("script")))

        def start() -> None:
            sys.argv = [str(path), *arguments]
            sys.path.insert(0, str(Path.cwd()))
            runpy.run_module(name, run_name="__main__", alter_sys=True)

    else:
        path = Path(command[0])
        if not path.exists():
            raise ThalwegError(
                f"expected the script {path.absolute()}; it is gone. "
                "Say where it is: thalweg replay RUN -- SCRIPT [ARGS...]"
            )

        def start() -> None:
            run_file(path, list(command))

    if was is not None and path.is_file():
        if hashlib.sha256(path.read_bytes()).hexdigest() != was:
            notes.append(f"{path} has changed since it was recorded")
    return start
