"""How fast a run is read back, beside TensorBoard's event reader on the same figures.

Both stores hold the same float32-precision scalars, `steps` × `series`: a run as the recorder
leaves it (compacted Parquet), and one event file with an event per scalar, as ``SummaryWriter``
writes it; each reading ends in numpy arrays or an Arrow table that are checked to be equal.

    python -m benchmarks.read_run            # both sizes, about 15 minutes
    python -m benchmarks.read_run --quick    # small, about 10 seconds, writes no file
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import facts
from thalweg.recorder.measurements import MeasurementWriter
from thalweg.recorder.run import Run

RESULT = Path(__file__).parent / "results" / "read_run.json"
Arrays = dict[str, tuple[np.ndarray, np.ndarray]]


def series_names(series: int) -> list[tuple[str, str]]:
    """`series` names such as a transformer's: three instruments over its parameters."""
    instruments = ["grad_norm", "update_norm", "weight_norm"]
    return [(instruments[i % 3], f"blocks.{i // 3}.attention.weight") for i in range(series)]


def figures(steps: int, series: int) -> np.ndarray:
    """(steps, series) noisy decaying curves, rounded to float32 as training computes them."""
    rng = np.random.default_rng(0)
    decay = np.exp(-np.arange(steps)[:, None] / steps * rng.uniform(1, 4, series))
    return (decay * rng.lognormal(0, 0.1, (steps, series))).astype(np.float32)


def write_run(path: Path, values: np.ndarray, flush_every: int = 50) -> dict[str, float]:
    """Record the figures as training would, step by step; seconds per phase and bytes on disk."""
    path.mkdir()
    (path / "run.json").write_text(json.dumps({"schema_version": 1, "kind": "thalweg.run"}))
    writer = MeasurementWriter(path / "measurements", rank=0, segment=0)
    codes = [writer.series(*name) for name in series_names(values.shape[1])]
    append = flush = 0.0
    start = time.perf_counter()
    for step in range(len(values)):
        row = values[step].tolist()
        before = time.perf_counter()
        writer.append(step, step * 0.1, codes, row)
        append += time.perf_counter() - before
        if step % flush_every == flush_every - 1:
            before = time.perf_counter()
            writer.flush()
            flush += time.perf_counter() - before
    before = time.perf_counter()
    writer.close()
    end = time.perf_counter()
    size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    return {
        "append_us_per_call": round(append / len(values) * 1e6, 3),
        "flush_ms_per_5k_rows": round(flush / values.size * 5000 * 1e3, 3),
        "close_s": round(end - before, 3),
        "total_s": round(end - start, 3),
        "bytes": size,
    }


def write_tensorboard(path: Path, values: np.ndarray) -> dict[str, float]:
    """The figures as TensorBoard events, one a scalar; seconds and bytes on disk."""
    from tensorboard.compat.proto.event_pb2 import Event  # pyright: ignore[reportAttributeAccessIssue]
    from tensorboard.summary.writer.record_writer import RecordWriter

    path.mkdir()
    tags = ["/".join(name) for name in series_names(values.shape[1])]
    start = time.perf_counter()
    with (path / "events.out.tfevents.1.benchmark").open("wb") as file:
        writer = RecordWriter(file)
        writer.write(Event(wall_time=0.0, file_version="brain.Event:2").SerializeToString())
        for step, row in enumerate(values.tolist()):
            for tag, value in zip(tags, row, strict=True):
                event = Event(wall_time=step * 0.1, step=step)
                event.summary.value.add(tag=tag, simple_value=value)
                writer.write(event.SerializeToString())
    size = sum(file.stat().st_size for file in path.iterdir())
    return {"total_s": round(time.perf_counter() - start, 3), "bytes": size}


def read_table(path: Path) -> Any:
    """The whole run as one Arrow table."""
    return Run(path).table()


def read_all_series(path: Path) -> Arrays:
    """Every series as arrays, in one pass."""
    return {"/".join(name): found for name, found in Run(path).all_series().items()}


def read_each_series(path: Path) -> Arrays:
    """Every series as arrays, each asked for alone."""
    run = Run(path)
    return {
        f"{instrument}/{part}": run.series(instrument, part)
        for instrument in run.instruments
        for part in run.parts(instrument)
    }


def read_one_series(path: Path) -> Arrays:
    """One series as arrays."""
    name = series_names(20)[7]
    return {"/".join(name): Run(path).series(*name)}


def read_tensorboard(path: Path) -> Arrays:
    """Every series as arrays, by EventAccumulator. It has no way to read less than the file."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    accumulator = EventAccumulator(str(path), size_guidance={"scalars": 0})
    accumulator.Reload()
    found = {}
    for tag in accumulator.Tags()["scalars"]:
        events = accumulator.Scalars(tag)
        found[tag] = (
            np.fromiter((event.step for event in events), np.int64, len(events)),
            np.fromiter((event.value for event in events), np.float64, len(events)),
        )
    return found


def read_tensorboard_events(path: Path) -> int:
    """Only parse the events and throw them away, by EventFileLoader."""
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    return sum(1 for file in path.iterdir() for _ in EventFileLoader(str(file)).Load())


READERS: dict[str, Callable[[Path], Any]] = {
    "table": read_table,
    "all_series": read_all_series,
    "each_series": read_each_series,
    "one_series": read_one_series,
}
PEERS: dict[str, Callable[[Path], Any]] = {
    "tensorboard_event_accumulator": read_tensorboard,
    "tensorboard_event_file_loader": read_tensorboard_events,
}


def timed(read: Callable[[Path], Any], path: Path) -> tuple[float, Any]:
    """Seconds and result of one reading, garbage of the one before collected outside."""
    gc.collect()
    start = time.perf_counter()
    result = read(path)
    return time.perf_counter() - start, result


def measure(folder: Path, steps: int, series: int, blocks: int, *peer_blocks: int) -> dict:
    """Write both stores, warm up, then read in interleaved blocks.

    Args:
        folder: an empty directory.
        steps: of training.
        series: measured at each.
        blocks: readings of the run.
        peer_blocks: readings by each of `PEERS`, which take part in the first blocks.
    """
    values = figures(steps, series)
    sizes = {"steps": steps, "series": series, "rows": steps * series}
    print(f"-- {sizes}", file=sys.stderr)
    wrote = {"thalweg": write_run(folder / "run", values)}
    wrote["tensorboard"] = write_tensorboard(folder / "tb", values)
    for name, read in READERS.items():
        check(name, read(folder / "run"), values)
    seconds: dict[str, list[float]] = {name: [] for name in [*READERS, *PEERS]}
    for block in range(blocks):
        for name, read in READERS.items():
            spent, _ = timed(read, folder / "run")
            seconds[name].append(spent)
        for (name, read), count in zip(PEERS.items(), peer_blocks, strict=True):
            if block >= count:
                continue
            spent, result = timed(read, folder / "tb")
            seconds[name].append(spent)
            check(name, result, values)
            del result
        last = {name: round(spent[-1], 3) for name, spent in seconds.items() if spent}
        print(f"   up to block {block}: {last}", file=sys.stderr)
    medians = {name: statistics.median(spent) for name, spent in seconds.items() if spent}
    peer = seconds["tensorboard_event_accumulator"]
    ratios = {
        name: statistics.median(b / a for a, b in zip(seconds[name], peer, strict=False))
        for name in READERS
    }
    return {
        **sizes,
        "write": wrote,
        "read_s_median": {name: round(s, 4) for name, s in medians.items()},
        "read_s_blocks": {name: [round(s, 4) for s in spent] for name, spent in seconds.items()},
        "times_faster_than_event_accumulator": {k: round(r, 1) for k, r in ratios.items()},
    }


def check(name: str, result: Any, values: np.ndarray) -> None:
    """Stop if a reader did not return the figures that were written."""
    steps, series = values.shape
    if isinstance(result, int):  # events, the version header included
        assert result == steps * series + 1, (name, result)
    elif isinstance(result, dict):
        for i, key in enumerate(map("/".join, series_names(series))):
            if key in result:
                assert np.array_equal(result[key][0], np.arange(steps)), (name, key)
                assert np.array_equal(result[key][1], values[:, i]), (name, key)
        assert len(result) in (1, series), (name, len(result))
    else:
        assert np.array_equal(result["value"].to_numpy(), values.ravel()), name


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Measure, print and (unless quick) write ``benchmarks/results/read_run.json``."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.read_run", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small sizes, no file written")
    quick = parser.parse_args(argv).quick
    # Steps, series, blocks, and in how many of them each peer takes part.
    plans = [(1000, 20, 3, 1, 1)] if quick else [(100_000, 20, 3, 3, 1), (100_000, 200, 3, 1, 0)]
    measured = []
    for plan in plans:
        with tempfile.TemporaryDirectory() as folder:
            measured.append(measure(Path(folder), *plan))
    report = {
        "command": "python -m benchmarks.read_run",
        **facts("numpy", "pyarrow", "tensorboard", "protobuf"),
        "notes": [
            "Files are in the page cache for both. Every reading starts from a fresh object.",
            "Blocks are interleaved after a warm-up of the run's readers; ratios are medians of "
            "paired blocks. At the full size TensorBoard is read once and paired with block 0.",
            "TensorBoard reads the whole event file even for one series.",
        ],
        "measurements": measured,
    }
    text = json.dumps(report, indent=2)
    if not quick:
        RESULT.parent.mkdir(exist_ok=True)
        RESULT.write_text(text + "\n")
    print(text)
    return report


if __name__ == "__main__":
    main()
