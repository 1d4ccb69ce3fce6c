"""How long a report takes and how large it is, for a run of 100,000 steps × 200 series.

python -m benchmarks.report            # about a minute, most of it to make the run
python -m benchmarks.report --quick    # small, writes no file
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.machine import facts
from benchmarks.read_run import figures, write_run
from thalweg.recorder.run import Run
from thalweg.report import write

RESULT = Path(__file__).parent / "results" / "report.json"


def measure(folder: Path, steps: int, series: int, blocks: int) -> dict[str, Any]:
    """Seconds of every report and the bytes of the page."""
    write_run(folder / "run", figures(steps, series), flush_every=1000)
    seconds = []
    for _ in range(blocks):
        start = time.perf_counter()
        path = write(Run(folder / "run"), folder / "report.html")
        seconds.append(round(time.perf_counter() - start, 3))
    return {"steps": steps, "series": series, "seconds": seconds, "bytes": path.stat().st_size}


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Measure, print and (unless quick) write ``benchmarks/results/report.json``."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small sizes, no file written")
    quick = parser.parse_args(argv).quick
    with tempfile.TemporaryDirectory() as folder:
        measured = measure(Path(folder), *((2000, 20, 1) if quick else (100_000, 200, 3)))
    report = {
        "command": "python -m benchmarks.report",
        **facts("numpy", "pyarrow"),
        "notes": ["The run is in the page cache. Reading it is part of the time."],
        "limits": {"seconds": 15, "bytes": 3_000_000},
        "measurements": measured,
    }
    text = json.dumps(report, indent=2)
    if not quick:
        RESULT.write_text(text + "\n")
    print(text)
    return report


if __name__ == "__main__":
    main()
