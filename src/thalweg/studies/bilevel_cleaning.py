"""Do normalised steps above and rare steps below solve problems of two levels that others do not?

First an upper loss whose curvature grows exponentially over a quadratic lower problem, with noise
in both: BO-REP at one step size from three starts, without its refinement, and at other periods.
Then digits of which 40 % have a wrong label: the weight of every image is learnt so that the
classifier does well on a few clean ones. Baselines: momentum SGD on the same hypergradient, and
uniform weights. In the curves, stocBiO, SOBA, SABA and TTSA with as many oracle calls (gradients of
either loss, products with the Hessian or the cross term), each at the best of its step sizes:
for the final gradient on the first problem, for the loss of the clean images on the second.

Source: J. Hao, X. Gong, M. Liu 2024, arXiv 2401.09587.

Cost: paper does 100 × the work of quick (num_steps * num_terms * len(periods)), in 1 GB.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from thalweg.data import corrupt_labels, digits
from thalweg.optim import BOREP, BilevelProblem
from thalweg.optim.bilevel_solver import BilevelSolver
from thalweg.studies.bilevel_exponential import Exponential, Found, exponential
from thalweg.studies.bilevel_peers import calls_of_borep, peers, scaled
from thalweg.studies.figures import Figures, data_hash

__all__ = ["PRESETS", "Config", "run"]

POINTS = 30


@dataclass(frozen=True)
class Config(Exponential):
    """Settings of both problems; those of the first are inherited.

    Attributes:
        cleaning_steps: BO-REP's on the second problem.
        num_train: images with wrong labels among them.
        num_clean: clean images.
        rate: share of wrong labels.
        cleaning_lr: BO-REP's.
        cleaning_lrs: step sizes of the others.
        penalty: of the lower problem, times ‖y‖².
        penalties: that uniform weights choose from.
    """

    cleaning_steps: int = 300
    num_train: int = 600
    num_clean: int = 200
    rate: float = 0.4
    cleaning_lr: float = 0.5
    cleaning_lrs: tuple[float, ...] = (10.0, 100.0, 1000.0)
    penalty: float = 1e-3
    penalties: tuple[float, ...] = (1e-4, 1e-3, 1e-2, 1e-1)


PRESETS = {
    "smoke": Config(num_steps=40, lr=0.2, starts=(2.0, 5.0), lrs=(1e-3,), looks=30, num_terms=4,
                    cleaning_steps=20, cleaning_lrs=(100.0,)),
    "quick": Config(),
    "full": Config(num_steps=4000, num_terms=20, periods=(1, 2, 4, 8), cleaning_steps=1000,
                   cleaning_lrs=(3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0)),
    "paper": Config(num_steps=20_000, num_terms=20, periods=(1, 2, 4, 8), cleaning_steps=3000,
                    num_train=1200, cleaning_lrs=(3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0)),
}  # fmt: skip


def run(config: Config, seed: int) -> Figures:
    """One seed of every claim."""
    found = exponential(config, seed)
    hashed = _cleaning(config, seed, found)
    return Figures(found.samples, found.baselines, found.controls, found.curves, hashed)


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


def _cleaning(config: Config, seed: int, found: Found) -> str:
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
    calls = config.cleaning_steps * calls_of_borep(config.num_terms, 5)
    looks = _followed(solver, (every,), config.cleaning_steps, images, torch.ones(1, 1))
    budget = [(i + 1) / POINTS for i in range(POINTS)]
    tuned = {"BO-REP": looks[:, 0]}

    scale = torch.tensor(config.cleaning_lrs).sqrt()[:, None]
    for name, (make, calls_a_step) in peers(config.num_terms, 5, halves, lower_lr).items():
        steps = int(calls / calls_a_step) * (2 if name == "SABA" else 1)  # halves cost half
        many = {k: t.expand(len(scale), *t.shape) for k, t in y.items()}
        peer = make(scaled(problem, scale), torch.ones(len(scale), n) / scale, many)
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
    config: Config, images: _Images, end: Tensor, x: Tensor, seed: int, found: Found
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
