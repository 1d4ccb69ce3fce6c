"""Refined coordinate check: how much of a layer's change is its own, and how much is handed on.

    h_t − h_0 = (W_t − W_0) x_t  +  W_0 (x_t − x_0)
                effective           propagated

exactly, for a layer without bias; x are its inputs now and in the reference (initial) model.
In muP both parts are Θ(1) in the width for hidden layers; a part that shrinks is a layer that does
not learn at scale, one that grows is what blows up first.

Source: Haas, Bordt, von Luxburg, Vankadara 2025, arXiv 2505.22491, as in torch-module-monitor.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.dropout import _DropoutNd

from thalweg.numerics import untouched

__all__ = ["CoordinateChange", "LayerChange", "RefinedCoordinateCheck"]

_SHIFTED = (_ConvNd, _BatchNorm, nn.GroupNorm, nn.modules.instancenorm._InstanceNorm)


class CoordinateChange(NamedTuple):
    """Sizes at one module, mean over tokens of the norm over units.

    Attributes:
        effective: of (W_t − W_0) x_t.
        propagated: of W_0 (x_t − x_0); 0 for an embedding, whose inputs are the same.
        xt: of x_t; of the normalised input for a LayerNorm; nan for an embedding.
        dx: of x_t − x_0.
    """

    effective: float
    propagated: float
    xt: float
    dx: float


@dataclass(frozen=True)
class LayerChange:
    """The vectors behind the sizes, units in the last axis.

    Attributes:
        effective: (W_t − W_0) x_t.
        propagated: W_0 (x_t − x_0).
        xt: x_t.
        dx: x_t − x_0.
    """

    effective: Tensor
    propagated: Tensor
    xt: Tensor
    dx: Tensor


class RefinedCoordinateCheck:
    """Splits the change of every layer's output since a reference model into its two parts.

    Looks at every module without submodules that takes and gives one tensor. Nothing of the model
    changes: buffers and random state are put back. The reference doubles the memory.

    Args:
        model: in training.
        reference: the same at an earlier time; by default a copy of ``model`` as it is now.
        bias: whether biases take part; a change of bias then counts as effective.
        norm: ``rms`` over units, or ``l2`` as torch-module-monitor reports.

    Raises:
        ValueError: for an unknown norm; in ``step``, if dropout is switched on, which would make
            both passes differ by chance.

    Source:
        Haas et al. 2025, arXiv 2505.22491; entry large-learning-rates.

    Example:
        A weight of 2 that becomes 5, at inputs of 1:

        >>> layer = nn.Linear(1, 1, bias=False)
        >>> _ = nn.init.constant_(layer.weight, 2.0)
        >>> check = RefinedCoordinateCheck(nn.Sequential(layer))
        >>> _ = nn.init.constant_(layer.weight, 5.0)
        >>> check.step(torch.ones(4, 1))["0"]
        CoordinateChange(effective=3.0, propagated=0.0, xt=1.0, dx=0.0)
    """

    def __init__(
        self,
        model: nn.Module,
        reference: nn.Module | None = None,
        *,
        bias: bool = False,
        norm: str = "rms",
    ) -> None:
        if norm not in ("rms", "l2"):
            raise ValueError(f"norm must be 'rms' or 'l2', got {norm!r}")
        self.model = model
        self.reference = copy.deepcopy(model) if reference is None else reference
        self._bias, self._norm = bias, norm

    def step(self, x: Any) -> dict[str, CoordinateChange]:
        """Sizes at every module, for a batch of inputs (a tensor, or a tuple of arguments)."""
        return {
            name: CoordinateChange(
                *(self._size(v) for v in (part.effective, part.propagated, part.xt, part.dx))
            )
            for name, part in self.vectors(x).items()
        }

    def vectors(self, x: Any) -> dict[str, LayerChange]:
        """The vectors behind the sizes, for a batch of inputs."""
        if any(isinstance(m, _DropoutNd) and m.training and m.p for m in self.model.modules()):
            raise ValueError(
                "RefinedCoordinateCheck: dropout is switched on, so that two passes differ by "
                "chance; call model.eval() around step"
            )
        arguments = x if isinstance(x, tuple) else (x,)
        found = {}
        params = [*self.model.parameters(), *self.reference.parameters()]
        with untouched(params), torch.no_grad():
            now, then = (_inputs(m, arguments) for m in (self.model, self.reference))
            layers = dict(self.reference.named_modules())
            for name, module in self.model.named_modules():
                if now.get(name) and len(now[name]) == len(then.get(name, ())):
                    parts = [
                        self._change(module, layers[name], xt, x0)
                        for xt, x0 in zip(now[name], then[name], strict=True)
                        if xt.shape == x0.shape
                    ]
                    parts = [part for part in parts if part is not None]
                    if parts:
                        found[name] = _joined(parts)
        return found

    def _change(
        self, now: nn.Module, then: nn.Module, xt: Tensor, x0: Tensor
    ) -> LayerChange | None:
        fresh, old, first = self._output(now, xt), self._output(then, xt), self._output(then, x0)
        if fresh is None or old is None or first is None:
            return None
        if isinstance(now, nn.LayerNorm):
            shape = now.normalized_shape
            xt, x0 = (nn.functional.layer_norm(v, shape, eps=now.eps) for v in (xt, x0))
        if not xt.is_floating_point():  # tokens: the same in both
            xt, x0 = torch.full_like(fresh, torch.nan), torch.zeros_like(fresh)
            dx = x0
        else:
            dx = xt - x0
        spatial = isinstance(now, _SHIFTED)
        return LayerChange(*(_units_last(v, spatial) for v in (fresh - old, old - first, xt, dx)))

    def _output(self, module: nn.Module, x: Tensor) -> Tensor | None:
        out = module(x.clone())
        if not isinstance(out, Tensor):
            return None
        bias = getattr(module, "bias", None)
        if isinstance(bias, Tensor) and not self._bias:
            out = out - (
                bias.view(-1, *[1] * (out.ndim - 2)) if isinstance(module, _SHIFTED) else bias
            )
        return out

    def _size(self, v: Tensor) -> float:
        norms = torch.linalg.vector_norm(v.double(), dim=-1)
        mean = norms.mean().item()
        return mean / v.shape[-1] ** 0.5 if self._norm == "rms" else mean


def _joined(parts: list[LayerChange]) -> LayerChange:
    """Several calls of one module as more tokens of one call."""
    if len(parts) == 1:
        return parts[0]
    names = ("effective", "propagated", "xt", "dx")
    rows = [[getattr(p, n).flatten(0, -2) for p in parts] for n in names]
    return LayerChange(*(torch.cat(row) for row in rows))


def _units_last(v: Tensor, spatial: bool) -> Tensor:
    return v.movedim(1, -1) if spatial and v.ndim > 2 else v


def _inputs(model: nn.Module, arguments: tuple[Any, ...]) -> dict[str, list[Tensor]]:
    """Inputs of every leaf module in one forward pass, in the order of its calls."""
    found: dict[str, list[Tensor]] = {}

    def keep(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, given: tuple[Any, ...]) -> None:
            if len(given) == 1 and isinstance(given[0], Tensor):
                found.setdefault(name, []).append(given[0].clone())  # others may write into it

        return hook

    with _hooked(model, keep):
        model(*arguments)
    return found


@contextmanager
def _hooked(model: nn.Module, keep: Callable[[str], Callable[..., None]]) -> Iterator[None]:
    handles = [
        module.register_forward_pre_hook(keep(name))
        for name, module in model.named_modules()
        if not any(True for _ in module.children())
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
