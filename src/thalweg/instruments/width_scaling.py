"""How the largest stable and the best learning rate move with the width of one's own model.

Models of several widths are trained for a few steps over a grid of rates. A rate is stable if every
seed keeps a finite loss *and* learns: a net that has blown up may well end with dead units at a
finite loss. Exponents are slopes of log rate on log width.

Source: Haas, Bordt, von Luxburg, Vankadara 2025, arXiv 2505.22491. Measured over few steps the
largest stable rate is biased upwards (catapults), and at widths in the hundreds exponents are
flatter than those of the limit, ``theory.predicted_exponents``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

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

__all__ = ["LrWidthScaling", "WidthRun", "lr_width_scaling"]

BOOTSTRAP = 1000


@dataclass(frozen=True)
class WidthRun:
    """One training.

    Attributes:
        width: of the model.
        seed: of its initialisation and its batches.
        lr: the learning rate.
        loss: at the end, over all data; inf if it was not finite at some step.
        accuracy: at the end over all data, share of right classes; nan without class labels.
        stable: whether it stayed finite and learnt.
    """

    width: int
    seed: int
    lr: float
    loss: float
    accuracy: float
    stable: bool


@dataclass(frozen=True)
class LrWidthScaling:
    """Rates over widths.

    Attributes:
        runs: every training that was made.
        widths: ascending.
        lrs: the grid, ascending.
        seeds: of each.
    """

    runs: tuple[WidthRun, ...]
    widths: tuple[int, ...]
    lrs: tuple[float, ...]
    seeds: tuple[int, ...]

    @cached_property
    def _found(self) -> tuple[Tensor, Tensor]:
        """Stable or not, and the final loss, (widths, seeds, rates); what was not run is not."""
        shape = len(self.widths), len(self.seeds), len(self.lrs)
        stable, loss = torch.zeros(shape, dtype=torch.bool), torch.full(shape, math.inf).double()
        for r in self.runs:
            at = self.widths.index(r.width), self.seeds.index(r.seed), self.lrs.index(r.lr)
            stable[at], loss[at] = r.stable, r.loss
        return stable, loss

    def _largest(self, stable: Tensor) -> dict[int, float]:
        """Largest rate at which all seeds are stable; nan if there is none."""
        every = stable.all(1)
        rows = [[lr for lr, ok in zip(self.lrs, row, strict=True) if ok] for row in every.tolist()]
        return {w: max(row, default=math.nan) for w, row in zip(self.widths, rows, strict=True)}

    def _best(self, stable: Tensor, loss: Tensor) -> dict[int, float]:
        """Stable rate of the least mean loss, the larger of equals; nan if there is none."""
        mean = loss.masked_fill(~stable, math.inf).mean(1).tolist()
        found = {}
        for w, row in zip(self.widths, mean, strict=True):
            least = min(row)
            best = [lr for lr, v in zip(self.lrs, row, strict=True) if v == least < math.inf]
            found[w] = max(best, default=math.nan)
        return found

    @cached_property
    def max_stable(self) -> dict[int, float]:
        """Width to the largest rate of the grid at which all seeds are stable; nan if none is."""
        return self._largest(self._found[0])

    @cached_property
    def optimal(self) -> dict[int, float]:
        """Width to the stable rate of the least mean final loss; nan if there is none."""
        return self._best(*self._found)

    @property
    def fit_max(self) -> ExponentFit | None:
        """Power law of ``max_stable``; None where ``exponent_max`` is nan."""
        return self._fit(self.max_stable)

    @property
    def fit_opt(self) -> ExponentFit | None:
        """Power law of ``optimal``; None where ``exponent_opt`` is nan."""
        return self._fit(self.optimal)

    def _fit(self, rates: Mapping[int, float]) -> ExponentFit | None:
        inside = all(self.lrs[0] < lr < self.lrs[-1] for lr in rates.values())
        return fit_exponent(list(rates), list(rates.values())) if inside else None

    @property
    def exponent_max(self) -> float:
        """Exponent of ``max_stable`` in the width.

        nan if a width has no stable rate or an end of the grid is one: widen ``lrs``.
        """
        return self.fit_max.exponent if self.fit_max else math.nan

    @property
    def exponent_opt(self) -> float:
        """Exponent of ``optimal`` in the width; nan as for ``exponent_max``."""
        return self.fit_opt.exponent if self.fit_opt else math.nan

    @cached_property
    def interval_max(self) -> tuple[float, float]:
        """95 % of ``exponent_max`` over seeds drawn anew; nan with one seed."""
        return self._interval(lambda stable, loss: self._largest(stable))

    @cached_property
    def interval_opt(self) -> tuple[float, float]:
        """95 % of ``exponent_opt`` over seeds drawn anew; nan with one seed."""
        return self._interval(self._best)

    def _interval(self, rates) -> tuple[float, float]:
        if len(self.seeds) < 2:
            return math.nan, math.nan
        generator, found = torch.Generator().manual_seed(0), []
        for _ in range(BOOTSTRAP):
            draw = torch.randint(len(self.seeds), (len(self.seeds),), generator=generator)
            fit = self._fit(rates(*(t[:, draw] for t in self._found)))
            found.append(fit.exponent if fit else math.nan)
        ends = torch.tensor(found, dtype=torch.float64).quantile(
            torch.tensor([0.025, 0.975]).double()
        )
        return ends[0].item(), ends[1].item()

    def plot(self) -> Any:
        """A matplotlib Figure: final loss over the rate, by width; both rates over the width.

        Raises:
            ThalwegError: without matplotlib, which is the extra ``plot``.
        """
        from thalweg.instruments.width_plot import plot_rates

        return plot_rates(self)


def lr_width_scaling(
    make_model: MakeModel,
    data: Data,
    loss: str | PointLoss = "ce",
    widths: Iterable[int] = (64, 128, 256, 512),
    lrs: Iterable[float] = tuple(2 ** (i / 2) for i in range(-20, 9)),
    optimizer: MakeOptimizer = "sgd",
    steps: int = 60,
    seeds: int | Iterable[int] = 3,
    *,
    parametrization: str = "sp",
    batch_size: int | None = 64,
    tau: float = 0.5,
    stop_at_failure: bool = True,
) -> LrWidthScaling:
    """Trains models of several widths over a grid of learning rates.

    Args:
        make_model: width to model.
        data: inputs and targets, or a callable that draws a batch with a generator.
        loss: ``ce``, ``mse`` (½ of the squared distance; labels become one-hot) or a callable
            ``(prediction, target) -> scalar``.
        widths: at least two; four or more that span a factor of eight are needed to mean much.
        lrs: the grid; half octaves from 2^−10 to 2^4 by default.
        optimizer: ``sgd``, ``adam`` or a callable ``(params, lr=) -> Optimizer``. A name means the
            muP form where the model has base shapes.
        steps: of each training.
        seeds: seeds, or their number.
        parametrization: ``sp``, or ``mup`` relative to the smallest width, for models whose readout
            is a ``MuReadout``; a model with base shapes of its own keeps them.
        batch_size: rows of a batch; None for all.
        tau: a rate counts as stable if the final accuracy is at least this share of the best so
            far at its width and seed (without labels: if the final loss is below the first one).
        stop_at_failure: skip the rates above the first that fails after one that did not, at each
            width and seed; what is skipped counts as unstable.

    Returns:
        Rates, exponents and their intervals; ``.plot()`` draws them.

    Raises:
        ValueError: for fewer than two widths or rates, a rate that is not positive, no step or
            seed, an unknown name, or a model none of whose parameters depends on the width.

    Cost:
        At most widths × rates × seeds × steps gradients.

    Source:
        Haas et al. 2025, arXiv 2505.22491; entry large-learning-rates.

    Example:
        Least squares on n equal inputs has curvature n, and gradient descent its edge at 2/n.

        >>> class Sum(torch.nn.Module):
        ...     def __init__(self, n):
        ...         super().__init__()
        ...         self.w = torch.nn.Parameter(torch.ones(n))
        ...     def forward(self, x):
        ...         return (x * self.w).sum(1, keepdim=True)
        >>> data = torch.ones(4, 1), torch.zeros(4, 1)
        >>> lrs = [2.0**i / 1.1 for i in range(-6, 3)]
        >>> found = lr_width_scaling(Sum, data, "mse", (2, 4, 8, 16), lrs, steps=20, seeds=1)
        >>> round(found.exponent_max, 6)
        -1.0
    """
    sizes, grid = checked_widths(widths), sorted(set(lrs))
    seed_list = list(range(seeds)) if isinstance(seeds, int) else list(seeds)
    if len(grid) < 2 or not grid[0] > 0 or grid[-1] == math.inf:
        raise ValueError(f"lrs must be at least two positive learning rates, got {grid}")
    if steps < 1 or not seed_list:
        raise ValueError(f"steps and seeds must be at least 1, got {steps} and {seeds}")
    runs: list[WidthRun] = []
    for width in sizes:
        for seed in seed_list:
            best, learnt = 0.0, False
            for lr in grid:
                model = model_at(
                    make_model, width, seed, parametrization=parametrization, widths=sizes
                )
                first, last, accuracy = _train(
                    model, data, loss, make_optimizer(optimizer, model, lr), steps, batch_size, seed
                )
                learns = last < first if math.isnan(accuracy) else accuracy >= tau * best
                stable = math.isfinite(last) and learns
                runs.append(WidthRun(width, seed, lr, last, accuracy, stable))
                if stable:
                    learnt, best = True, max(best, accuracy)
                elif learnt and stop_at_failure:
                    break
    return LrWidthScaling(tuple(runs), tuple(sizes), tuple(grid), tuple(seed_list))


def _train(
    model: torch.nn.Module,
    data: Data,
    loss: str | PointLoss,
    optimizer: torch.optim.Optimizer,
    steps: int,
    batch_size: int | None,
    seed: int,
) -> tuple[float, float, float]:
    """First loss, and the loss and accuracy at the end; inf and 0 once a loss is not finite."""
    measure, first = point_loss(loss), math.nan
    x = y = torch.empty(0)
    for step, (x, y) in enumerate(batches(data, steps, batch_size, seed)):
        optimizer.zero_grad()
        out = model(x)
        value = measure(out, targets_of(y, loss, out.shape[-1]))
        now = value.item()
        first = now if step == 0 else first
        if not math.isfinite(now):
            return first, math.inf, math.nan if y.is_floating_point() else 0.0
        value.backward()
        optimizer.step()
    with torch.no_grad():
        x, y = (x, y) if callable(data) else data
        out = model(x)
        last = measure(out, targets_of(y, loss, out.shape[-1])).item()
        last = last if math.isfinite(last) else math.inf
        if y.is_floating_point():
            return first, last, math.nan
        return first, last, (out.argmax(-1) == y).double().mean().item()
