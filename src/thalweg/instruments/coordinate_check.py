"""Coordinate check: do activations keep their size as the width grows, step by step?

A model of every width takes a few steps; the size of each module's output against the width is a
power law whose exponent tells the parametrisation: about 0 for hidden layers and at most 0 for the
output in muP, growing in standard parametrisation with muP-sized rates. The output may grow in the
first steps and then flatten.

Source: Yang, Hu et al. 2022, arXiv 2203.03466; the split into effective and propagated updates is
that of Haas, Bordt, von Luxburg, Vankadara 2025, arXiv 2505.22491.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn

from thalweg.instruments.refined_coordinate_check import RefinedCoordinateCheck
from thalweg.instruments.width_training import (
    Data,
    MakeModel,
    MakeOptimizer,
    PointLoss,
    batches,
    checked_widths,
    make_optimizer,
    model_at,
    point_loss,
    targets_of,
)
from thalweg.numerics import ExponentFit, fit_exponent

__all__ = ["CoordCheck", "Coordinate", "coord_check"]


@dataclass(frozen=True)
class Coordinate:
    """Sizes of one module at one width after so many steps, mean over seeds.

    Attributes:
        width: of the model.
        module: its name.
        step: steps taken before.
        l1: mean |output|, over units and tokens.
        rms: root mean square of the output.
        effective: of (W_t − W_0) x_t, mean over tokens of the root mean square over units; nan if
            it was not asked for.
        propagated: of W_0 (x_t − x_0), likewise.
    """

    width: int
    module: str
    step: int
    l1: float
    rms: float
    effective: float
    propagated: float


@dataclass(frozen=True)
class CoordCheck:
    """Sizes over widths, modules and steps.

    Attributes:
        rows: of the table.
        parametrization: ``sp`` or ``mup``.
    """

    rows: tuple[Coordinate, ...]
    parametrization: str

    @property
    def table(self) -> dict[str, list[Any]]:
        """Columns by name, as ``pandas.DataFrame`` takes them."""
        return {f.name: [getattr(r, f.name) for r in self.rows] for f in fields(Coordinate)}

    def slopes(self, quantity: str = "rms", *, step: int = -1) -> dict[str, ExponentFit]:
        """Exponent in the width of each module's size.

        Args:
            quantity: ``l1``, ``rms``, ``effective`` or ``propagated``.
            step: after how many steps; −1 for the last.

        Returns:
            Module to fit; modules with a size that is 0 or not finite have none.

        Raises:
            ValueError: for another quantity or a step that was not taken.
        """
        sizes = self.sizes(quantity, step=step)
        sound = {m: s for m, s in sizes.items() if all(0 < v < math.inf for v in s.values())}
        return {m: fit_exponent(list(s), list(s.values())) for m, s in sound.items()}

    def sizes(self, quantity: str = "rms", *, step: int = -1) -> dict[str, dict[int, float]]:
        """Module to width to size; arguments as of ``slopes``."""
        if quantity not in ("l1", "rms", "effective", "propagated"):
            raise ValueError(f"quantity must be l1, rms, effective or propagated, got {quantity!r}")
        steps = sorted({r.step for r in self.rows})
        if step != -1 and step not in steps:
            raise ValueError(f"step must be one of {steps[0]} to {steps[-1]}, got {step}")
        at = steps[-1] if step == -1 else step
        found: dict[str, dict[int, float]] = {}
        for r in self.rows:
            if r.step == at:
                found.setdefault(r.module, {})[r.width] = getattr(r, quantity)
        return found

    def plot(self, quantity: str = "rms") -> Any:
        """A matplotlib Figure: size over width, a panel a step and a line a module.

        Args:
            quantity: as of ``slopes``.

        Raises:
            ThalwegError: without matplotlib, which is the extra ``plot``.
        """
        from thalweg.instruments.width_plot import plot_coordinates

        return plot_coordinates(self, quantity)


def coord_check(
    make_model: MakeModel,
    data: Data,
    widths: Iterable[int] = (64, 128, 256, 512),
    lr: float | Callable[[int], float] = 0.1,
    steps: int = 3,
    parametrization: str = "sp",
    *,
    optimizer: MakeOptimizer = "sgd",
    loss: str | PointLoss = "ce",
    batch_size: int | None = None,
    seeds: int | Iterable[int] = 3,
    refined: bool = False,
) -> CoordCheck:
    """Sizes of every module's output over widths and steps.

    Args:
        make_model: width to model.
        data: inputs and targets, or a callable that draws a batch with a generator.
        widths: at least two.
        lr: the learning rate, or width to learning rate.
        steps: how many are taken.
        parametrization: ``sp``, or ``mup`` relative to the smallest width, for models whose readout
            is a ``MuReadout``; a model with base shapes of its own keeps them.
        optimizer: ``sgd``, ``adam`` or a callable ``(params, lr=) -> Optimizer``. A name means the
            muP form where the model has base shapes.
        loss: ``ce``, ``mse`` or a callable ``(prediction, target) -> scalar``.
        batch_size: rows of a batch; None for all.
        seeds: seeds, or their number.
        refined: whether to split updates into effective and propagated as well, at the price of a
            second model.

    Returns:
        The table, exponents by ``.slopes()`` and a figure by ``.plot()``. Modules without
        submodules that give one tensor take part.

    Raises:
        ValueError: for fewer than two widths, a rate that is not positive, no step or seed, an
            unknown name, or a model none of whose parameters depends on the width.

    Source:
        Yang, Hu et al. 2022, arXiv 2203.03466, appendix D; entry large-learning-rates.

    Example:
        A readout of fixed rate: after one step the output has moved by lr·n.

        >>> class Sum(torch.nn.Module):
        ...     def __init__(self, n):
        ...         super().__init__()
        ...         self.out = torch.nn.Linear(n, 1, bias=False)
        ...         torch.nn.init.zeros_(self.out.weight)
        ...     def forward(self, x):
        ...         return self.out(x.expand(-1, self.out.in_features))
        >>> data = torch.ones(4, 1), torch.ones(4, 1)
        >>> check = coord_check(Sum, data, (2, 4, 8), 0.1, 1, loss="mse", seeds=1)
        >>> round(check.slopes()["out"].exponent, 5)
        1.0
    """
    sizes = checked_widths(widths)
    seed_list = list(range(seeds)) if isinstance(seeds, int) else list(seeds)
    if steps < 1 or not seed_list:
        raise ValueError(f"steps and seeds must be at least 1, got {steps} and {seeds}")
    rates = {w: lr(w) if callable(lr) else lr for w in sizes}
    if not all(0 < rate < math.inf for rate in rates.values()):
        raise ValueError(f"lr must be positive and finite, got {rates}")
    measure = point_loss(loss)
    totals: dict[tuple[int, str, int], list[tuple[float, ...]]] = {}
    for width in sizes:
        for seed in seed_list:
            model = model_at(make_model, width, seed, parametrization=parametrization, widths=sizes)
            rule = make_optimizer(optimizer, model, rates[width])
            check = RefinedCoordinateCheck(model) if refined else None
            for step, (x, y) in enumerate(batches(data, steps + 1, batch_size, seed)):
                split = check.step(x) if check is not None else {}
                rule.zero_grad()
                out, seen = _watched(model, x)
                for name, size in seen.items():
                    change = split.get(name)
                    both = (change.effective, change.propagated) if change else (math.nan,) * 2
                    totals.setdefault((width, name, step), []).append((*size, *both))
                if step < steps:
                    measure(out, targets_of(y, loss, out.shape[-1])).backward()
                    rule.step()
    rows = [
        Coordinate(width, name, step, *torch.tensor(each, dtype=torch.float64).mean(0).tolist())
        for (width, name, step), each in totals.items()
    ]
    return CoordCheck(tuple(rows), parametrization)


def _watched(model: nn.Module, x: Tensor) -> tuple[Tensor, dict[str, tuple[float, float]]]:
    """The output, and l1 and root mean square of every leaf module's, the mean over its calls."""
    seen: dict[str, list[Tensor]] = {}

    def keep(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, given: Any, out: Any) -> None:
            if isinstance(out, Tensor) and out.is_floating_point():
                v = out.detach().double()
                sizes = torch.stack([v.abs().mean(), v.square().mean().sqrt()])
                seen.setdefault(name, []).append(sizes)

        return hook

    handles = [
        module.register_forward_hook(keep(name))
        for name, module in model.named_modules()
        if not any(True for _ in module.children())
    ]
    try:
        out = model(x)
    finally:
        for handle in handles:
            handle.remove()
    found = {name: torch.stack(calls).mean(0).tolist() for name, calls in seen.items()}
    return out, {name: (l1, rms) for name, (l1, rms) in found.items()}
