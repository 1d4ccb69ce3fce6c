"""What a benchmark ran on: enough to compare figures, nothing that names a machine."""

from __future__ import annotations

import datetime
import os
import platform
from importlib.metadata import version
from pathlib import Path

__all__ = ["facts"]


def facts(*packages: str) -> dict[str, object]:
    """Date, versions of ``packages``, processor; for the head of a result file."""
    cpu = platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                cpu = line.partition(":")[2].strip()
                break
    except OSError:
        pass
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "versions": {
            "python": platform.python_version(),
            **{p: version(p) for p in ("thalweg", *packages)},
        },
        "machine": {"cpu": cpu, "cores": os.cpu_count(), "threads_per_process": 1},
    }
