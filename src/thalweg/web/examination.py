"""The doctor in a process of its own: what a large run takes of memory is given back at once."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from types import SimpleNamespace
from typing import Any

from thalweg.almanac.kept_diagnoses import Finding
from thalweg.errors import ThalwegError
from thalweg.web.run_data import version_of
from thalweg.web.run_folder import RunFolder

__all__ = ["Doctor", "finding_of", "kept_of"]

#: Seconds that an examination may take, and how many are remembered.
PATIENCE_S = 120.0
#: Seconds to wait for the doctor while it looks at another run.
WAIT_S = 20.0
KEPT = 32


class Doctor:
    """Examines the runs of a folder, one at a time, each anew only when it has grown.

    Args:
        folder: where the runs lie.
    """

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder
        self._lock = threading.Lock()
        self._kept: dict[str, tuple[str, dict[str, Any]]] = {}

    def examine(self, name: str) -> dict[str, Any]:
        """Findings and skipped rules of a run, as ``thalweg doctor --json`` gives them.

        Raises:
            ThalwegError: if there is no such run, or the doctor fails or takes too long.
        """
        run = self.folder.open(name)
        version = version_of(run)
        if not self._lock.acquire(timeout=WAIT_S):
            raise ThalwegError("The doctor is busy with another run. Try again in a minute.")
        try:
            if name in self._kept and self._kept[name][0] == version:
                return self._kept[name][1]
            command = [sys.executable, "-m", "thalweg", "doctor", "--json", str(run.path.resolve())]
            try:
                done = subprocess.run(command, capture_output=True, timeout=PATIENCE_S)
            except subprocess.TimeoutExpired:
                raise ThalwegError(
                    f"{name}: the doctor took longer than {PATIENCE_S:g} s. "
                    "Let it finish on the command line: thalweg doctor"
                ) from None
            if done.returncode not in (0, 1):
                raise ThalwegError(f"{name}: {done.stderr.decode(errors='replace')[-500:].strip()}")
            found = json.loads(done.stdout)["data"]
            while len(self._kept) >= KEPT:
                self._kept.pop(next(iter(self._kept)))
            self._kept[name] = (version, found)
            return found
        finally:
            self._lock.release()


def kept_of(raw: dict[str, Any]) -> Finding:
    """What is kept of a finding."""
    return Finding(raw["rule"], raw["symptom"], raw["entry"] or "", raw["treatment"])


def finding_of(raw: dict[str, Any]) -> Any:
    """A finding with its fields as attributes, as the report draws it."""

    def figure(value: Any) -> float | None:
        return float(value) if value is not None else None  # "nan" and "inf" come as words

    evidence = [
        SimpleNamespace(
            text=e["text"],
            steps=tuple(e["steps"]),
            value=figure(e["value"]),
            uncertainty=figure(e["uncertainty"]),
            series=tuple(e["series"]) if e["series"] else None,
        )
        for e in raw["evidence"]
    ]
    return SimpleNamespace(**{**raw, "evidence": evidence})
