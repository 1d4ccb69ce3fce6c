"""Two checkpoints side by side, a tensor at a time: what is not looked at is not in memory.

Source: the traps it guards against are those of H. Zhu et al. 2025, arXiv 2511.08567.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from thalweg.errors import ThalwegError
from thalweg.trajectory.checkpoint import Checkpoint, TensorInfo, open_checkpoint
from thalweg.trajectory.module_kinds import layer_of, parts_of, plain_name

__all__ = ["CheckpointPair", "Source", "WeightPair"]

Source = Checkpoint | Mapping[str, object] | str | Path


@dataclass(frozen=True)
class WeightPair:
    """One tensor of two checkpoints, or the part of a fused one.

    Attributes:
        name: in the base, with ``[q]`` and so on for parts.
        kind: of module.
        layer: number of the layer, or None.
        base: as stored.
        tuned: as stored, the same shape.
    """

    name: str
    kind: str
    layer: int | None
    base: Tensor
    tuned: Tensor

    @property
    def matrix(self) -> tuple[Tensor, Tensor] | None:
        """Both as matrices; a convolution's kernels as (out, in·height·width); None for others."""
        if self.base.ndim not in (2, 4) or min(self.base.flatten(1).shape) < 2:
            return None
        return self.base.flatten(1), self.tuned.flatten(1)


class CheckpointPair:
    """The tensors that two checkpoints have in common, read one by one.

    Args:
        base: what ``open_checkpoint`` takes.
        tuned: the same.
        strict: refuse tensors that one of them lacks or that have another shape; otherwise they are
            listed.

    Attributes:
        skipped: name → why it is not compared.
        numel: entries that are compared.

    Raises:
        ThalwegError: if one cannot be read, they differ and ``strict``, or share no weights.
    """

    def __init__(self, base: Source, tuned: Source, *, strict: bool = True) -> None:
        self._base, self._tuned = open_checkpoint(base), open_checkpoint(tuned)
        self.skipped: dict[str, str] = {}
        before, after = _by_plain_name(self._base), _by_plain_name(self._tuned)
        self._pairs: list[tuple[str, str, str]] = []
        self.numel = 0
        seen: set[tuple[str, str]] = set()
        for name in [*before, *(n for n in after if n not in before)]:
            if why := _why_not(before.get(name), after.get(name)):
                self.skipped[name] = why[1]
                if strict and why[0]:
                    raise ThalwegError(
                        f"checkpoints of one architecture are expected, but {name!r} is {why[1]}; "
                        "strict=False (--skip-mismatched) compares the others"
                    )
                continue
            (a, info), (b, _) = before[name], after[name]
            if (a, b) in seen:
                self.skipped[name] = f"the same tensor as {plain_name(a)!r}"
                continue
            seen.add((a, b))
            self._pairs.append((name, a, b))
            self.numel += info.numel
        if not self._pairs:
            raise ThalwegError(
                "the two checkpoints share no floating tensor: names like "
                f"{list(before)[:2]} and {list(after)[:2]}"
            )

    def __len__(self) -> int:
        return len(self._pairs)

    def read(self) -> Iterator[list[WeightPair]]:
        """Tensor by tensor, its parts.

        Raises:
            ThalwegError: if a weight is not finite; the message names the tensor.
        """
        for name, a, b in self._pairs:
            base, tuned = _whole(self._base, a), _whole(self._tuned, b)
            for which, W in (("base", base), ("tuned", tuned)):
                if not bool(torch.isfinite(W).all()):
                    raise ThalwegError(
                        f"tensor {name!r} of the {which} checkpoint has entries that are not "
                        "finite; compare the last checkpoint before it broke"
                    )
            before, after = parts_of(name, base), parts_of(name, tuned)
            yield [
                WeightPair(
                    name if len(before) == 1 else f"{name}[{kind}]",
                    kind,
                    layer_of(name),
                    part,
                    after[kind],
                )
                for kind, part in before.items()
            ]


def _by_plain_name(checkpoint: Checkpoint) -> dict[str, tuple[str, TensorInfo]]:
    found = {plain_name(n): (n, info) for n, info in checkpoint.tensors.items()}
    for name, first in checkpoint.aliases.items():
        found[plain_name(name)] = (first, checkpoint.tensors[first])
    return found


def _why_not(before: Any, after: Any) -> tuple[bool, str] | None:
    """Whether the checkpoints disagree, and what is said of the tensor; None if it is compared."""
    if before is None or after is None:
        return True, "in the tuned checkpoint only" if before is None else "in the base only"
    (_, old), (_, new) = before, after
    if not (old.dtype.is_floating_point and new.dtype.is_floating_point):
        return False, f"{str(old.dtype).removeprefix('torch.')}, not floating"
    if old.shape != new.shape:
        return True, f"of shape {old.shape} in the base and {new.shape} in the tuned checkpoint"
    return (False, "empty") if not old.numel else None


def _whole(checkpoint: Checkpoint, name: str) -> Tensor:
    info = checkpoint.tensors[name]
    flat = checkpoint.read(name, 0, info.numel)
    if info.dtype.itemsize == 1:
        flat = flat.float()  # eight-bit numbers have no arithmetic
    return flat.reshape(info.shape)
