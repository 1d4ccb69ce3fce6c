"""An upper loss whose curvature grows exponentially, over a quadratic lower problem, with noise.

The first problem of the study ``bilevel_cleaning``.

Source: the setting is that of J. Hao, X. Gong, M. Liu 2024, arXiv 2401.09587, made small.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from thalweg.optim import BOREP, BilevelProblem, hypergradient
from thalweg.optim.bilevel_solver import BilevelSolver
from thalweg.studies.bilevel_peers import calls_of_borep, peers, scaled
from thalweg.studies.figures import thin

__all__ = ["Exponential", "Found", "exponential"]


@dataclass(frozen=True)
class Exponential:
    """Settings.

    Attributes:
        num_steps: BO-REP's on the first problem.
        dim: of both variables there.
        noise: of each coefficient, relative.
        draws: noises that batches are drawn from; their mean is zero.
        starts: norms of the lower solution at the starts.
        lr: BO-REP's there.
        num_terms: of the series, in both problems.
        lrs: step sizes of the others there.
        looks: steps over which that distance is averaged.
        far: distance of the lower variable from its solution where refinement is tested.
        periods: BO-REP's; 1 and 8 are compared.
    """

    num_steps: int = 800
    dim: int = 5
    noise: float = 0.05
    draws: int = 64
    starts: tuple[float, ...] = (5.0, 12.0, 20.0)
    lr: float = 0.03
    num_terms: int = 10
    lrs: tuple[float, ...] = (1e-8, 1e-6, 1e-4, 1e-3, 1e-2, 3e-2)
    far: float = 100.0
    looks: int = 100
    periods: tuple[int, ...] = (1, 8)


@dataclass
class Found:
    """Figures as they come."""

    samples: dict[str, float] = field(default_factory=dict)
    baselines: dict[str, float] = field(default_factory=dict)
    controls: dict[str, float] = field(default_factory=dict)
    curves: dict[str, tuple[list[float], list[float]]] = field(default_factory=dict)


class _Problem:
    """f = Σ cosh(y) − d, g = ½ yᵀHy − yᵀBx, for one or many pairs (…, d) at once.

    H has eigenvalues from 1 to 3. B is a rotation times a number that puts the farthest start at
    two thirds of the way that BO-REP's steps can go in all. (With B twice a rotation, as first
    tried, it lay at 0.77 to 0.96 of it, and two of three seeds were still on their way at the end.)
    A batch is the weights of f's terms, H and B, each with its noise.
    """

    def __init__(self, config: Exponential, seed: int) -> None:
        self.generator = generator = torch.Generator().manual_seed(seed)
        d, n = config.dim, config.draws

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, dtype=torch.float64, generator=generator)

        q, r = (torch.linalg.qr(normal(d, d))[0] for _ in range(2))
        self.H = (q * torch.linspace(1, 3, d, dtype=torch.float64)) @ q.T
        away = normal(d)
        self.unit = away / away.norm()
        reach = 2 / 3 * config.lr * config.num_steps
        self.B = r * (config.starts[-1] * (self.H @ self.unit).norm() / reach)
        self.inverse = torch.linalg.inv(self.H)
        noises = [config.noise * normal(n, *shape) for shape in ((d,), (d, d), (d, d))]
        noises[1] = (noises[1] + noises[1].mT) / math.sqrt(2)
        of_f, of_H, of_B = (1 + e - e.mean(0) for e in noises)
        self.batches = list(zip(of_f, self.H * of_H, self.B * of_B, strict=True))
        self.lower_lr = 0.3
        self.problem = BilevelProblem(self._upper, self._lower)

    def _upper(self, x: Tensor, y: Tensor, batch: tuple[Tensor, ...]) -> Tensor:
        return (batch[0] * (torch.cosh(y) - 1)).sum()

    def _lower(self, x: Tensor, y: Tensor, batch: tuple[Tensor, ...]) -> Tensor:
        _, H, B = batch
        return 0.5 * ((y @ H) * y).sum() - (y * (x @ B.T)).sum()

    def draw(self) -> tuple[Tensor, ...]:
        i = int(torch.randint(len(self.batches), (), generator=self.generator))
        return self.batches[i]

    def start(self, norm: float) -> Tensor:
        """The x whose lower solution has this norm, (d,)."""
        return torch.linalg.solve(self.B, self.H @ (norm * self.unit))

    def solution(self, x: Tensor) -> Tensor:
        return x @ self.B.T @ self.inverse

    def gradient(self, x: Tensor) -> Tensor:
        """‖∇Φ‖, (…,)."""
        return (self.solution(x).sinh() @ self.inverse @ self.B).norm(dim=-1)


def exponential(config: Exponential, seed: int) -> Found:
    """BO-REP's claims of any start, refinement and period, and its peers."""
    found = Found()
    toy = _Problem(config, seed)

    def borep(start: float, period: int = 2) -> Tensor:
        x = toy.start(start)
        solver = BOREP(
            *(toy.problem, x, toy.solution(x)),
            **{"lr": config.lr, "lower_lr": toy.lower_lr, "period": period},
            num_terms=config.num_terms,
        )
        norms = []
        for _ in range(config.num_steps):
            solver.step(toy.draw(), toy.draw)
            norms.append(toy.gradient(solver.x))
        return torch.stack(norms)

    norms = {s: borep(s) for s in config.starts}
    ends = {s: _end(n) for s, n in norms.items()}
    momentum = _momentum(config, toy)
    best = _end(momentum).amin(0).tolist()
    first, last = config.starts[0], config.starts[-1]
    found.samples["any_start"] = max(ends.values())
    found.baselines["any_start"], found.controls["any_start"] = best[0], best[-1]

    calls = calls_of_borep(config.num_terms, 3)
    found.curves["final ‖∇Φ‖ against norm of the start, BO-REP"] = _points(ends)
    found.curves[f"‖∇Φ‖ from norm {last:g}, BO-REP"] = _thinned(norms[last], calls)
    finals = {"momentum SGD": (momentum, calls)}
    for name, (make, calls_a_step) in peers(config.num_terms, 3, toy.batches, toy.lower_lr).items():
        steps = int(config.num_steps * calls / calls_a_step)
        finals[name] = (
            _many(config, toy, make, steps, draws=name != "SABA"),
            calls_a_step,
        )
    for name, (series, calls_a_step) in finals.items():
        end = _end(series)
        found.curves[f"final ‖∇Φ‖ against norm of the start, {name}"] = (
            list(config.starts),
            end.amin(0).tolist(),
        )
        tuned = series[:, int(end[:, -1].argmin()), -1]
        found.curves[f"‖∇Φ‖ from norm {last:g}, {name}"] = _thinned(tuned, calls_a_step)

    middle = config.starts[len(config.starts) // 2]
    periods = {p: _end(borep(middle, p)) for p in config.periods}
    found.samples["periodic_updates"] = periods[8] / periods[1]
    found.baselines["periodic_updates"] = periods[1]
    found.curves["final ‖∇Φ‖ against period"] = _points(periods)

    refined, raw = (_distance(config, toy, first, steps) for steps in (100, 0))
    found.samples["refinement"] = float(raw.mean() / refined.mean())
    found.baselines["refinement"] = float(raw.mean())
    for name, series in (("refined", refined), ("not refined", raw)):
        found.curves[f"distance to the lower solution, {name}"] = _thinned(series, 1.0)
    return found


def _distance(config: Exponential, toy: _Problem, start: float, refine_steps: int) -> Tensor:
    """‖y − y*(x)‖ over the first steps, from a y that is far off, (looks,)."""
    x = toy.start(start)
    solver = BOREP(
        *(toy.problem, x, toy.solution(x) + config.far * toy.unit.flip(0)),
        **{"lr": config.lr, "lower_lr": toy.lower_lr, "refine_steps": refine_steps},
        num_terms=config.num_terms,
    )
    distances = []
    for _ in range(config.looks):
        x = solver.x.clone()
        solver.step(toy.draw(), toy.draw)
        distances.append((solver.y - toy.solution(x)).norm())
    return torch.stack(distances)


def _momentum(config: Exponential, toy: _Problem) -> Tensor:
    """‖∇Φ‖ of momentum SGD with BO-REP's lower steps, (steps, step sizes, starts)."""
    starts = torch.stack([toy.start(s) for s in config.starts])
    lrs = torch.tensor(config.lrs, dtype=torch.float64)[:, None, None]
    x = starts.expand(len(config.lrs), -1, -1)
    y, m, norms = toy.solution(x), torch.zeros_like(x), []
    for k in range(config.num_steps):
        for _ in range(3 if k and k % 2 == 0 else 0):
            _, H, B = toy.draw()
            y = y - toy.lower_lr * (y @ H - x @ B.T)
        m = 0.9 * m + hypergradient(
            *(toy.problem, x, y),
            batch=toy.draw(),
            num_terms=config.num_terms,
            lr=toy.lower_lr,
        )
        x = x - lrs * m
        norms.append(toy.gradient(x))
    return torch.stack(norms)


def _many(
    config: Exponential,
    toy: _Problem,
    make: Callable[..., BilevelSolver],
    steps: int,
    draws: bool,
) -> Tensor:
    """‖∇Φ‖ of a method, (steps, step sizes, starts): all at once, as u with x = √lr · u."""
    starts = torch.stack([toy.start(s) for s in config.starts])
    x = starts.expand(len(config.lrs), -1, -1)
    scale = torch.tensor(config.lrs, dtype=torch.float64).sqrt()[:, None, None]
    solver = make(scaled(toy.problem, scale), x / scale, toy.solution(x))
    norms = []
    for _ in range(steps):
        solver.step(*(toy.draw(), toy.draw) if draws else ())
        norms.append(toy.gradient(scale * solver.x))
    return torch.stack(norms)


def _end(norms: Tensor) -> Any:
    """Mean of the last 100 of (steps, …), inf where it diverged; a float for one series."""
    end = norms[-100:].mean(0).nan_to_num(nan=math.inf)
    return end if end.ndim else float(end)


def _points(by: dict[Any, float]) -> tuple[list[float], list[float]]:
    return [float(k) for k in by], list(by.values())


def _thinned(series: Tensor, calls_a_step: float) -> tuple[list[float], list[float]]:
    calls = [calls_a_step * (k + 1) for k in range(len(series))]
    return thin(calls, 100), thin(series.tolist(), 100)
