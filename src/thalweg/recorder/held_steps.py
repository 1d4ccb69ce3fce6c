"""What fed the last steps of a training, held in memory until it is kept or let go.

A *chunk* is what fed one step of one optimizer: its model calls with the random state at each, the
functions that combined outputs with targets and factors, the losses, the settings of the optimizer.
Tensors are held by reference, with their version counters: one that was written into afterwards is
told.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer

from thalweg.recorder.training_state import encode, settings

__all__ = ["Chunk", "HeldSteps", "packed"]


@dataclass
class Chunk:
    """What fed one step of one optimizer.

    Attributes:
        events: in order, each a kind and what belongs to it.
        bytes: of the tensors held.
        step: its number.
    """

    events: list[Any] = field(default_factory=list)
    bytes: int = 0
    step: int = 0

    def edited(self) -> bool:
        """Whether a tensor was written into since it was held."""
        for event in self.events:
            if event[0] in ("model", "function"):
                for leaf in event[2]:
                    if type(leaf) is tuple:
                        tensor, version = leaf
                        if tensor._version != version:
                            return True
        return False


class HeldSteps:
    """The chunks since the older of two states.

    Args:
        optimizers: in the order of their first step.

    Attributes:
        chunks: whole ones.
        first: how many came before them.
        now: the one under way.
        bytes: held by the whole ones.
        clone: whether tensors are copied.
    """

    def __init__(self, optimizers: Sequence[Optimizer]) -> None:
        self.chunks: list[Chunk] = []
        self.first = self.bytes = 0
        self.now = Chunk()
        self.clone = False
        self._optimizers = list(optimizers)
        params = [p for o in optimizers for g in o.param_groups for p in g["params"]]
        self.devices = [d for d in {p.device for p in params} if d.type == "cuda"]
        self._settings: dict[tuple[int, int], Any] = {}

    @property
    def number(self) -> int:
        """How many chunks there have been."""
        return self.first + len(self.chunks)

    def model_called(self, root: int, leaves: list[Any]) -> None:
        """Holds the arguments of a model and the random state."""
        state = [torch.get_rng_state(), *(torch.cuda.get_rng_state(d) for d in self.devices)]
        self.now.bytes += 5056
        self.now.events.append(("model", root, self._hold(leaves), state))

    def function_called(self, name: str, leaves: list[Any]) -> None:
        """Holds what a torch function combines the model's output with."""
        self.now.events.append(("function", name, self._hold(leaves)))

    def backward(self, loss: Tensor | None) -> None:
        """Holds the value on which ``backward`` ran."""
        self.now.events.append(("backward", loss))

    def end(self, index: int, step: int, skipped: bool) -> None:
        """The step of optimizer ``index`` is over."""
        groups = [
            self._group(index, i, group)
            for i, group in enumerate(self._optimizers[index].param_groups)
        ]
        now = self.now
        now.events.append(("step", index, groups, skipped))
        now.step = step
        self.chunks.append(now)
        self.bytes += now.bytes
        self.now = Chunk(step=step)

    def let_go(self, number: int) -> None:
        """Drops the oldest chunks, so many."""
        if number > 0:
            self.bytes -= sum(chunk.bytes for chunk in self.chunks[:number])
            del self.chunks[:number]
            self.first += number

    def _hold(self, leaves: list[Any]) -> list[Any]:
        held: list[Any] = []
        for leaf in leaves:
            if not isinstance(leaf, Tensor):
                held.append(leaf)
                continue
            self.now.bytes += leaf.numel() * leaf.element_size()
            if self.clone or leaf.is_inference():
                held.append((leaf.detach().clone(), 0))
            else:
                held.append((leaf, leaf._version))
        return held

    def _group(self, index: int, i: int, group: dict[str, Any]) -> dict[str, Any]:
        """The settings of a param group; the same object for as long as they do not change."""
        values = [v for k, v in group.items() if k != "params"]
        last = self._settings.get((index, i))
        # A learning rate kept in a tensor may be edited in place: it is never the same.
        if last is not None and last[0] == values:
            return last[1]
        new = settings(group)
        tensors = any(isinstance(v, Tensor) for v in new.values())
        if tensors:
            new = {k: v.clone() if isinstance(v, Tensor) else v for k, v in new.items()}
        self._settings[index, i] = (None if tensors else values), new
        return new


def packed(chunks: Sequence[Chunk], tensors: dict[str, Tensor]) -> list[dict[str, Any]]:
    """Chunks as JSON; their tensors are added to ``tensors``, each once."""
    known: dict[Any, str] = {}

    def name(t: Tensor) -> str:
        key = t.data_ptr(), tuple(t.shape), tuple(t.stride()), t.dtype, t.device
        if key not in known:
            known[key] = f"t{len(tensors)}"
            tensors[known[key]] = t
        return known[key]

    def leaf(value: Any) -> Any:
        return {"tensor": name(value[0])} if type(value) is tuple else {"value": value}

    def event(kind: str, *rest: Any) -> list[Any]:
        if kind == "model":
            root, leaves, state = rest
            return [kind, root, [leaf(v) for v in leaves], [name(s) for s in state]]
        if kind == "function":
            return [kind, rest[0], [leaf(v) for v in rest[1]]]
        if kind == "backward":
            return [kind, None if rest[0] is None else float(rest[0]).hex()]
        index, groups, skipped = rest
        return [kind, index, [encode(g, f"g{len(tensors)}", tensors) for g in groups], skipped]

    return [{"step": c.step, "events": [event(*e) for e in c.events]} for c in chunks]
