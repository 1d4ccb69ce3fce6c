"""Snapshots and sketches of the weights: where the training was, at growing intervals.

Snapshots are whole (safetensors); their schedule is geometric (0, 1, 2, 4, … 1024), then regular,
under a cap on their size: when it is reached, every other one is deleted and the interval doubles,
so a run keeps an evenly thinned history however long it trains. Sketches of θ − θ₀ are small, come
every few steps, and keep all inner products of the trajectory up to noise.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from safetensors.torch import save_file
from torch import Tensor

from thalweg.numerics import BlockSketch
from thalweg.recorder.stored_weights import SKETCHES

__all__ = ["SketchWriter", "SnapshotSchedule", "SnapshotWriter"]

REGULAR = 1024  # steps: up to here the schedule doubles, from here on it is regular
SKETCHES_PER_OCTAVE = 256  # sketches before their interval doubles


class SnapshotSchedule:
    """Steps at which a snapshot is due: 1, 2, 4, … 1024, then every ``interval`` steps.

    Args:
        start: the step at which this segment began.
    """

    def __init__(self, start: int = 0) -> None:
        self.interval = REGULAR
        self.next = start + 1
        self._start = start

    def passed(self, step: int) -> None:
        """Moves on after a snapshot at ``step``; missed ones are not caught up."""
        while self.next <= step:
            age = self.next - self._start
            self.next = self._start + (2 * age if age < REGULAR else age + self.interval)

    def thin(self) -> None:
        """Doubles the interval from here on."""
        self.interval *= 2


class SnapshotWriter:
    """Writes snapshots of one rank under a cap on their size.

    Args:
        run: the run directory.
        rank: whose.
        segment: of the run.
        cap_bytes: what all snapshots of this rank and segment may take together.
    """

    def __init__(self, run: Path, *, rank: int, segment: int, cap_bytes: int) -> None:
        self._folder = run / "weights"
        self._suffix = f"-r{rank}-s{segment}.safetensors"
        self._cap = cap_bytes
        self._sizes: dict[int, int] = {}

    def write(self, step: int, tensors: Mapping[str, Tensor], schedule: SnapshotSchedule) -> None:
        """Writes one snapshot; thins the earlier ones if the cap would be passed.

        Args:
            step: of the training.
            tensors: by name; copies are made of what shares memory or is not contiguous.
            schedule: slowed down when snapshots are thinned.

        Raises:
            OSError: if the disk refuses; nothing is left half written.
        """
        if step in self._sizes:
            return
        size = sum(t.numel() * t.element_size() for t in tensors.values())
        if size > self._cap and self._sizes:
            return
        while self._sizes and sum(self._sizes.values()) + size > self._cap:
            kept = sorted(self._sizes)
            # The first one stays: it is the start of every trajectory.
            doomed = kept[1::2] or kept[:1]
            for old in doomed:
                (self._folder / self._name(old)).unlink(missing_ok=True)
                del self._sizes[old]
            schedule.thin()
        self._folder.mkdir(exist_ok=True)
        path = self._folder / self._name(step)
        temporary = path.with_suffix(".tmp")
        try:
            save_file(_separate(tensors), temporary, metadata={"step": str(step)})
            os.replace(temporary, path)  # noqa: PTH105 - the mate of save_file, which takes a path
        except Exception as error:
            temporary.unlink(missing_ok=True)
            # safetensors reports a full disk as its own error type.
            raise error if isinstance(error, OSError) else OSError(str(error)) from error
        self._sizes[step] = size

    @property
    def latest(self) -> int | None:
        """Step of the newest snapshot of this segment."""
        return max(self._sizes, default=None)

    def _name(self, step: int) -> str:
        return f"step-{step:09d}{self._suffix}"


def _separate(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Local, contiguous, dense copies on the host; a tied tensor is kept under its first name."""
    seen: set[tuple[int, int, tuple[int, ...]]] = set()
    out: dict[str, Tensor] = {}
    for name, t in tensors.items():
        t = t.detach()
        if hasattr(t, "to_local"):
            t = t.to_local()  # pyright: ignore[reportCallIssue, reportAttributeAccessIssue]
        key = (t.data_ptr(), t.numel(), tuple(t.stride()))
        if t.numel() and key in seen:
            continue
        seen.add(key)
        host = t.to("cpu")
        whole = host.untyped_storage().nbytes() == host.numel() * host.element_size()
        out[name] = host if host.is_contiguous() and whole else host.contiguous().clone()
    return out


class SketchWriter:
    """Writes sketches of θ − θ₀, one per param group, in a stream that survives a kill.

    Args:
        run: the run directory.
        rank: whose.
        segment: of the run.
        seed: of the sketch; the same for all steps of a run.
        dim: numbers per sketch.

    Attributes:
        next: the step from which on one is due.
    """

    def __init__(
        self, run: Path, *, rank: int, segment: int, seed: int = 0, dim: int = 16_384
    ) -> None:
        self._path = run / "weights" / f"sketches-r{rank}-s{segment}.arrows"
        self._sketch = BlockSketch(seed, dim)
        self._origin: dict[str, Tensor] = {}
        self._sink: pa.OSFile | None = None
        self._stream: pa.RecordBatchStreamWriter | None = None
        self.interval = 1
        self.next = 0
        self._written = 0

    def start(self, part: str, params: Sequence[Tensor]) -> None:
        """Takes θ₀ of a param group."""
        self._origin[part] = self._sketch(params)

    def write(self, step: int, time_s: float, groups: Mapping[str, Sequence[Tensor]]) -> None:
        """Writes the sketch of each group that has been started.

        The sketch is linear, so S(θ) − S(θ₀) needs no copy of θ₀. Values are stored as float16
        with a common scale: its rounding (5e-4) is far below the noise of the sketch.

        Raises:
            OSError: if the disk refuses.
        """
        rows = []
        for part, params in groups.items():
            origin = self._origin.get(part)
            if origin is None:
                continue
            moved = (self._sketch(params) - origin).to("cpu", torch.float32).numpy()
            largest = float(np.abs(moved).max(initial=0.0))
            scale = largest if 0 < largest < np.inf else 1.0
            dim = sum(p.numel() for p in params)
            rows.append((step, time_s, part, self._sketch.seed, dim, scale, moved / scale))
        if not rows:
            return
        if self._stream is None:
            self._path.parent.mkdir(exist_ok=True)
            self._sink = pa.OSFile(str(self._path), "wb")
            self._stream = pa.ipc.new_stream(self._sink, SKETCHES)
        columns = list(zip(*rows, strict=True))
        values = pa.array([v.astype(np.float16) for v in columns[-1]], pa.list_(pa.float16()))
        arrays = [pa.array(c, f.type) for c, f in zip(columns[:-1], SKETCHES, strict=False)]
        self._stream.write_batch(pa.record_batch([*arrays, values], schema=SKETCHES))
        assert self._sink is not None
        self._sink.flush()
        self._written += 1
        if self._written % SKETCHES_PER_OCTAVE == 0:
            self.interval *= 2
        self.next = step + self.interval

    def close(self) -> None:
        """Ends the stream."""
        if self._stream is not None and self._sink is not None:
            self._stream.close()
            self._sink.close()
            self._stream = None
