"""Several processes, one run: which rank this is, and one directory for all of them.

Rank 0 makes the directory and tells the others through the store that torchrun keeps for its
workers; without one (another launcher), the ranks can only meet at a path that each was given.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from thalweg.errors import ThalwegError

__all__ = ["agree_on_directory", "largest_of_ranks", "this_rank"]

WAIT_S = 60.0


def this_rank() -> tuple[int, int]:
    """Rank and world size: of the process group if there is one, else as the launcher says."""
    import torch.distributed as dist

    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    try:
        return int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    except ValueError:
        return 0, 1


def largest_of_ranks(steps: int) -> int:
    """The largest proposal of all ranks; collective where there is a process group."""
    import torch
    import torch.distributed as dist

    if not (dist.is_available() and dist.is_initialized()):
        return steps
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    proposal = torch.tensor(steps, device=device)
    dist.all_reduce(proposal, op=dist.ReduceOp.MAX)
    return int(proposal)


def agree_on_directory(
    out: Path | None, default: Callable[[], Path], *, overwrite: bool, resume: bool
) -> tuple[Path, dict[str, Any], int, int]:
    """The run directory, its header, the segment and the step it starts from, on every rank.

    Args:
        out: as asked for, or None.
        default: makes a name where none was asked for.
        overwrite: replace what lies there.
        resume: go on with what lies there.

    Raises:
        ThalwegError: as ``store.create``; or if the ranks have no way to agree.
    """
    from thalweg.recorder.store import create

    rank, world_size = this_rank()
    if world_size == 1:
        path = out or default()
        return path, *create(path, overwrite=overwrite, resume=resume)
    tell = _shared_store()
    if tell is None and out is None:
        raise ThalwegError(
            "several ranks without torchrun have no way to agree on a directory: give --out"
        )
    if rank == 0:
        try:
            path = out or default()
            header, segment, first_step = create(path, overwrite=overwrite, resume=resume)
        except ThalwegError as error:
            _tell(tell, {"error": str(error)})
            raise
        told = {"path": str(path.absolute()), "segment": segment, "first_step": first_step}
        _tell(tell, {**told, "wall_s": header.get("wall_s", 0.0)})
        return path, header, segment, first_step
    if tell is None:
        assert out is not None
        said = _wait_for_header(out)
    else:
        said = json.loads(tell.get(_key()))
    if "error" in said:
        raise ThalwegError(said["error"])
    header = {"segments": [], "wall_s": said.get("wall_s", 0.0)}
    return Path(said["path"]), header, said["segment"], said["first_step"]


def _key() -> str:
    return f"thalweg/run/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}"


def _tell(store: Any, said: dict[str, Any]) -> None:
    if store is not None:
        store.set(_key(), json.dumps(said))


def _shared_store() -> Any:
    """A client of the launcher's store, or None if it keeps none."""
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return None
    from datetime import timedelta

    from torch.distributed import PrefixStore, TCPStore

    try:
        client = TCPStore(
            os.environ["MASTER_ADDR"],
            int(os.environ["MASTER_PORT"]),
            is_master=False,
            timeout=timedelta(seconds=WAIT_S),
        )
    except (KeyError, ValueError, RuntimeError):
        return None
    return PrefixStore(os.environ.get("TORCHELASTIC_RUN_ID", "none"), client)


def _wait_for_header(out: Path) -> dict[str, Any]:
    """Without a store: waits until rank 0 has put a running segment into the header."""
    started = time.time()
    while time.time() - started < WAIT_S:
        try:
            header = json.loads((out / "run.json").read_text("utf-8"))
            last = header["segments"][-1]
            # Written by this launch, not left over from an earlier one.
            fresh = (out / "run.json").stat().st_mtime > started - WAIT_S
            if last["status"] == "running" and fresh:
                return {
                    "path": str(out.absolute()),
                    "segment": last["segment"],
                    "first_step": last["first_step"],
                }
        except (OSError, ValueError, KeyError, IndexError):
            pass
        time.sleep(0.05)
    raise ThalwegError(f"rank 0 made no run at {out} within {WAIT_S:.0f} s")
