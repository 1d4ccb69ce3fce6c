"""Writes an array as a run of trackio, by trackio's own interpreter and public functions.

TRACKIO_DIR=FOLDER python benchmarks/trackio_run.py VALUES.npy NAMES.json
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path


def write() -> None:
    """One call of ``log`` a step; seconds as JSON in the last line."""
    import numpy as np
    import trackio  # pyright: ignore[reportMissingImports]

    values = np.load(sys.argv[1], mmap_mode="r")
    names = json.loads(Path(sys.argv[2]).read_text())
    begun = time.perf_counter()
    trackio.init(project="long", name="long")
    for step, row in enumerate(values):
        trackio.log(dict(zip(names, row.tolist(), strict=True)), step=step)
    logged = time.perf_counter()
    trackio.finish()
    ended = time.perf_counter()
    print(json.dumps({"log_s": logged - begun, "total_s": ended - begun}))


if __name__ == "__main__":
    write()
