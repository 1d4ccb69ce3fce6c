"""run.json: what a run is, how it was started, on what, and how it ended.

Written whole and replaced atomically, by rank 0 only.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import socket
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from thalweg.recorder.events import plain
from thalweg.recorder.redact import redact_arguments, redact_environment

__all__ = ["describe_process", "now", "write_header"]


def now() -> str:
    """This moment, ISO 8601, UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def write_header(run: Path, header: dict[str, Any]) -> None:
    """Replaces ``run.json``: a reader sees the old header or the new one, never half of one.

    Raises:
        OSError: if the disk refuses.
    """
    temporary = run / "run.json.tmp"
    temporary.write_text(json.dumps(plain(header), indent=1, ensure_ascii=False) + "\n", "utf-8")
    temporary.replace(run / "run.json")


def describe_process(script: Path | None, arguments: Sequence[str]) -> dict[str, Any]:
    """Provenance of a training: command, versions, git commit, hardware, environment.

    Args:
        script: the training script, if there is one.
        arguments: its command line, secrets and all; they are hidden here.
    """
    import torch

    return {
        "script": str(script) if script else None,
        "script_sha256": _digest(script),
        "command": redact_arguments(arguments),
        "cwd": str(Path.cwd()),
        "seed": torch.initial_seed(),
        "versions": _versions(),
        "git": _git(script.parent if script else Path.cwd()),
        "hardware": _hardware(),
        "environment": redact_environment(os.environ),
    }


def _digest(script: Path | None) -> str | None:
    """Of the script's text: a replay says whether it is still the same."""
    try:
        return hashlib.sha256(script.read_bytes()).hexdigest() if script else None
    except OSError:  # a package, or gone
        return None


def _versions() -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version

    import thalweg

    found = {"python": platform.python_version(), "thalweg": thalweg.__version__}
    for package in ("torch", "numpy", "pyarrow", "lightning", "transformers", "accelerate"):
        # Only what the training has loaded, and torch's own, which carries the build (+cpu, +cu…).
        module = sys.modules.get(package)
        if module is None:
            continue
        try:
            found[package] = str(getattr(module, "__version__", None) or version(package))
        except PackageNotFoundError:
            continue
    return found


def _git(folder: Path) -> dict[str, Any] | None:
    """Commit and whether tracked files differ from it; None outside a checkout or without git."""

    def ask(*arguments: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", *arguments], cwd=folder, capture_output=True, text=True, timeout=5
            )
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    commit = ask("rev-parse", "HEAD")
    if commit is None:
        return None
    changes = ask("status", "--porcelain", "--untracked-files=no")
    return {"commit": commit, "branch": ask("rev-parse", "--abbrev-ref", "HEAD"), "dirty": changes}


def _hardware() -> dict[str, Any]:
    import torch

    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "host": socket.gethostname(),
        "system": platform.platform(),
        "cpu": _cpu_name(),
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpus": gpus,
    }


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
