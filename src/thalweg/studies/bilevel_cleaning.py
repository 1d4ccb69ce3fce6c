"""Do normalised steps above and rare steps below solve problems of two levels that others do not?

First an upper loss whose curvature grows exponentially over a quadratic lower problem, with noise
in both: BO-REP at one step size from three starts, without its refinement, and at other periods.
Then digits of which 40 % have a wrong label: the weight of every image is learnt so that the
classifier does well on a few clean ones. Baselines: momentum SGD on the same hypergradient, and
uniform weights. In the curves, stocBiO, SOBA, SABA and TTSA with as many oracle calls (gradients of
either loss, products with the Hessian or the cross term), each at the best of its step sizes:
for the final gradient on the first problem, for the loss of the clean images on the second.

Source: J. Hao, X. Gong, M. Liu 2024, arXiv 2401.09587.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from thalweg.data import corrupt_labels, digits
from thalweg.optim import (
    BOREP,
    BilevelProblem,
    hypergradient,
    saba,
    soba,
    stocbio,
    ttsa,
)
from thalweg.optim.bilevel_solver import BilevelSolver
from thalweg.studies.figures import Figures, data_hash, thin

__all__ = ["PRESETS", "Config", "run"]

POINTS = 30


@dataclass(frozen=True)
class Config:
    """Settings of both problems.

    Attributes:
        num_steps: BO-REP's on the first problem.
        dim: of both variables there.
        noise: of each coefficient, relative.
        draws: noises that batches are drawn from; their mean is zero.
        starts: norms of the lower solution at the starts.
        lr: BO-REP's there.
        num_terms: of the series, in both problems.
        lrs: step sizes of the others there.
        far: distance of the lower variable from its solution where refinement is tested.
        periods: BO-REP's; 1 and 8 are compared.
        cleaning_steps: BO-REP's on the second problem.
        num_train: images with wrong labels among them.
        num_clean: clean images.
        rate: share of wrong labels.
        cleaning_lr: BO-REP's.
        cleaning_lrs: step sizes of the others.
        penalty: of the lower problem, times ‖y‖².
        penalties: that uniform weights choose from.
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
    periods: tuple[int, ...] = (1, 8)
    cleaning_steps: int = 300
    num_train: int = 600
    num_clean: int = 200
    rate: float = 0.4
    cleaning_lr: float = 0.5
    cleaning_lrs: tuple[float, ...] = (10.0, 100.0, 1000.0)
    penalty: float = 1e-3
    penalties: tuple[float, ...] = (1e-4, 1e-3, 1e-2, 1e-1)


PRESETS = {
    "smoke": Config(num_steps=300, starts=(2.0, 5.0), lrs=(1e-3,), cleaning_steps=60,
                    num_terms=5, cleaning_lrs=(100.0,)),
    "quick": Config(),
    "full": Config(num_steps=4000, num_terms=20, periods=(1, 2, 4, 8), cleaning_steps=1000,
                   cleaning_lrs=(3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0)),
    "paper": Config(num_steps=20_000, num_terms=20, periods=(1, 2, 4, 8), cleaning_steps=3000,
                    num_train=1200, cleaning_lrs=(3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0)),
}  # fmt: skip


@dataclass
class _Found:
    """Figures as they come."""

    samples: dict[str, float] = field(default_factory=dict)
    baselines: dict[str, float] = field(default_factory=dict)
    controls: dict[str, float] = field(default_factory=dict)
    curves: dict[str, tuple[list[float], list[float]]] = field(default_factory=dict)


def run(config: Config, seed: int) -> Figures:
    """One seed of every claim."""
    found = _Found()
    _exponential(config, seed, found)
    hashed = _cleaning(config, seed, found)
    return Figures(found.samples, found.baselines, found.controls, found.curves, hashed)


# The first problem


class _Exponential:
    """f = Σ cosh(y) − d, g = ½ yᵀHy − yᵀBx, for one or many pairs (…, d) at once.

    H has eigenvalues from 1 to 3, B is twice a rotation. A batch is a relative noise of f, H, B.
    """

    def __init__(self, config: Config, seed: int) -> None:
        self.generator = generator = torch.Generator().manual_seed(seed)
        d, n = config.dim, config.draws

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, dtype=torch.float64, generator=generator)

        q, r = (torch.linalg.qr(normal(d, d))[0] for _ in range(2))
        self.H = (q * torch.linspace(1, 3, d, dtype=torch.float64)) @ q.T
        self.inverse, self.B = torch.linalg.inv(self.H), 2 * r
        away = normal(d)
        self.unit = away / away.norm()
        noises = [config.noise * normal(n, *shape) for shape in ((d,), (d, d), (d, d))]
        noises[1] = (noises[1] + noises[1].mT) / math.sqrt(2)
        self.batches = list(zip(*(e - e.mean(0) for e in noises), strict=True))
        self.lower_lr = 0.3
        self.problem = BilevelProblem(self._upper, self._lower)

    def _upper(self, x: Tensor, y: Tensor, batch: tuple[Tensor, ...]) -> Tensor:
        return ((1 + batch[0]) * (torch.cosh(y) - 1)).sum()

    def _lower(self, x: Tensor, y: Tensor, batch: tuple[Tensor, ...]) -> Tensor:
        H, B = self.H * (1 + batch[1]), self.B * (1 + batch[2])
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


def _exponential(config: Config, seed: int, found: _Found) -> None:
    toy = _Exponential(config, seed)

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

    calls = _calls_of_borep(config, 3)
    found.curves["final ‖∇Φ‖ against norm of the start, BO-REP"] = _points(ends)
    found.curves[f"‖∇Φ‖ from norm {last:g}, BO-REP"] = _thinned(norms[last], calls)
    finals = {"momentum SGD": (momentum, calls)}
    for name, (make, calls_a_step) in _peers(config, 3, toy.batches, toy.lower_lr).items():
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


def _distance(config: Config, toy: _Exponential, start: float, refine_steps: int) -> Tensor:
    """‖y − y*(x)‖ over the first 100 steps, from a y that is far off, (100,)."""
    x = toy.start(start)
    solver = BOREP(
        *(toy.problem, x, toy.solution(x) + config.far * toy.unit.flip(0)),
        **{"lr": config.lr, "lower_lr": toy.lower_lr, "refine_steps": refine_steps},
        num_terms=config.num_terms,
    )
    distances = []
    for _ in range(100):
        x = solver.x.clone()
        solver.step(toy.draw(), toy.draw)
        distances.append((solver.y - toy.solution(x)).norm())
    return torch.stack(distances)


def _momentum(config: Config, toy: _Exponential) -> Tensor:
    """‖∇Φ‖ of momentum SGD with BO-REP's lower steps, (steps, step sizes, starts)."""
    starts = torch.stack([toy.start(s) for s in config.starts])
    lrs = torch.tensor(config.lrs, dtype=torch.float64)[:, None, None]
    x = starts.expand(len(config.lrs), -1, -1)
    y, m, norms = toy.solution(x), torch.zeros_like(x), []
    for k in range(config.num_steps):
        for _ in range(3 if k and k % 2 == 0 else 0):
            _, H, B = toy.draw()
            y = y - toy.lower_lr * (y @ (toy.H * (1 + H)) - x @ (toy.B * (1 + B)).T)
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
    config: Config,
    toy: _Exponential,
    make: Callable[..., BilevelSolver],
    steps: int,
    draws: bool,
) -> Tensor:
    """‖∇Φ‖ of a method, (steps, step sizes, starts): all at once, as u with x = √lr · u."""
    starts = torch.stack([toy.start(s) for s in config.starts])
    x = starts.expand(len(config.lrs), -1, -1)
    scale = torch.tensor(config.lrs, dtype=torch.float64).sqrt()[:, None, None]
    solver = make(_scaled(toy.problem, scale), x / scale, toy.solution(x))
    norms = []
    for _ in range(steps):
        solver.step(*(toy.draw(), toy.draw) if draws else ())
        norms.append(toy.gradient(scale * solver.x))
    return torch.stack(norms)


def _scaled(problem: BilevelProblem, scale: Tensor) -> BilevelProblem:
    """The problem in u = x/scale: a step of length 1 is one of scale² in x."""
    return BilevelProblem(
        lambda u, y, batch: problem.upper_loss(scale * u, y, batch),
        lambda u, y, batch: problem.lower_loss(scale * u, y, batch),
    )


def _peers(
    config: Config, lower_steps: int, batches: list[Any], lower_lr: float
) -> dict[str, tuple[Callable[..., BilevelSolver], float]]:
    """Name to how the method is made, at step size 1, and its oracle calls a step."""
    terms = config.num_terms
    same = {"lr": 1.0, "lower_lr": lower_lr}
    return {
        "stocBiO": (
            lambda *a: stocbio(*a, **same, lower_steps=lower_steps, num_terms=terms),
            1 + lower_steps + terms,
        ),
        "SOBA": (lambda *a: soba(*a, **same), 4.0),
        "SABA": (lambda *a: saba(*a, **same, batches=batches), 4.0),
        "TTSA": (lambda *a: ttsa(*a, **same, num_terms=terms), 3 + (terms - 1) / 2),
    }


def _calls_of_borep(config: Config, lower_steps: int) -> float:
    """Upper gradient, products of the series, cross term, lower gradients at period 2."""
    return 1 + (config.num_terms - 1) + 1 + lower_steps / 2


def _end(norms: Tensor) -> Any:
    """Mean of the last 100 of (steps, …), inf where it diverged; a float for one series."""
    end = norms[-100:].mean(0).nan_to_num(nan=math.inf)
    return end if end.ndim else float(end)


def _points(by: dict[Any, float]) -> tuple[list[float], list[float]]:
    return [float(k) for k in by], list(by.values())


def _thinned(series: Tensor, calls_a_step: float) -> tuple[list[float], list[float]]:
    calls = [calls_a_step * (k + 1) for k in range(len(series))]
    return thin(calls, 100), thin(series.tolist(), 100)


# The second problem


@dataclass(frozen=True)
class _Images:
    """Axes: `N` images with partly wrong labels, `V` clean ones, `M` for the test."""

    x: Tensor
    noisy: Tensor
    wrong: Tensor
    x_clean: Tensor
    y_clean: Tensor
    x_test: Tensor
    y_test: Tensor


def _images(config: Config, seed: int) -> _Images:
    n = config.num_train
    data = digits(seed=seed, num_train=n + config.num_clean)
    noisy = corrupt_labels(data.y[:n], config.rate, seed=seed, num_classes=10)
    return _Images(
        *(data.x[:n], noisy, noisy != data.y[:n]),
        *(data.x[n:], data.y[n:], data.x_test, data.y_test),
    )


def _losses(y: dict[str, Tensor], x: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of each image, (…, N), for weights (…, 64, 10)."""
    logits = x @ y["weight"] + y["bias"][..., None, :]
    return (
        -logits.log_softmax(-1).gather(-1, labels.expand(logits.shape[:-1])[..., None]).squeeze(-1)
    )


def _norm2(y: dict[str, Tensor]) -> Tensor:
    return sum((t.square().sum() for t in y.values()), torch.zeros(()))


def _cleaning(config: Config, seed: int, found: _Found) -> str:
    images = _images(config, seed)
    n, v = config.num_train, config.num_clean
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    every = (torch.arange(n), torch.arange(v))
    halves = [(order[i::2], torch.arange(v)[i::2]) for i in range(2)]

    def upper(x: Tensor, y: dict[str, Tensor], rows: tuple[Tensor, Tensor]) -> Tensor:
        return _losses(y, images.x_clean[rows[1]], images.y_clean[rows[1]]).mean(-1).sum()

    def lower(x: Tensor, y: dict[str, Tensor], rows: tuple[Tensor, Tensor]) -> Tensor:
        losses = _losses(y, images.x[rows[0]], images.noisy[rows[0]])
        weighted = (x.sigmoid()[..., rows[0]] * losses).mean(-1).sum()
        return weighted + config.penalty * _norm2(y)

    problem, lower_lr = BilevelProblem(upper, lower), 1 / 3
    y = {"weight": torch.zeros(64, 10), "bias": torch.zeros(10)}
    solver = BOREP(
        *(problem, torch.ones(n), y),
        **{"lr": config.cleaning_lr, "lower_lr": lower_lr, "lower_steps": 5},
        num_terms=config.num_terms,
    )
    calls = config.cleaning_steps * _calls_of_borep(config, 5)
    looks = _followed(solver, (every,), config.cleaning_steps, images, torch.ones(1, 1))
    budget = [(i + 1) / POINTS for i in range(POINTS)]
    tuned = {"BO-REP": looks[:, 0]}

    scale = torch.tensor(config.cleaning_lrs).sqrt()[:, None]
    for name, (make, calls_a_step) in _peers(config, 5, halves, lower_lr).items():
        steps = int(calls / calls_a_step) * (2 if name == "SABA" else 1)  # halves cost half
        many = {k: t.expand(len(scale), *t.shape) for k, t in y.items()}
        peer = make(_scaled(problem, scale), torch.ones(len(scale), n) / scale, many)
        given = () if name == "SABA" else (every,)
        series = _followed(peer, given, steps, images, scale)
        best = int(series[-1, :, 0].nan_to_num(nan=math.inf).argmin())
        tuned[name] = series[:, best]
        for i, what in ((1, "test accuracy"), (2, "area under the curve")):
            found.curves[f"final {what} against step size, {name}"] = (
                list(config.cleaning_lrs),
                series[-1, :, i].tolist(),
            )
    for name, series in tuned.items():
        for i, what in ((0, "loss of the clean images"), (1, "test accuracy"), (2, "area")):
            found.curves[f"{what} against share of the budget, {name}"] = (
                budget,
                series[:, i].tolist(),
            )
    _compare(config, images, looks[-1, 0], solver.x, seed, found)
    return data_hash(images.x, images.noisy)


def _followed(
    solver: BilevelSolver,
    batches: tuple[Any, ...],
    num_steps: int,
    images: _Images,
    scale: Tensor,
) -> Tensor:
    """Steps, and (POINTS, step sizes, 3): clean loss, test accuracy, area of the weights."""
    looks, done = [], 0
    for i in range(POINTS):
        for _ in range(round((i + 1) * num_steps / POINTS) - done):
            solver.step(*batches)
            done += 1
        y = {k: t.reshape(len(scale), *t.shape[-2 if k == "weight" else -1 :])
             for k, t in solver.y.items()}  # fmt: skip
        weights = scale * solver.x.reshape(len(scale), -1)
        areas = torch.tensor([_area(-w, images.wrong) for w in weights])
        clean = _losses(y, images.x_clean, images.y_clean).mean(-1)
        looks.append(torch.stack([clean, _accuracy(y, images), areas], -1))
    return torch.stack(looks)


def _compare(
    config: Config, images: _Images, end: Tensor, x: Tensor, seed: int, found: _Found
) -> None:
    """BO-REP's end against uniform weights, and against the clean images alone."""
    uniform = {p: _fit(images.x, images.noisy, p) for p in config.penalties}
    right = {p: _clean_accuracy(y, images) for p, y in uniform.items()}
    chosen = uniform[max(right, key=lambda p: right[p])]
    accuracy = float(_accuracy(chosen, images))
    shuffled = torch.randperm(config.num_train, generator=torch.Generator().manual_seed(seed))
    losses = _losses(chosen, images.x, images.noisy)
    found.samples["cleaning_accuracy"] = float(end[1]) - accuracy
    found.baselines["cleaning_accuracy"] = accuracy
    found.samples["cleaning_auc"] = float(end[2])
    found.baselines["cleaning_auc"] = _area(losses, images.wrong)
    found.controls["cleaning_auc"] = _area(-x, images.wrong[shuffled])
    alone = {p: _fit(images.x_clean, images.y_clean, p) for p in config.penalties}
    for name, fits in (("uniform weights", uniform), ("the clean images alone", alone)):
        found.curves[f"test accuracy against penalty, {name}"] = (
            list(config.penalties),
            [float(_accuracy(y, images)) for y in fits.values()],
        )


def _fit(x: Tensor, labels: Tensor, penalty: float) -> dict[str, Tensor]:
    """Logistic regression to its solution."""
    y = {"weight": torch.zeros(64, 10), "bias": torch.zeros(10)}
    params = [t.requires_grad_() for t in y.values()]
    optimizer = torch.optim.LBFGS(params, max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = _losses(y, x, labels).mean() + penalty * _norm2(y)
        loss.backward()
        return loss

    optimizer.step(closure)
    return {k: t.detach() for k, t in y.items()}


def _accuracy(y: dict[str, Tensor], images: _Images) -> Tensor:
    """Share of test images that are right, (…,)."""
    logits = images.x_test @ y["weight"] + y["bias"][..., None, :]
    return (logits.argmax(-1) == images.y_test).float().mean(-1)


def _clean_accuracy(y: dict[str, Tensor], images: _Images) -> float:
    logits = images.x_clean @ y["weight"] + y["bias"]
    return float((logits.argmax(-1) == images.y_clean).float().mean())


def _area(score: Tensor, positive: Tensor) -> float:
    """Area under the ROC curve: share of pairs in the right order, half for ties."""
    above = score[positive][:, None] - score[~positive]
    return float((above > 0).float().mean() + 0.5 * (above == 0).float().mean())
