"""The page of a long run in a real browser, beside TensorBoard and trackio on the same figures.

The same array is written as a run of Thalweg, as TensorBoard's event file and through trackio's own
``log``. Each server is started anew, with nothing kept from before but the system's file cache;
once it has its data, the page is opened in Debian's Chromium with an empty cache of its own. Told
are the first contentful paint, the first canvas with something on it, what was sent, the memory of
the server, and whether the one step of a series that stands out is in what was sent.

    python -m benchmarks.live_page --peers PYTHON     # 100,000 steps x 200 series, half an hour
    python -m benchmarks.live_page --quick            # small, Thalweg alone, writes no file

PYTHON is an interpreter that has ``tensorboard`` and ``trackio``.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import facts
from benchmarks.read_run import figures, series_names, write_run, write_tensorboard

RESULT = Path(__file__).parent / "results" / "live_page.json"
#: Stands out of the first series at one step, and how it is written.
SPIKE = 987_654
WRITTEN = re.compile(rf"(?<![\d.]){SPIKE}(?:\.0)?(?![\d.])")
PATIENCE_S = 300.0
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-extensions",
    "--disable-sync",
    "--no-first-run",
)
#: Runs in every page: when the first canvas of some size has something on it.
WATCH = """
window.drawn = null;
const small = new OffscreenCanvas(48, 48).getContext("2d", { willReadFrequently: true });
const look = setInterval(() => {
  for (const canvas of document.querySelectorAll("canvas")) {
    if (canvas.width < 100 || canvas.height < 100) continue;
    small.clearRect(0, 0, 48, 48);
    try { small.drawImage(canvas, 0, 0, 48, 48); } catch (error) { continue; }
    if (small.getImageData(0, 0, 48, 48).data.some((v) => v)) {
      window.drawn = performance.now();
      clearInterval(look);
      return;
    }
  }
}, 20);
"""


def main(argv: list[str] | None = None) -> int:
    """Writes the data, measures, and writes the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--peers", help="interpreter that has tensorboard and trackio")
    parser.add_argument("--folder", type=Path, help="keep the data here, and use what is there")
    parser.add_argument("--repeats", type=int, default=5)
    chosen = parser.parse_args(argv)
    steps, series = (2_000, 20) if chosen.quick else (100_000, 200)
    if not chosen.quick and not chosen.peers:
        print("live_page: left out, it needs --peers PYTHON with tensorboard and trackio")
        return 0
    with tempfile.TemporaryDirectory() as temporary:
        folder = chosen.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        os.environ["THALWEG_DATA"] = str(folder / "data")
        wrote = _write(folder, steps, series, chosen.peers)
        tools: dict[str, Callable[[], Any]] = {"thalweg": lambda: _thalweg(folder)}
        if chosen.peers:
            tools["tensorboard"] = lambda: _tensorboard(folder, chosen.peers, steps)
            tools["trackio"] = lambda: _trackio(folder, chosen.peers)
        opened: dict[str, list[dict[str, Any]]] = {name: [] for name in tools}
        for number in range(1 if chosen.quick else chosen.repeats):
            for name, serve in tools.items():
                load = os.getloadavg()[0]
                with serve() as (url, pid, ready_s):
                    found = _open(url, name) | {"ready_s": round_(ready_s, 2)}
                    found |= {"rss_mb": _tree_rss(pid), "load_before": round_(load, 1)}
                opened[name].append(found)
                print(f"-- {number} {name}: {found}", file=sys.stderr, flush=True)
            result = {
                "command": "python -m benchmarks.live_page --peers PYTHON",
                **facts("starlette", "uvicorn", "playwright"),
                "peers": _versions(chosen.peers),
                "chromium": _version_of_chromium(),
                "run": {"steps": steps, "series": series},
                "wrote": wrote,
                "median": {name: _medians(rows) for name, rows in opened.items()},
                "opened": opened,
            }
            if not chosen.quick:  # after each round: an hour's work is not lost with the last
                RESULT.write_text(json.dumps(result, indent=1) + "\n")
        print(json.dumps(opened, indent=1))
    return 0


def _write(folder: Path, steps: int, series: int, peers: str | None) -> dict[str, Any]:
    """The figures in each tool's own form; what is there from an earlier call is used again."""
    known = folder / "wrote.json"
    wrote = json.loads(known.read_text()) if known.exists() else {}
    values = figures(steps, series)
    values[int(0.377 * steps), 0] = SPIKE
    if "thalweg" not in wrote:
        (folder / "runs").mkdir()
        wrote["thalweg"] = write_run(folder / "runs" / "long", values, flush_every=500)
        header = json.loads((folder / "runs" / "long" / "run.json").read_text())
        header |= {"status": "closed", "created": "2026-11-24T00:00:00Z", "segments": []}
        (folder / "runs" / "long" / "run.json").write_text(json.dumps(header))
        known.write_text(json.dumps(wrote))
    if peers and "trackio" not in wrote:
        np.save(folder / "values.npy", values)
        (folder / "names.json").write_text(
            json.dumps(["/".join(name) for name in series_names(series)])
        )
        program = Path(__file__).parent / "trackio_run.py"
        done = subprocess.run(
            [peers, str(program), str(folder / "values.npy"), str(folder / "names.json")],
            env=_trackio_env(folder),
            capture_output=True,
            text=True,
            check=True,
        )
        wrote["trackio"] = json.loads(done.stdout.splitlines()[-1]) | {
            "bytes": sum(p.stat().st_size for p in (folder / "trackio").rglob("*") if p.is_file())
        }
        known.write_text(json.dumps(wrote))
    if peers and "tensorboard" not in wrote:
        wrote["tensorboard"] = write_tensorboard(folder / "tensorboard", values)
        known.write_text(json.dumps(wrote))
    return wrote


@contextmanager
def _serving(command: list[str], port: int, env: Any = None) -> Iterator[tuple[str, int, float]]:
    """A server that answers: its address, its process, and the seconds that took."""
    begun, url = time.perf_counter(), f"http://127.0.0.1:{port}/"
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(command, env=env, stdout=quiet, stderr=quiet)
    try:
        while True:
            try:
                # Asks for nothing that a page would: a server that is cold stays cold.
                with socket.create_connection(("127.0.0.1", port), 1):
                    break
            except OSError:
                if time.perf_counter() - begun > PATIENCE_S:
                    raise
                time.sleep(0.02)
        yield url, process.pid, time.perf_counter() - begun
    finally:
        process.terminate()
        process.wait()


@contextmanager
def _thalweg(folder: Path) -> Iterator[tuple[str, int, float]]:
    port = _free_port()
    command = [sys.executable, "-m", "thalweg", "web", str(folder / "runs"), "--port", str(port)]
    with _serving(command, port) as (url, pid, ready_s):
        yield f"{url}runs/long", pid, ready_s


@contextmanager
def _tensorboard(folder: Path, python: str, steps: int) -> Iterator[tuple[str, int, float]]:
    """Ready when it has read its file to the end: a page opened before shows a part."""
    port, begun = _free_port(), time.perf_counter()
    command = [python, "-m", "tensorboard.main", "--logdir", str(folder / "tensorboard")]
    tag = "/".join(series_names(1)[0])
    asked = urllib.request.quote(tag, safe="")  # pyright: ignore[reportAttributeAccessIssue]
    with _serving([*command, "--port", str(port), "--host", "127.0.0.1"], port) as (url, pid, _):
        while time.perf_counter() - begun < 3 * PATIENCE_S:
            try:
                answer = urllib.request.urlopen(
                    f"{url}data/plugin/scalars/scalars?tag={asked}&run=.", timeout=60
                )
                if json.loads(answer.read())[-1][1] == steps - 1:
                    break
            except (OSError, ValueError, LookupError):
                pass
            time.sleep(0.5)
        yield f"{url}?darkMode=false#timeseries", pid, time.perf_counter() - begun


@contextmanager
def _trackio(folder: Path, python: str) -> Iterator[tuple[str, int, float]]:
    port = _free_port()
    program = (
        "import trackio; trackio.show(project='long', open_browser=False, block_thread=True, "
        f"server_port={port})"
    )
    with _serving([python, "-c", program], port, _trackio_env(folder)) as (url, pid, ready_s):
        yield f"{url}?project=long", pid, ready_s


def _open(url: str, tool: str) -> dict[str, Any]:
    """One look at the page, in a browser that was started for it."""
    from playwright.sync_api import Error, sync_playwright

    sent = {"bytes": 0, "spike": False}
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=_chromium(), args=list(FLAGS))
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.add_init_script(WATCH)
        network = page.context.new_cdp_session(page)
        network.send("Network.enable")
        network.on(
            "Network.loadingFinished",
            lambda event: sent.update(bytes=sent["bytes"] + int(event["encodedDataLength"])),
        )
        bodies: list[Any] = []
        page.on("response", lambda response: bodies.append(response))
        page.goto(url, wait_until="commit", timeout=1e3 * PATIENCE_S)
        begun = time.perf_counter()
        # Not wait_for_function, which a content security policy refuses.
        while page.evaluate("window.drawn") is None:
            if time.perf_counter() - begun > PATIENCE_S:
                browser.close()
                return {"drawn_ms": None}
            time.sleep(0.1)
        found: dict[str, Any] = page.evaluate(
            "({drawn_ms: Math.round(window.drawn), paint_ms: Math.round(performance."
            "getEntriesByName('first-contentful-paint')[0]?.startTime)})"
        )
        page.wait_for_timeout(3_000)
        for response in bodies:
            try:
                sent["spike"] |= WRITTEN.search(response.text()) is not None
            except (Error, UnicodeDecodeError):
                continue
        found |= {"sent_kb": round_(sent["bytes"] / 1e3), "spike_sent": sent["spike"]}
        if tool == "thalweg":
            found["zoom_ms"] = _zoom(page)
        browser.close()
    return found


#: When the mouse was let go, and when the first chart was drawn after it.
TIMES = """() => {
  addEventListener("mouseup", () => { window.go = performance.now(); window.done = null; }, true);
  new MutationObserver(() => { window.done ??= performance.now(); }).observe(
    document.querySelector(".live-chart"), { attributes: true, attributeFilter: ["data-drawn"] });
}"""


def _zoom(page: Any) -> list[int]:
    """Zooms into each other by dragging: milliseconds from letting go until it is drawn."""
    page.evaluate(TIMES)
    box = page.locator(".live-chart .u-over").first.bounding_box()
    found = []
    for a, b in ((0.25, 0.75), (0.3, 0.6), (0.2, 0.8), (0.1, 0.5), (0.4, 0.9)):
        page.mouse.move(box["x"] + a * box["width"], box["y"] + 80)
        page.mouse.down()
        page.mouse.move(box["x"] + b * box["width"], box["y"] + 80, steps=4)
        page.mouse.up()
        while (ms := page.evaluate("window.done && window.done - window.go")) is None:
            time.sleep(0.02)
        found.append(round(ms))
    return found


def _medians(rows: list[dict[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {"repeats": len(rows)}
    for name in ("ready_s", "paint_ms", "drawn_ms", "sent_kb", "rss_mb"):
        known = [row[name] for row in rows if row.get(name) is not None]
        found[name] = round_(statistics.median(known), 2) if known else None
    found["spike_sent"] = [row.get("spike_sent") for row in rows].count(True)
    if zooms := [ms for row in rows for ms in row.get("zoom_ms") or []]:
        found["zoom_ms"] = statistics.median(zooms)
        found["zoom_most_ms"] = max(zooms)
    return found


def _tree_rss(pid: int) -> int:
    """Peaks of memory of a process and its children, megabytes, added."""
    total, pending = 0, [pid]
    while pending:
        one = pending.pop()
        try:
            status = Path(f"/proc/{one}/status").read_text()
            total += int(status.split("VmHWM:")[1].split()[0]) // 1000
            for task in Path(f"/proc/{one}/task").iterdir():
                pending += map(int, (task / "children").read_text().split())
        except (OSError, IndexError):
            continue
    return total


def _trackio_env(folder: Path) -> dict[str, str]:
    return {**os.environ, "TRACKIO_DIR": str(folder / "trackio"), "HF_HUB_OFFLINE": "1"}


def _versions(python: str | None) -> dict[str, str]:
    if python is None:
        return {}
    program = (
        "import json; from importlib.metadata import version; "
        "print(json.dumps({p: version(p) for p in "
        "('tensorboard', 'tensorboard-data-server', 'trackio')}))"
    )
    done = subprocess.run([python, "-c", program], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def _chromium() -> str:
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        raise SystemExit("live_page: expected Chromium on the path; apt-get install chromium")
    return found


def _version_of_chromium() -> str:
    said = subprocess.run([_chromium(), "--version"], capture_output=True, text=True)
    return said.stdout.strip()


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def round_(value: float, digits: int = 0) -> float:
    """Rounded, a whole number as one."""
    return round(value, digits) if digits else round(value)


if __name__ == "__main__":
    raise SystemExit(main())
