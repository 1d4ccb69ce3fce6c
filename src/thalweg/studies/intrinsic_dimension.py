"""How many random dimensions does a small network need, and what does that depend on?

A quadratic with ten constraints is solved exactly in random subspaces; dense networks learn
handwritten digits, with true and with shuffled labels, in subspaces of several kinds and
dimensions. Baselines: as many randomly chosen coordinates, and another draw of the same projection.

Source: C. Li, H. Farkhoor, R. Liu, J. Yosinski 2018, arXiv 1804.08838.

Cost: paper does 1460 × the work of quick (hard_steps * len(hard_dims) * len(hard_lrs) * (1e6 +
batch * len(large) * large[0] ** 2)), in 4 GB.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from thalweg.data import Digits, digits
from thalweg.numerics import dense_projection
from thalweg.studies.figures import Figures, data_hash
from thalweg.trajectory import IntrinsicDimensionResult, measure_intrinsic_dimension

__all__ = ["PRESETS", "Config", "run"]

CONSTRAINTS = 10
PROJECTIONS = ("dense", "sparse", "fastfood")


@dataclass(frozen=True)
class Config:
    """Settings.

    Attributes:
        num_train: images.
        num_steps: of Adam with cosine decay.
        batch: images a step.
        lr: of the subspace.
        full_lr: of full training, and of training chosen coordinates.
        dims: to look through for the digits.
        coordinates: to look through for chosen coordinates.
        compared: dimensions in which the projections are compared.
        small: widths of the hidden layers of the small network.
        large: those of the large one.
        middle: those of the one for the comparison.
        hard_steps: steps for memorising labels.
        easy_dims: to look through for true labels by training accuracy.
        hard_dims: those for shuffled labels; the number of parameters counts as the next.
        hard_lrs: the best one is taken for each dimension.
    """

    num_train: int = 1400
    num_steps: int = 400
    batch: int = 128
    lr: float = 0.1
    full_lr: float = 0.01
    dims: tuple[int, ...] = (40, 60, 100, 150, 200, 300)
    coordinates: tuple[int, ...] = (100, 200, 400, 800, 1600)
    compared: tuple[int, ...] = (20, 40, 60, 120)
    small: tuple[int, ...] = (50,)
    large: tuple[int, ...] = (100, 100)
    middle: tuple[int, ...] = (100,)
    hard_steps: int = 2000
    easy_dims: tuple[int, ...] = (40, 60, 100, 150)
    hard_dims: tuple[int, ...] = (500, 1000, 2000)
    hard_lrs: tuple[float, ...] = (0.1, 0.03)


PRESETS = {
    "smoke": Config(
        num_train=400,
        num_steps=100,
        batch=64,
        dims=(40, 100, 200),
        coordinates=(200, 800),
        compared=(20, 40),
        large=(80, 80),
        hard_steps=100,
        easy_dims=(40, 100),
        hard_dims=(1000,),
        hard_lrs=(0.03,),
    ),
    "quick": Config(),
    "full": Config(
        num_steps=2000,
        dims=(20, 40, 60, 80, 100, 125, 150, 200, 300),
        hard_steps=10_000,
        hard_dims=(500, 1000, 1500, 2000, 2500, 3000, 3500),
        hard_lrs=(0.1, 0.03, 0.01, 0.003),
    ),
    "paper": Config(
        num_steps=10_000,
        small=(200, 200),
        middle=(200, 200),
        large=(400, 400, 400),
        dims=(50, 100, 200, 400, 800),
        hard_steps=50_000,
        hard_dims=(1000, 3000, 10_000, 20_000, 40_000),
        hard_lrs=(0.1, 0.03, 0.01, 0.003),
    ),
}


class _Coordinates(nn.Module):
    """A module of which a few randomly chosen numbers are trained."""

    def __init__(self, module: nn.Module, d: int, seed: int) -> None:
        super().__init__()
        self.module = copy.deepcopy(module).requires_grad_(False)
        self.shapes = {n: p.shape for n, p in module.named_parameters()}
        self.D = sum(s.numel() for s in self.shapes.values())
        generator = torch.Generator().manual_seed(seed)
        self.chosen = torch.randperm(self.D, generator=generator)[:d]
        self.theta = nn.Parameter(torch.zeros(d))

    def forward(self, x: Tensor) -> Tensor:
        steps = x.new_zeros(self.D).index_add(0, self.chosen, self.theta)
        pieces = steps.split([s.numel() for s in self.shapes.values()])
        moved = {
            n: self.module.get_parameter(n) + piece.view(shape)
            for (n, shape), piece in zip(self.shapes.items(), pieces, strict=True)
        }
        return functional_call(self.module, moved, (x,))


def run(config: Config, seed: int) -> Figures:
    """One seed of every claim."""
    data = digits(seed=seed, num_train=config.num_train)
    small = _measured(config, data, config.small, config.dims, seed, projection="dense")
    large = _measured(config, data, config.large, config.dims, seed, projection="dense")
    hard, easy = _memorised(config, data, seed, True), _memorised(config, data, seed, False)
    toy = {d: _toy_loss(d, seed) for d in range(1, CONSTRAINTS + 3)}
    curves = _compared(config, data, seed)
    dense, again = curves["dense"], curves["dense, again"]
    shares = torch.stack([curves[p] for p in PROJECTIONS])
    halves = [
        abs(float(dense[i] - dense[j]))
        for i, a in enumerate(config.compared)
        for j, b in enumerate(config.compared)
        if a == 2 * b
    ]
    dims, compared = list(map(float, config.dims)), list(map(float, config.compared))
    return Figures(
        samples={
            "exact_on_toy": min(d for d, loss in toy.items() if loss < 1e-8),
            "far_below_size": small.D / small.interpolated,
            "constant_in_size": large.interpolated / small.interpolated,
            "harder_needs_more": min(hard.interpolated, hard.D) / easy.interpolated,
            "projections_agree": float((shares.max(0).values - shares.min(0).values).max()),
        },
        baselines={
            "exact_on_toy": CONSTRAINTS,
            "far_below_size": _coordinates(config, data, small, seed),
            "constant_in_size": large.D / small.D,
            "harder_needs_more": easy.interpolated,
            "projections_agree": float((dense - again).abs().max()),
        },
        controls={
            "exact_on_toy": toy[CONSTRAINTS - 1],
            "projections_agree": max(halves),
        },
        curves={
            "share of the full score, small network": (dims, small.curve()[1]),
            "share of the full score, large network": (dims, large.curve()[1]),
            "training accuracy, shuffled labels": hard.curve(),
            "training accuracy, true labels": easy.curve(),
            **{f"share of the full score, {n}": (compared, s.tolist()) for n, s in curves.items()},
            "loss of the quadratic": (list(map(float, toy)), list(toy.values())),
        },
        data_hash=data_hash(data.x, data.y),
    )


def _toy_loss(d: int, seed: int) -> float:
    """Loss at the best point of a subspace: 1000 numbers in ten groups with prescribed sums."""
    generator = torch.Generator().manual_seed(seed)
    start = torch.randn(1000, generator=generator, dtype=torch.float64)
    A = torch.block_diag(*[torch.ones(1, 100)] * CONSTRAINTS).double()
    AP = A @ dense_projection(1000, d, seed, dtype=torch.float64)
    left = torch.arange(CONSTRAINTS).double() - A @ start
    theta = torch.linalg.lstsq(AP, left[:, None]).solution
    return float((AP @ theta - left[:, None]).square().sum())


def _network(widths: Sequence[int]) -> nn.Sequential:
    sizes = [64, *widths]
    model = nn.Sequential()
    for i, (a, b) in enumerate(pairwise(sizes)):
        model.append(nn.Linear(a, b)).append(nn.ReLU() if i < len(widths) else nn.Identity())
    return model.append(nn.Linear(sizes[-1], 10))


def _trainer(
    x: Tensor, y: Tensor, num_steps: int, batch: int, full_lr: float
) -> Callable[..., None]:
    """Adam with cosine decay; a bare network takes its own learning rate."""

    def train(model: nn.Module, lr: float, seed: int) -> None:
        inside = hasattr(model, "theta")
        params = [p for p in model.parameters() if p.requires_grad]
        optimizer = torch.optim.Adam(params, lr if inside else full_lr)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, num_steps)
        generator = torch.Generator().manual_seed(seed)
        for _ in range(num_steps):
            rows = torch.randint(len(y), (batch,), generator=generator)
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x[rows]), y[rows]).backward()
            optimizer.step()
            schedule.step()

    return train


def _accuracy(x: Tensor, y: Tensor) -> Callable[[nn.Module], float]:
    @torch.no_grad()
    def score(model: nn.Module) -> float:
        return float((model(x).argmax(1) == y).double().mean())

    return score


def _measured(
    config: Config,
    data: Digits,
    widths: Sequence[int],
    dims: Sequence[int],
    seed: int,
    draw: int | None = None,
    **options: Any,
) -> IntrinsicDimensionResult:
    """By test accuracy; ``draw`` is the seed of the projection alone."""
    return measure_intrinsic_dimension(
        lambda: _network(widths),
        _trainer(data.x, data.y, config.num_steps, config.batch, config.full_lr),
        _accuracy(data.x_test, data.y_test),
        dims,
        seeds=[seed],
        lrs=[config.lr],
        **({} if draw is None else {"seed": draw}),
        **options,
    )


def _memorised(config: Config, data: Digits, seed: int, shuffled: bool) -> IntrinsicDimensionResult:
    """By training accuracy, on shuffled or true labels."""
    order = torch.randperm(len(data.y), generator=torch.Generator().manual_seed(seed))
    y = data.y[order] if shuffled else data.y
    return measure_intrinsic_dimension(
        lambda: _network(config.small),
        _trainer(data.x, y, config.hard_steps, config.batch, config.full_lr),
        _accuracy(data.x, y),
        config.hard_dims if shuffled else config.easy_dims,
        seeds=[seed],
        lrs=config.hard_lrs,
        stop_when_reached=True,
    )


def _coordinates(config: Config, data: Digits, full: IntrinsicDimensionResult, seed: int) -> float:
    """Parameters over the number of chosen coordinates that is enough."""
    train = _trainer(data.x, data.y, config.num_steps, config.batch, config.full_lr)
    score, rows = _accuracy(data.x_test, data.y_test), []
    for d in config.coordinates:
        torch.manual_seed(seed)
        model = _Coordinates(_network(config.small), d, seed)
        train(model, config.lr, seed)
        rows.append([score(model)])
    scores = torch.tensor(rows, dtype=torch.float64)
    found = IntrinsicDimensionResult(
        config.coordinates, scores, full.baseline, full.threshold, 0.0, full.D
    )
    return full.D / min(found.interpolated, full.D)


def _compared(config: Config, data: Digits, seed: int) -> dict[str, Tensor]:
    """Share of the full score by projection, each the mean of two draws."""
    wanted = [(p, p, 2 * seed) for p in PROJECTIONS]
    wanted.append(("dense, again", "dense", 2 * seed + 1_000_000))
    found, full = {}, None
    for name, projection, first in wanted:
        results = []
        for draw in (first, first + 1):
            one = _measured(
                config,
                data,
                config.middle,
                config.compared,
                seed,
                draw,
                projection=projection,
                baseline=full,
            )
            full = float(one.baseline.mean())
            results.append(torch.tensor(one.curve()[1]))
        found[name] = torch.stack(results).mean(0)
    return found
