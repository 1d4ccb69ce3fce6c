"""The worker of a job: ``thalweg study run`` in a process of its own that writes down how it ended.

python -m thalweg.web.worker FOLDER STUDY PRESET
"""

from __future__ import annotations

import sys
from pathlib import Path

from thalweg.cli.app import main

__all__ = ["run"]


def run(folder: Path, study: str, preset: str) -> int:
    """Run a study and leave its exit code in the folder."""
    code = main(["study", "run", study, "--preset", preset])
    sys.stdout.flush()
    part = folder / "exit.part"
    part.write_text(str(code))
    part.replace(folder / "exit")
    return code


if __name__ == "__main__":
    sys.exit(run(Path(sys.argv[1]), *sys.argv[2:]))
