"""A module that is trained inside a random d-dimensional subspace of its parameters.

    theta_D = theta0 + P theta        and, with a learnt scale for each group of tensors,
    theta_D = theta0 + lambda_g (P theta)

Only theta (and the scales, paid out of d) are trained; P is fixed by a seed, so what was learnt is
a seed and d numbers. Axes: `D` projected parameters, `d` dimensions.

Source: Li, Farkhoor, Liu, Yosinski 2018, arXiv 1804.08838; the scales and a map for each tensor:
Aghajanyan, Zettlemoyer, Gupta 2020, arXiv 2012.13255. Departures from public code: the module is
called functionally on a copy, so nothing is deleted and tied weights move as one; a tensor smaller
than d gets a map of d numbers, where they cut theta; gradients are those of the transform.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable, Hashable, Sequence
from os import PathLike
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call

from thalweg.nn.parameter_choice import chosen_parameters, groups_of
from thalweg.nn.random_map import Projection, RandomMap
from thalweg.nn.subspace_file import FORMAT, digest, read_subspace, write_subspace

__all__ = ["SubspaceModule"]


class SubspaceModule(nn.Module):
    """A module whose parameters move in a random subspace only.

    The module is copied and stays as it is. In the copy nothing but ``theta`` (and ``scales``) is
    trained: parameters that are frozen, or left out by a pattern, keep their values; buffers are
    updated as usual. Under DDP ``theta`` is broadcast and P drawn from the seed on each rank.

    Args:
        module: any module with floating parameters that require gradients.
        d: numbers to train, scales included.
        projection: ``fastfood``, ``dense``, ``sparse`` or ``orthonormal``.
        granularity: ``model`` for one map of all D parameters, ``tensor`` for one map each from the
            same theta, as fine-tuning code has it. Columns have unit length for each map, so the
            learning rate means something else.
        seed: fixes the maps, whatever the device.
        include: patterns of the names to project, each a part of the name between dots
            (``encoder.layer.5``), a glob or a regular expression for the whole name; default all.
        exclude: patterns of names that keep their values.
        dtype: of theta; default that of the parameters, at least float32.
        said: learn a scale, starting at 1, for each group of tensors.
        said_groups: ``layer``, ``tensor``, or a function from a name to its group.
        max_bytes: refuse a matrix that takes more.

    Attributes:
        theta: (d,), or (d − scales,), zeros at the start.
        scales: (groups,), ones at the start; None without ``said``.
        D: number of projected parameters, tied ones counted once.

    Raises:
        ValueError: if d < 1 or d > D, nothing is to be trained, a parameter is complex, a pattern
            matches nothing, scales leave no room in d, or a matrix is too large.

    Source: Li et al. 2018, arXiv 1804.08838; Aghajanyan et al. 2020, arXiv 2012.13255.

    Example:
        >>> model = nn.Linear(8, 4)
        >>> inside = SubspaceModule(model, 3)
        >>> [(n, tuple(p.shape)) for n, p in inside.named_parameters() if p.requires_grad]
        [('theta', (3,))]
        >>> x = torch.ones(2, 8)
        >>> inside.D, torch.equal(inside(x), model(x))
        (36, True)
    """

    scales: Tensor | None

    def __init__(
        self,
        module: nn.Module,
        d: int,
        projection: Projection = "fastfood",
        *,
        granularity: Literal["model", "tensor"] = "model",
        seed: int = 0,
        include: str | Sequence[str] | None = None,
        exclude: str | Sequence[str] | None = None,
        dtype: torch.dtype | None = None,
        said: bool = False,
        said_groups: Literal["layer", "tensor"] | Callable[[str], Hashable] = "layer",
        max_bytes: int = 2**31,
    ) -> None:
        super().__init__()
        if granularity not in ("model", "tensor"):
            raise ValueError(f"granularity must be 'model' or 'tensor', got {granularity!r}")
        moved = chosen_parameters(module, include, exclude)
        sizes = {name: p.numel() for name, p in moved.items()}
        self.D = sum(sizes.values())
        if not 1 <= d <= self.D:
            raise ValueError(f"need 1 <= d <= D, got d={d} for D={self.D} projected parameters")
        groups = groups_of(moved, said_groups) if said else []
        dim = d - len(set(groups))
        if dim < 1:
            raise ValueError(
                f"d={d} leaves no room for {len(set(groups))} SAID scales and a dimension: raise d "
                "or use larger groups"
            )
        first = next(iter(moved.values()))
        dtype = dtype or torch.promote_types(first.dtype, torch.float32)
        if not dtype.is_floating_point:
            raise ValueError(f"theta must be floating, got dtype={dtype}")
        self.d, self.granularity, self.seed = d, granularity, seed
        self.projection: Projection = projection
        self.module = copy.deepcopy(module).requires_grad_(False)
        self._sizes, self._groups = sizes, groups
        self.buffers_before = {n: digest(b) for n, b in self.module.named_buffers()}
        self.theta = nn.Parameter(torch.zeros(dim, dtype=dtype, device=first.device))
        ones = torch.ones(len(set(groups)), dtype=dtype, device=first.device)
        self.register_parameter("scales", nn.Parameter(ones) if said else None)
        parts = {"": self.D} if granularity == "model" else sizes
        self.maps = nn.ModuleList(
            RandomMap(projection, D, dim, seed=_seed(seed, name), max_bytes=max_bytes)
            for name, D in parts.items()
        )
        self._draw()

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The module at theta0 + P theta."""
        return functional_call(self.module, self._weights(), args, kwargs)

    def materialize(self) -> dict[str, Tensor]:
        """All parameters of the module at the present theta, as ``load_state_dict`` takes them.

        Returns:
            Name to tensor, under every name of a tied one; gradients flow to theta.
        """
        weights = self._weights()
        known = dict(self.module.named_parameters(remove_duplicate=False))
        first = {id(p): name for name, p in reversed(known.items())}
        return {n: weights.get(first[id(p)], p) for n, p in known.items()}

    def export(self, path: str | PathLike[str]) -> None:
        """Writes the seed and d numbers, as safetensors; buffers that training changed come along.

        Args:
            path: of the file.
        """
        write_subspace(self, path)

    @classmethod
    def load(
        cls, module: nn.Module, path: str | PathLike[str], *, max_bytes: int = 2**31
    ) -> SubspaceModule:
        """What was exported, around a module at the same initial values.

        Args:
            module: at theta0: built with the same seed, or the same pretrained weights.
            path: written by ``export``.
            max_bytes: as on construction.

        Raises:
            ThalwegError: if the file is none of ours, the module is not the one it was made from,
                or this version of torch draws other numbers from the seed.
        """
        return read_subspace(cls, module, path, max_bytes)

    def about(self) -> dict[str, Any]:
        """All that fixes the maps, and a few numbers of theirs to recognise them by.

        Returns:
            JSON-able: ``format``, ``seed``, ``d``, ``projection``, ``granularity``, ``names`` of
            the projected parameters, ``groups`` of the scales, ``probe``.
        """
        ramp = torch.linspace(-1, 1, len(self.theta)).to(self.theta.device, self._work_dtype())
        with torch.no_grad():
            probe = [float(f"{v:.6g}") for m in self.maps for v in m(ramp)[:4].tolist()]
        return {
            "format": FORMAT,
            "seed": self.seed,
            "d": self.d,
            "projection": self.projection,
            "granularity": self.granularity,
            "names": list(self._sizes),
            "groups": self._groups,
            "probe": probe[:64],
        }

    def get_extra_state(self) -> Tensor:
        """What theta means nothing without: goes into ``state_dict`` as bytes."""
        return torch.tensor(list(json.dumps(self.about()).encode()), dtype=torch.uint8)

    def set_extra_state(self, state: Tensor) -> None:
        """Compares with what is loaded: theta of another map would be noise.

        Raises:
            ValueError: if it belongs to other maps.
        """
        theirs, mine = json.loads(bytes(state.tolist())), json.loads(json.dumps(self.about()))
        for key in mine.keys() - {"probe"}:
            if theirs.get(key) != mine[key]:
                raise ValueError(
                    f"this state belongs to {key}={theirs.get(key)!r}, the module has "
                    f"{mine[key]!r}: build it with the same arguments"
                )

    def extra_repr(self) -> str:
        """Shown by ``repr``."""
        scales = 0 if self.scales is None else len(self.scales)
        return f"D={self.D}, d={self.d}, scales={scales}, granularity={self.granularity}"

    def _weights(self) -> dict[str, Tensor]:
        """Projected parameters, by their first names."""
        work = self.theta.to(self._work_dtype())
        pieces = [m(work) for m in self.maps]
        if self.granularity == "model":
            pieces = pieces[0].split(list(self._sizes.values()))
        weights = {}
        for i, (name, step) in enumerate(zip(self._sizes, pieces, strict=True)):
            if self.scales is not None:
                step = step * self.scales[self._groups[i]].to(step)
            start = self.module.get_parameter(name)
            weights[name] = start + step.view(start.shape).to(start)
        return weights

    def _work_dtype(self) -> torch.dtype:
        return torch.promote_types(self.theta.dtype, torch.float32)

    def _draw(self) -> None:
        for part in self.maps:
            assert isinstance(part, RandomMap)
            part.draw(self._work_dtype(), self.theta.device)
        self._drawn_as = self._work_dtype()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> SubspaceModule:
        """Moves as any module; constants whose precision went are drawn again."""
        super()._apply(fn, recurse)
        kept = all(b.dtype == self._drawn_as for b in self.maps.buffers() if b.is_floating_point())
        if not kept or self._work_dtype() != self._drawn_as:
            self._draw()
        return self


def _seed(seed: int, name: str) -> int:
    """A seed for each map, the given one for a single map."""
    if not name:
        return seed
    return int.from_bytes(hashlib.sha256(f"{seed} {name}".encode()).digest()[:7])
