"""How do the largest stable and the best learning rate move with the width?

Nets on digits: the largest stable rate of SGD over widths under cross-entropy and squared error, in
standard parametrisation and muP; logits over widths at a rate of exponent −½; the best rate of Adam
over widths in both parametrisations. ``make_model=FILE.py:FUNCTION`` puts a model of one's own in
place of the nets: a function from the width to a module from 64 inputs to 10 outputs, its readout a
``MuReadout``.

Source: Haas, Bordt, von Luxburg, Vankadara 2025, arXiv 2505.22491; Yang, Hu et al. 2022, arXiv
2203.03466.

Cost: paper does 3410 × the work of quick (steps * depth * batch_size * widest**2), in 16 GB.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from thalweg.data import Digits, digits
from thalweg.instruments import LrWidthScaling, lr_width_scaling
from thalweg.instruments.width_training import MakeModel, batches, make_optimizer, model_at
from thalweg.nn import MuReadout
from thalweg.numerics import fit_exponent
from thalweg.studies.figures import Figures, data_hash
from thalweg.studies.user_function import user_function

__all__ = ["PRESETS", "Config", "run"]

NARROWEST = 64
# long enough upwards for models of one's own: a sweep stops where training fails
CE_GRID = [2 ** (i / 2) for i in range(-8, 15)]
MSE_GRID = [2 ** (i / 2) for i in range(-16, 11)]
ADAM_GRID = [2.0**i for i in range(-10, -2)]
KEPT = 0.9  # of the best accuracy over widths: a narrow net that fails must not make a slope


@dataclass(frozen=True)
class Config:
    """Settings.

    Attributes:
        widest: of the nets trained by SGD; the narrowest are 64 wide, each twice the one before.
        depth: their hidden layers.
        steps: of each training.
        batch_size: rows of a batch.
        start_lr: rate at width 64 for the growth of logits, near the largest stable one.
        transfer_widest: of the nets trained by Adam.
        transfer_depth: their hidden layers.
        make_model: FILE.py:FUNCTION from the width to a model, in place of the nets.
    """

    widest: int = 512
    depth: int = 4
    steps: int = 60
    batch_size: int = 64
    start_lr: float = 0.5
    transfer_widest: int = 1024
    transfer_depth: int = 2
    make_model: str = ""

    def __post_init__(self) -> None:
        """Refuse a function that is not there before anything is run.

        Raises:
            ThalwegError: if the file or the function cannot be loaded.
        """
        if self.make_model:
            user_function(self.make_model, "make_model")


PRESETS = {
    "smoke": Config(widest=128, depth=2, steps=10, transfer_widest=128),
    "quick": Config(),
    "full": Config(widest=2048, steps=200, transfer_widest=2048),
    "paper": Config(widest=8192, depth=8, steps=400, transfer_widest=8192),
}


def run(config: Config, seed: int) -> Figures:
    """Four small experiments of one seed."""
    data = digits(seed=seed)
    deep, shallow = _models(config)
    widths = _doubled(config.widest)
    sgd = {
        name: _sweep(config, deep, data, widths, seed, loss, grid, "sgd", parametrization)
        for name, loss, grid, parametrization in [
            ("cross-entropy", "ce", CE_GRID, "sp"),
            ("squared error", "mse", MSE_GRID, "sp"),
            ("squared error in muP", "mse", MSE_GRID, "mup"),
        ]
    }
    ce, mse, mup = (found.exponent_max for found in sgd.values())
    start = config.start_lr
    logits, hidden, kept = _growth(config, deep, data, widths, seed, start, -0.5)
    calm, _, _ = _growth(config, deep, data, widths, seed, start, -1.0)
    slower, _, _ = _growth(config, deep, data, widths, seed, start / 2, -0.5)
    sizes = _doubled(config.transfer_widest)
    adam = {
        name: _sweep(config, shallow, data, sizes, seed, "ce", ADAM_GRID, "adam", parametrization)
        for name, parametrization in [("standard", "sp"), ("muP", "mup")]
    }
    standard, transferred = (_octaves(found) for found in adam.values())
    return Figures(
        samples={
            "mse_exponent": mse,
            "ce_exponent": ce,
            "exponent_gap": ce - mse,
            "controlled_divergence": _slope(widths, logits) if kept else 0.0,
            "mup_transfer": standard - transferred,
        },
        baselines={
            "mse_exponent": -1.0,
            "ce_exponent": -0.5,
            "exponent_gap": mse,
            "controlled_divergence": _slope(widths, hidden),
            "mup_transfer": standard,
        },
        controls={"mse_exponent": mup, "controlled_divergence": _slope(widths, calm)},
        curves={
            f"log2 of the largest stable rate against log2 of the width, {name}": _logs(
                found.max_stable
            )
            for name, found in sgd.items()
        }
        | {
            f"log2 of the largest stable rate against log2 of the width, {name} (theory)": _law(
                found.max_stable, exponent
            )
            for (name, found), exponent in zip(sgd.items(), (-0.5, -1.0, 0.0), strict=True)
        }
        | {
            f"log2 of Adam's best rate against log2 of the width, {name}": _logs(found.optimal)
            for name, found in adam.items()
        }
        | {
            f"log2 of the logits against log2 of the width, {name}": _logs(
                dict(zip(widths, sizes, strict=True))
            )
            for name, sizes in [
                ("exponent −1/2", logits),
                ("exponent −1/2 from half the rate", slower),
                ("exponent −1", calm),
            ]
        },
        data_hash=data_hash(data.x),
    )


def _doubled(widest: int) -> list[int]:
    """64, 128, … up to the widest."""
    return [NARROWEST << i for i in range(max(1, int(math.log2(widest / NARROWEST))) + 1)]


def _models(config: Config) -> tuple[MakeModel, MakeModel]:
    """The nets of SGD and of Adam, or the user's model for both."""
    if config.make_model:
        own = user_function(config.make_model, "make_model")
        return own, own
    return _net(config.depth), _net(config.transfer_depth)


def _net(depth: int) -> MakeModel:
    """ReLU nets without biases in standard initialisation: variance 2/fan-in, 1/fan-in at last."""

    def make(width: int) -> nn.Module:
        layers: list[nn.Module] = []
        for fan_in in [64] + [width] * (depth - 1):
            layer = nn.Linear(fan_in, width, bias=False)
            nn.init.kaiming_normal_(layer.weight)
            layers += [layer, nn.ReLU()]
        readout = MuReadout(width, 10, bias=False)
        nn.init.normal_(readout.weight, std=width**-0.5)
        return nn.Sequential(*layers, readout)

    return make


def _sweep(
    config: Config,
    make: MakeModel,
    data: Digits,
    widths: Sequence[int],
    seed: int,
    loss: str,
    grid: Sequence[float],
    optimizer: str,
    parametrization: str,
) -> LrWidthScaling:
    return lr_width_scaling(
        make,
        (data.x, data.y),
        loss,
        widths,
        grid,
        optimizer,
        config.steps,
        [seed],
        parametrization=parametrization,
        batch_size=config.batch_size,
    )


def _growth(
    config: Config,
    make: MakeModel,
    data: Digits,
    widths: Sequence[int],
    seed: int,
    start_lr: float,
    exponent: float,
) -> tuple[list[float], list[float], bool]:
    """Root mean squares of logits and last hidden units over widths; whether all widths learnt."""
    logits, hidden, accuracies = [], [], []
    for width in widths:
        model = model_at(make, width, seed, parametrization="sp", widths=widths)
        lr = start_lr * (width / NARROWEST) ** exponent
        optimizer = make_optimizer("sgd", model, lr)
        for x, y in batches((data.x, data.y), config.steps, config.batch_size, seed):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
        out, inner = _last_two(model, data.x)
        logits.append(out.square().mean().sqrt().item())
        hidden.append(inner.square().mean().sqrt().item())
        accuracies.append((out.argmax(1) == data.y).double().mean().item())
    return logits, hidden, min(accuracies) >= KEPT * max(accuracies)


def _last_two(model: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """The output, and what the last Linear took in."""
    seen: list[Tensor] = []
    last = [m for m in model.modules() if isinstance(m, nn.Linear)][-1]
    handle = last.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    with torch.no_grad():
        out = model(x)
    handle.remove()
    return out, seen[-1]


def _slope(widths: Sequence[int], sizes: Sequence[float]) -> float:
    """Exponent of a size in the width; nan if a net diverged."""
    if not all(0 < s < math.inf for s in sizes):
        return math.nan
    return fit_exponent(list(widths), list(sizes)).exponent


def _octaves(found: LrWidthScaling) -> float:
    """Range of the best log2 rate over widths."""
    rates = found.optimal.values()
    return math.log2(max(rates) / min(rates))


def _logs(by_width: dict[int, float]) -> tuple[list[float], list[float]]:
    """Both in log2; nan where a width has no figure."""
    values = [math.log2(v) if 0 < v < math.inf else math.nan for v in by_width.values()]
    return [math.log2(w) for w in by_width], values


def _law(by_width: dict[int, float], exponent: float) -> tuple[list[float], list[float]]:
    """The power law of an exponent through the first figure, in log2."""
    x, y = _logs(by_width)
    anchors = [b - exponent * a for a, b in zip(x, y, strict=True) if math.isfinite(b)]
    start = anchors[0] if anchors else math.nan
    return x, [start + exponent * a for a in x]
