"""Weight trajectories as a tall matrix of changes that is read in stretches, never whole.

Row t of M holds θ_t − θ_0. With T checkpoints of d weights, T ≪ d, all the geometry of a path lies
in its Gram matrix G = M Mᵀ, (T, T): it is summed in float64 over blocks of columns in one pass over
the files. Directions in weight space are mixtures of rows, so that what is predicted or projected
is written in a second pass and no direction is ever held.

Source: the streamed Gram matrix is folklore (method of snapshots, Sirovich 1987); as used by RELEX,
Wei et al. 2026, arXiv 2605.21468. Axes: `T` checkpoints, `d` entries of a tensor.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from thalweg.errors import ThalwegError
from thalweg.trajectory.checkpoint import (
    Checkpoint,
    TensorInfo,
    find_checkpoints,
    open_checkpoint,
    write_checkpoint,
)

__all__ = ["DeltaStore", "MissingTensor"]

State = Mapping[str, Any]
#: Buffers that are measured, not trained: copied from the last checkpoint, never extrapolated.
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
BLOCK = 1 << 17  # columns: 1 MB of float64 a row, few enough that a block stays near the core


class MissingTensor(ThalwegError, KeyError):
    """A checkpoint lacks a tensor that is followed."""

    __str__ = RuntimeError.__str__  # KeyError's shows the message in quotes


class DeltaStore:
    """A sequence of checkpoints, as changes from a base.

    Args:
        path: a folder of checkpoints (of a ``DeltaStore``, of a run, of Hugging Face checkpoints:
            see ``find_checkpoints``); a mapping step → state dict or path; a sequence of state
            dicts (steps 0, 1, …); or a ``thalweg.Run``. A folder that does not exist or is empty
            is made by the first ``append``.
        base: θ_0: a state dict, a path, or a step of ``path``; default: the first checkpoint.
        names: tensors to follow; default: all floating ones but running statistics. Those must be
            the same in every checkpoint.
        max_bytes: memory that one block of rows may take.

    Attributes:
        steps: of the rows, ascending; without that of the base.
        base_step: step of the base; 0 where it is not known.
        tensors: name → shape and dtype of what is followed; a tied tensor under its first name.
        copied: name → shape and dtype of the other tensors: integers, running statistics.
        aliases: further names of tied tensors → their first names.

    Raises:
        ThalwegError: for files that cannot be read.
        MissingTensor: (a KeyError) if a checkpoint lacks a tensor; it names tensor and step.
        ValueError: if a tensor changes its shape, or steps repeat.

    Example:
        >>> import torch
        >>> path = {t: {"w": torch.tensor([t, 2.0 * t])} for t in range(4)}
        >>> store = DeltaStore(path)
        >>> store.steps, store.gram()["w"][0]
        ([1, 2, 3], tensor([ 5., 10., 15.], dtype=torch.float64))
    """

    def __init__(
        self,
        path: str | Path | Mapping[int, Any] | Sequence[State] | Any,
        base: State | str | Path | int | None = None,
        *,
        names: Sequence[str] | None = None,
        max_bytes: int = 256 << 20,
    ) -> None:
        self._folder, found = _sources(path)
        self._wanted, self._max_bytes = names, max_bytes
        self._base: Checkpoint | None = None
        self._rows: list[Checkpoint] = []
        self._scratch = torch.empty(0, dtype=torch.uint8)
        self._grams: dict[str, Tensor] = {}
        self.base_step, self.steps = 0, list[int]()
        self.tensors, self.copied = dict[str, TensorInfo](), dict[str, TensorInfo]()
        self.aliases: dict[str, str] = {}
        if isinstance(base, int):
            if base not in found:
                raise ValueError(
                    f"DeltaStore: no checkpoint of the base step {base}: {_some(found)}"
                )
            found = {step: s for step, s in found.items() if step >= base}
            base = None
        if base is not None:
            self._set_base(open_checkpoint(base), 0)
        for step in sorted(found):
            self._take(step, open_checkpoint(found[step]))

    def append(self, step: int, state_dict: State) -> None:
        """Adds a checkpoint at the end; the first one becomes the base if none was given.

        In a folder it is written whole or not at all; else a copy is kept in memory.

        Args:
            step: after the last.
            state_dict: of the weights.

        Raises:
            ValueError: if the step is not after the last, or the store reads a run.
            MissingTensor, ValueError: as for the constructor.
        """
        last = self.steps[-1] if self.steps else self.base_step
        if self._base is not None and step <= last:
            raise ValueError(f"DeltaStore: step {step} is not after the last one, {last}")
        new = open_checkpoint(state_dict)
        if self._base is not None:
            self._check(step, new)
        if self._folder is None:
            held = {
                n: new.read(n, 0, i.numel).clone().view(i.shape) for n, i in new.tensors.items()
            }
            self._take(step, open_checkpoint(held))
            return
        if (self._folder / "run.json").is_file():
            raise ValueError(f"DeltaStore: {self._folder} is a run; only its recording adds to it")
        if self._base is not None and not self._folder.exists():
            self._write(self.base_step, self._base)
        self._take(step, open_checkpoint(self._write(step, new)))

    def rows(
        self,
        name: str,
        cols: slice = slice(None),
        *,
        rows: Sequence[int] | None = None,
        dtype: torch.dtype = torch.float64,
    ) -> Tensor:
        """Changes of one tensor, (T, c).

        Args:
            name: of ``tensors``.
            cols: which of its flattened entries; step 1.
            rows: which, by position; default: all T.
            dtype: of the result; differences of float32 weights are formed in float32, all others
                in float64.

        Raises:
            MissingTensor: for a name that is not followed.
        """
        if name not in self.tensors:
            raise MissingTensor(f"DeltaStore: no tensor {name!r}; there are {_some(self.tensors)}")
        start, stop, stride = cols.indices(self.tensors[name].numel)
        if stride != 1:
            raise ValueError("DeltaStore: cols must be a contiguous slice")
        rows = range(len(self.steps)) if rows is None else rows
        out = torch.empty(len(rows), max(stop - start, 0), dtype=torch.float64)
        return self._fill(out, name, start, stop, rows).to(dtype)

    def blocks(
        self,
        names: Sequence[str] | None = None,
        *,
        rows: Sequence[int] | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> Iterator[tuple[str, int, Tensor]]:
        """Goes through all changes once, a block of columns at a time.

        Args:
            names: of tensors; default: all.
            rows: which, by position; default: all T.
            progress: told entries done and entries in all, after each block.

        Yields:
            Name, first column, (len(rows), c) float64; the buffer is used again for the next.
        """
        rows = range(len(self.steps)) if rows is None else rows
        names = list(self.tensors) if names is None else names
        width = max(256, min(BLOCK, self._max_bytes // (8 * max(len(rows), 1))))
        buffer = torch.empty(len(rows) * width, dtype=torch.float64)
        done, total = 0, sum(self.tensors[name].numel for name in names)
        for name in names:
            numel = self.tensors[name].numel
            for start in range(0, numel, width):
                stop = min(start + width, numel)
                out = buffer[: len(rows) * (stop - start)].view(len(rows), stop - start)
                yield name, start, self._fill(out, name, start, stop, rows)
                done += stop - start
                if progress:
                    progress(done, total)

    def gram(self, *, progress: Callable[[int, int], None] | None = None) -> dict[str, Tensor]:
        """Inner products of the changes of each tensor, name → (T, T) float64.

        Computed in one pass, and kept: after ``append`` only the new rows are multiplied.

        Args:
            progress: as for ``blocks``.

        Raises:
            ValueError: if weights are not finite; it names tensor and step.

        Cost: one read of the files, T² d multiplications.
        """
        T = len(self.steps)
        known = next(iter(self._grams.values())).shape[0] if self._grams else 0
        if known == T and self._grams:
            return dict(self._grams)
        grams = {name: torch.zeros(T, T, dtype=torch.float64) for name in self.tensors}
        for name, _, block in self.blocks(progress=progress):
            # The lower rows only: the rest is known or their transpose.
            grams[name][known:].addmm_(block[known:], block.T)
        for name, G in grams.items():
            if known:
                G[:known, :known] = self._grams[name]
            G[:known, known:] = G[known:, :known].T
            if not bool(torch.isfinite(G.diagonal()).all()):
                bad = int((~torch.isfinite(G.diagonal())).nonzero()[0])
                raise ValueError(
                    f"DeltaStore: tensor {name!r} is not finite at step {self.steps[bad]}, "
                    "or not in the base"
                )
        self._grams = grams
        return dict(grams)

    def mixture(
        self,
        weights: Mapping[str, Tensor],
        *,
        progress: Callable[[int, int], None] | None = None,
    ) -> Iterator[tuple[str, Tensor]]:
        """The weights θ_0 + Σ_t w_t (θ_t − θ_0), tensor by tensor, in stretches.

        Args:
            weights: name → (T,) of every followed tensor; rows of weight 0 are not read.
            progress: as for ``blocks``.

        Yields:
            Name and a 1-D float64 stretch, those of ``tensors`` in order; tied names do not come
            again.
        """
        assert self._base is not None
        used = [t for t in range(len(self.steps)) if any(bool(w[t] != 0) for w in weights.values())]
        mix = {name: w[used].double() for name, w in weights.items()}
        for name, start, block in self.blocks(rows=used, progress=progress):
            origin = self._base.read(name, start, start + block.shape[1], self._bytes(block))
            yield name, origin.double() + mix[name] @ block

    def copies(self) -> Iterator[tuple[str, Tensor]]:
        """The tensors that are only copied, from the last checkpoint, 1-D as stored."""
        last = self._rows[-1] if self._rows else self._base
        assert last is not None
        for name, info in self.copied.items():
            yield name, last.read(name, 0, info.numel).clone()

    def __repr__(self) -> str:
        entries = sum(info.numel for info in self.tensors.values())
        return f"DeltaStore(steps={_some(self.steps)}, tensors={len(self.tensors)}, d={entries:,})"

    def _take(self, step: int, new: Checkpoint) -> None:
        """A checkpoint that has been opened becomes the base or a row."""
        if self._base is None:
            self._set_base(new, step)
            return
        self._check(step, new)
        if step == self.base_step:
            return
        bisect.insort(self.steps, step)
        self._rows.append(new)

    def _set_base(self, base: Checkpoint, step: int) -> None:
        self._base, self.base_step, self.aliases = base, step, dict(base.aliases)
        for name in self._wanted or ():
            if name not in base.tensors:
                raise MissingTensor(
                    f"DeltaStore: the base has no tensor {name!r}: {_some(base.tensors)}"
                )
        for name, info in base.tensors.items():
            followed = info.dtype.is_floating_point and not name.endswith(STATISTICS)
            if self._wanted is not None:
                followed = name in self._wanted
            (self.tensors if followed else self.copied)[name] = info
        if not self.tensors:
            raise ValueError("DeltaStore: the base holds no floating tensor to follow")

    def _check(self, step: int, new: Checkpoint) -> None:
        """The followed tensors are there, and no others."""
        for name, info in self.tensors.items():
            got = new.tensors.get(new.aliases.get(name, name))
            if got is None:
                raise MissingTensor(f"DeltaStore: step {step} lacks tensor {name!r}")
            if got.shape != info.shape:
                raise ValueError(
                    f"DeltaStore: tensor {name!r} has shape {got.shape} at step {step}, but "
                    f"{info.shape} in the base"
                )
        known = {**self.tensors, **self.copied, **self.aliases}
        extra = [name for name in new.tensors if name not in known]
        if extra and self._wanted is None:
            raise ValueError(
                f"DeltaStore: step {step} has a tensor {extra[0]!r} that the base lacks; "
                "give names= to follow only those in common"
            )

    def _fill(self, out: Tensor, name: str, start: int, stop: int, rows: Sequence[int]) -> Tensor:
        """The differences of a stretch, into ``out``."""
        assert self._base is not None
        origin = self._base.read(name, start, stop, self._bytes(out)).clone()
        for at, t in enumerate(rows):
            row = self._rows[t]
            values = row.read(row.aliases.get(name, name), start, stop, self._scratch)
            if values.dtype == origin.dtype == torch.float32:
                torch.sub(values, origin, out=out[at])  # one pass instead of two
            else:
                torch.sub(out[at].copy_(values), origin, out=out[at])
        return out

    def _bytes(self, block: Tensor) -> Tensor:
        """Room for a row of the block as stored, used again and again."""
        if self._scratch.numel() < 8 * block.shape[-1]:
            self._scratch = torch.empty(8 * block.shape[-1], dtype=torch.uint8)
        return self._scratch

    def _write(self, step: int, checkpoint: Checkpoint) -> Path:
        assert self._folder is not None
        tensors = checkpoint.tensors
        blocks = ((n, checkpoint.read(n, 0, info.numel)) for n, info in tensors.items())
        path = self._folder / f"step-{step:09d}.safetensors"
        return write_checkpoint(path, tensors, blocks, metadata={"step": str(step)})


def _sources(path: Any) -> tuple[Path | None, dict[int, Any]]:
    """The folder, if it is one, and step → what can be opened."""
    if isinstance(path, str | Path):
        folder = Path(path)
        empty = not folder.exists() or (folder.is_dir() and not any(folder.iterdir()))
        return folder, {} if empty else dict(find_checkpoints(folder))
    if isinstance(path, Mapping):
        wrong = [step for step in path if not isinstance(step, int)]
        if wrong:
            raise ValueError(
                f"DeltaStore: expected a mapping step → state dict or path; got a key {wrong[0]!r}"
            )
        return None, dict(path)
    if hasattr(path, "weights"):  # a Run, which lives on a floor above
        snapshots = path.weights()
        return None, {step: snapshots.path(step) for step in snapshots}
    if isinstance(path, Sequence):
        return None, dict(enumerate(path))
    raise ValueError(
        "DeltaStore: expected a folder, a mapping step → state dict or path, a sequence of state "
        f"dicts, or a Run; got {type(path).__name__}"
    )


def _some(known: Any) -> str:
    names = [str(name) for name in known]
    return ", ".join(names if len(names) < 8 else [*names[:3], "…", *names[-3:]]) or "none"
