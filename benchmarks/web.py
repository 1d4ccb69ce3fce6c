"""How quick the page is: the almanac with thousands of papers, a long run, many readers at once.

One server process as ``thalweg web`` starts it, asked over loopback. The load of the machine before
each part is written down, since readers and server share its cores.

    python -m benchmarks.web            # about five minutes
    python -m benchmarks.web --quick    # small, about 20 seconds, writes no file
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import numpy as np

from benchmarks.machine import facts
from benchmarks.read_run import figures, series_names, write_run

RESULT = Path(__file__).parent / "results" / "web.json"
PAGES = {
    "list": "/",
    "entry": "/e/conservation-laws",
    "topics": "/topics",
    "search": "/search?q=why+did+the+loss+jump",
    "digest": "/digest/2026-06",
    "compare": "/compare?e=relex&e=grokalign",
    "runs": "/runs",
    "feed": "/feed.atom?kind=law",
}
PARTS = 12


def main(argv: list[str] | None = None) -> int:
    """Measures and writes the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args(argv).quick
    steps, series, papers, readers, seconds = (
        (2_000, 20, 100, 4, 3) if quick else (100_000, 200, 5_000, 32, 60)
    )
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        os.environ["THALWEG_DATA"] = str(root / "data")
        ingest_s = _read_in(root, papers)
        _record(root / "runs" / "long", steps, series)
        result: dict[str, Any] = {
            **facts("starlette", "uvicorn", "jinja2"),
            "papers": papers,
            "ingest_s": round(ingest_s, 2),
            "run": {"steps": steps, "series": series},
        }
        with _server(root / "runs") as (address, pid):
            result["start_rss_mb"] = _rss(pid)
            result["pages"] = _pages(address, 5 if quick else 60)
            result["long_run"] = _long_run(address, steps, series, 5 if quick else 60)
            result["after_zoom_rss_mb"] = _rss(pid)
            result["readers"] = _readers(address, steps, series, readers, seconds)
            result["peak_rss_mb"] = _rss(pid)
    print(json.dumps(result, indent=1))
    if not quick:
        RESULT.write_text(json.dumps(result, indent=1) + "\n")
    return 0


def _read_in(root: Path, count: int) -> float:
    """Papers of made-up words, read in as Hugging Face's list of a day is."""
    from thalweg.almanac import ingest

    rng = random.Random(0)
    words = [a + b for a in "gra lo sym sha con tra wei ran spe cur".split()
             for b in "dient ss metry rpness serve in ght k ctrum vature".split()]  # fmt: skip
    listed = []
    for i in range(count):
        paper = {
            "id": f"26{1 + i % 9:02d}.{i:05d}",
            "title": " ".join(rng.choices(words, k=8)),
            "summary": " ".join(rng.choices(words, k=120)),
            "authors": [{"name": "A. Author", "hidden": False}],
            "publishedAt": f"2026-{1 + i % 9:02d}-{1 + i % 28:02d}T00:00:00.000Z",
            "upvotes": i % 50,
        }
        listed.append({"paper": paper, "publishedAt": paper["publishedAt"], "title": "t"})
    path = root / "papers.json"
    path.write_text(json.dumps(listed))
    begun = time.perf_counter()
    report = ingest(path)
    assert report.new == count, report
    return time.perf_counter() - begun


def _record(path: Path, steps: int, series: int) -> None:
    path.parent.mkdir()
    write_run(path, figures(steps, series), flush_every=500)
    header = json.loads((path / "run.json").read_text())
    header |= {"status": "closed", "created": "2026-11-24T00:00:00Z", "segments": []}
    (path / "run.json").write_text(json.dumps(header))


@contextmanager
def _server(runs: Path) -> Iterator[tuple[str, int]]:
    command = [sys.executable, "-m", "thalweg", "web", str(runs), "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield urlsplit(process.stdout.readline().strip()).netloc, process.pid
    finally:
        process.terminate()
        process.wait()


class Reader:
    """A connection that is kept open, as a browser's is."""

    def __init__(self, address: str) -> None:
        self.connection = http.client.HTTPConnection(address, timeout=60)

    def get(self, path: str) -> float:
        """Seconds until all has come."""
        begun = time.perf_counter()
        self.connection.request("GET", path)
        answer = self.connection.getresponse()
        body = answer.read()
        if answer.status != 200 or not body:
            raise RuntimeError(f"{path}: {answer.status} {body[:200]!r}")
        return time.perf_counter() - begun


def _pages(address: str, rounds: int) -> dict[str, Any]:
    """Times of every page, asked in turn."""
    load = os.getloadavg()[0]
    reader, times = Reader(address), {name: [] for name in PAGES}
    first = {name: round(1e3 * reader.get(path), 1) for name, path in PAGES.items()}
    for _ in range(rounds):
        for name, path in PAGES.items():
            times[name].append(reader.get(path))
    found: dict[str, Any] = {n: {"first_ms": first[n], **_quantiles(t)} for n, t in times.items()}
    every = [t for some in times.values() for t in some]
    return {"load_before": round(load, 1), "each": found, "all": _quantiles(every)}


def _long_run(address: str, steps: int, series: int, zooms: int) -> dict[str, Any]:
    """The page of the run and its first chart, of a server that has not seen it; then zooms."""
    load, reader, rng = os.getloadavg()[0], Reader(address), random.Random(0)
    cold_page = reader.get("/runs/long")
    cold_chart = reader.get(_chart("grad_norm", series))
    warm_page, warm_chart = reader.get("/runs/long"), reader.get(_chart("grad_norm", series))
    found: dict[str, Any] = {
        "load_before": round(load, 1),
        "cold_page_ms": round(1e3 * cold_page, 1),
        "cold_chart_ms": round(1e3 * cold_chart, 1),
        "page_ms": round(1e3 * warm_page, 1),
        "chart_ms": round(1e3 * warm_chart, 1),
        "series_in_chart": min(PARTS, -(-series // 3)),
        "zooms": {},
    }
    for share in (0.5, 0.1, 0.01):
        times = []
        for _ in range(zooms):
            first = rng.randrange(int(steps * (1 - share)))
            times.append(reader.get(_chart("grad_norm", series, first, int(steps * share))))
        found["zooms"][f"{share:g}"] = _quantiles(times)
    return found


def _chart(instrument: str, series: int, first: int | None = None, width: int = 0) -> str:
    parts = [part for name, part in series_names(series) if name == instrument][:PARTS]
    asked: list[tuple[str, str | int]] = [("instrument", instrument), ("columns", 600)]
    asked += [("part", part) for part in parts]
    if first is not None:
        asked += [("from", first), ("to", first + width)]
    return f"/api/runs/long/series.json?{urlencode(asked)}"


def _readers(address: str, steps: int, series: int, count: int, seconds: float) -> dict[str, Any]:
    """Many readers at once, each asking for one thing after the other."""
    load, end = os.getloadavg()[0], time.perf_counter() + seconds
    times: list[float] = []
    errors: list[str] = []

    def read(seed: int) -> None:
        rng, reader = random.Random(seed), Reader(address)
        while time.perf_counter() < end:
            width = int(steps * rng.choice((0.5, 0.1, 0.01)))
            chart = _chart("grad_norm", series, rng.randrange(steps - width), width)
            path = rng.choice([*PAGES.values(), "/runs/long", chart])
            try:
                times.append(reader.get(path))
            except Exception as error:
                errors.append(f"{path}: {error!r}")
                reader = Reader(address)

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return {
        "load_before": round(load, 1),
        "readers": count,
        "seconds": seconds,
        "requests": len(times),
        "errors": len(errors),
        "first_errors": errors[:3],
        **_quantiles(times),
    }


def _quantiles(times: list[float]) -> dict[str, float]:
    median, p95 = np.quantile(np.array(times) * 1e3, [0.5, 0.95])
    return {"median_ms": round(float(median), 1), "p95_ms": round(float(p95), 1)}


def _rss(pid: int) -> int:
    """Peak of the server's memory so far, megabytes."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) // 1000


if __name__ == "__main__":
    raise SystemExit(main())
