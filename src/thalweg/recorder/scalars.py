"""Carries measured scalars from the device to the store, one transfer per record.

On the CPU values are read at once. On an accelerator a copy into pinned memory is queued and read
when it has arrived, so that recording never waits for the device.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from thalweg.recorder.store import Store

__all__ = ["Scalars"]

MOST_WAITING = 64  # per-step losses kept on the device before they are sent


class Scalars:
    """Scalars on their way.

    Args:
        store: takes the rows.

    Attributes:
        heard: is told of every loss and of the gradient norm of the whole as they reach the host:
            step, series, value, and whether it is a loss.
    """

    def __init__(self, store: Store) -> None:
        self.heard: Callable[[int, int, float, bool], None] | None = None
        self._store = store
        self._waiting: list[tuple[int, float, list[int], Tensor]] = []
        self._travelling: list[tuple[Any, Tensor, Callable[[list[float]], None]]] = []

    def add_one(self, step: int, time_s: float, codes: list[int], value: Tensor) -> None:
        """A single figure of a step, such as its loss; ``codes`` holds its one series."""
        if value.is_cpu:
            number = value.item()
            self._store.rows(step, codes, [number], time_s)
            if self.heard is not None:
                self.heard(step, codes[0], number, True)
        else:
            self._waiting.append((step, time_s, codes, value.reshape(())))

    def add_many(
        self, step: int, time_s: float, codes: Sequence[int], values: Sequence[Tensor]
    ) -> None:
        """Several 0-d figures of one step."""
        by_device: dict[torch.device, list[int]] = {}
        for i, v in enumerate(values):
            by_device.setdefault(v.device, []).append(i)
        for indices in by_device.values():
            vector = torch.stack([values[i].float() for i in indices])
            chosen = [codes[i] for i in indices]
            self._send(vector, lambda v, c=chosen: self._store.rows(step, c, v, time_s))

    def add_record(
        self,
        step: int,
        time_s: float,
        blocks: Mapping[str, Tensor],
        codes: Mapping[str, Sequence[int]],
    ) -> None:
        """Norms per tensor; the norm of the whole is added on arrival.

        Args:
            step: of the training.
            time_s: since the start.
            blocks: instrument to norm of each tensor, (n,); ``weights before`` serves the ratio.
            codes: instrument to the series of the whole and of each tensor, (1 + n).
        """
        if not blocks:
            return
        names, vectors = list(blocks), list(blocks.values())
        device = vectors[0].device
        double = any(v.dtype == torch.float64 for v in vectors)
        dtype = torch.float64 if double else torch.float32
        packed = torch.cat([v.to(device, dtype) for v in vectors])
        sizes = [v.numel() for v in vectors]

        def arrive(values: list[float]) -> None:
            each: dict[str, list[float]] = {}
            start = 0
            for name, size in zip(names, sizes, strict=True):
                block = values[start : start + size]
                each[name] = [math.sqrt(sum(v * v for v in block)), *block]
                start += size
            before = each.pop("weights before", None)
            if before is not None:
                moved = each["update_norm"]
                each["update_ratio"] = [_ratio(m, b) for m, b in zip(moved, before, strict=True)]
            wanted = [n for n in each if n in codes]
            self._store.rows(
                step, [c for n in wanted for c in codes[n]], [v for n in wanted for v in each[n]],
                time_s,
            )  # fmt: skip
            if self.heard is not None and "grad_norm" in wanted:
                self.heard(step, codes["grad_norm"][0], each["grad_norm"][0], False)

        self._send(packed, arrive)

    @property
    def waiting(self) -> bool:
        """Whether anything has not been delivered."""
        return bool(self._waiting or self._travelling)

    def drain(self, everything: bool = False) -> None:
        """Delivers what has arrived.

        Args:
            everything: waits for what has not.
        """
        if self._waiting and (everything or len(self._waiting) >= MOST_WAITING):
            waiting, self._waiting = self._waiting, []
            by_device: dict[torch.device, list[tuple[int, float, list[int], Tensor]]] = {}
            for row in waiting:
                by_device.setdefault(row[3].device, []).append(row)
            for rows in by_device.values():

                def arrive(values: list[float], rows: Any = rows) -> None:
                    for (step, time_s, codes, _), value in zip(rows, values, strict=True):
                        self._store.rows(step, codes, [value], time_s)
                        if self.heard is not None:
                            self.heard(step, codes[0], value, True)

                self._send(torch.stack([r[3].float() for r in rows]), arrive)
        while self._travelling:
            event, host, deliver = self._travelling[0]
            if everything:
                event.synchronize()
            elif not event.query():
                return
            del self._travelling[0]
            deliver(host.tolist())

    def _send(self, vector: Tensor, arrive: Callable[[list[float]], None]) -> None:
        if vector.device.type != "cuda":
            arrive(vector.tolist())
            return
        host = torch.empty(vector.shape, dtype=vector.dtype, pin_memory=True)
        host.copy_(vector, non_blocking=True)
        event = torch.cuda.Event()
        event.record()
        self._travelling.append((event, host, arrive))


def _ratio(a: float, b: float) -> float:
    if b == 0:
        return math.inf if a > 0 else math.nan
    return a / b
