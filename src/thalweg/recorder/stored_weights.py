"""Reading back what a run keeps of the weights: snapshots, whole and lazy, and sketches.

A snapshot is a safetensors file of every parameter; a sketch is a short random projection of one
parameter group's weight vector, taken far more often. Neither is read before it is asked for.
Axes: `T` times, `m` numbers in a sketch.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from thalweg.errors import ThalwegError
from thalweg.recorder.tables import read_stream

if TYPE_CHECKING:
    import torch

__all__ = ["SKETCHES", "Sketches", "Snapshots", "read_sketches"]

#: The stream of sketches; a sketch is ``scale * values``.
SKETCHES = pa.schema(
    [
        ("step", pa.int64()),
        ("time_s", pa.float64()),
        ("part", pa.string()),
        ("seed", pa.int64()),
        ("dim", pa.int64()),
        ("scale", pa.float32()),
        ("values", pa.list_(pa.float16())),
    ]
)
SNAPSHOT_NAME = re.compile(r"step-(\d+)-r(\d+)-s(\d+)\.safetensors")
SKETCHES_NAME = re.compile(r"sketches-r(\d+)-s(\d+)\.arrows")


class Snapshots(Mapping[int, "dict[str, torch.Tensor]"]):
    """Step → weights by parameter name, read from disk when a step is asked for.

    Where several segments kept a step, the newest one's is given.

    Args:
        directory: the ``weights`` directory of a run.
        rank: whose weights.
    """

    def __init__(self, directory: Path, *, rank: int = 0) -> None:
        self.rank = rank
        newest: dict[int, tuple[int, Path]] = {}
        for path in directory.iterdir() if directory.is_dir() else []:
            if match := SNAPSHOT_NAME.fullmatch(path.name):
                step, owner, segment = map(int, match.groups())
                if owner == rank and segment >= newest.get(step, (-1,))[0]:
                    newest[step] = (segment, path)
        self._paths = {step: newest[step][1] for step in sorted(newest)}

    def __getitem__(self, step: int) -> dict[str, torch.Tensor]:
        path = self.path(step)
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, framework="pt") as file:
                return {name: file.get_tensor(name) for name in file.keys()}
        except (SafetensorError, OSError, ValueError) as error:
            raise ThalwegError(
                f"{path}: expected a safetensors snapshot; got {error}. "
                f"Use another of the steps {_some(self._paths)}, or see `thalweg check`."
            ) from None

    def __iter__(self) -> Iterator[int]:
        return iter(self._paths)

    def __len__(self) -> int:
        return len(self._paths)

    def __contains__(self, step: object) -> bool:
        return step in self._paths

    def __repr__(self) -> str:
        return f"Snapshots(rank={self.rank}, steps={_some(self._paths)})"

    def path(self, step: int) -> Path:
        """The file that holds a step.

        Raises:
            KeyError: if there is no snapshot of that step.
        """
        if step not in self._paths:
            raise KeyError(f"no snapshot of step {step}; there are {_some(self._paths)}")
        return self._paths[step]


@dataclass(frozen=True)
class Sketches:
    """The sketches of one parameter group of a run.

    Attributes:
        steps: (T,) int64, ascending.
        values: (T, m) float32, the projected weights.
        dim: number of weights that were projected.
        seed: of the projection.
    """

    steps: np.ndarray
    values: np.ndarray
    dim: int
    seed: int


def read_sketches(directory: Path, *, rank: int = 0) -> tuple[dict[str, Sketches], dict[str, str]]:
    """The sketches of one rank by part, and what was dropped by file name.

    Sketches compare only under one projection: if a later segment sketched with another seed or
    another number of weights, the newest projection's are given, and a note says so.

    Args:
        directory: the ``weights`` directory of a run.
        rank: whose weights.
    """
    rows: dict[str, list[tuple[int, int, int, int, np.ndarray]]] = {}
    notes: dict[str, str] = {}
    for segment, path in list_sketches(directory, rank):
        table, why = read_stream(path, SKETCHES)
        if why:
            notes[path.name] = why
        for batch in table.to_batches():
            values = batch["values"]
            numbers = values.values.to_numpy(zero_copy_only=False)
            ends = values.offsets.to_numpy()
            scales = batch["scale"].to_numpy(zero_copy_only=False)
            for i, (step, part, seed, dim) in enumerate(
                zip(*(batch[c].to_pylist() for c in ("step", "part", "seed", "dim")), strict=True)
            ):
                sketch = numbers[ends[i] : ends[i + 1]].astype(np.float32) * scales[i]
                rows.setdefault(part, []).append((step, segment, seed, dim, sketch))
    found = {}
    for part, sketches in rows.items():
        *_, seed, dim, last = sketches[-1]
        alike = {r[0]: r[4] for r in sketches if (r[2], r[3], len(r[4])) == (seed, dim, len(last))}
        other = sum((r[2], r[3], len(r[4])) != (seed, dim, len(last)) for r in sketches)
        if other:
            notes[f"sketches of {part!r}"] = f"{other} of another projection left out"
        steps = sorted(alike)
        found[part] = Sketches(
            np.array(steps, np.int64), np.stack([alike[step] for step in steps]), dim, seed
        )
    return found, notes


def list_sketches(directory: Path, rank: int) -> list[tuple[int, Path]]:
    """The sketch files of one rank as (segment, path), oldest first."""
    found = []
    for path in directory.iterdir() if directory.is_dir() else []:
        match = SKETCHES_NAME.fullmatch(path.name)
        if match and int(match[1]) == rank:
            found.append((int(match[2]), path))
    return sorted(found)


def _some(steps: Mapping[int, object]) -> str:
    known = [str(step) for step in steps]
    return ", ".join(known if len(known) < 8 else [*known[:3], "…", *known[-3:]]) or "none"
