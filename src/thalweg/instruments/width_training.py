"""One short training of a model of some width: what coordinate checks and rate sweeps share.

Models of all widths see the same batches in the same order for a seed, and each is drawn from that
seed. Nothing of it touches torch's global random state.

Source: the protocol of Haas, Bordt, von Luxburg, Vankadara 2025, arXiv 2505.22491.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import Optimizer

from thalweg.errors import unknown_name
from thalweg.nn import at_width, base_shape_of
from thalweg.optim import MuAdam, MuSGD

__all__ = [
    "Data",
    "MakeModel",
    "MakeOptimizer",
    "PointLoss",
    "batches",
    "checked_widths",
    "make_optimizer",
    "model_at",
    "point_loss",
    "targets_of",
]

Data = tuple[Tensor, Tensor] | Callable[[torch.Generator], tuple[Tensor, Tensor]]
MakeModel = Callable[[int], nn.Module]
MakeOptimizer = str | Callable[..., Optimizer]
PointLoss = Callable[[Tensor, Tensor], Tensor]

PLAIN = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}
SCALED = {"sgd": MuSGD, "adam": MuAdam}


def checked_widths(widths: Iterable[int]) -> list[int]:
    """Widths in ascending order.

    Raises:
        ValueError: for fewer than two distinct ones, or one below 1.
    """
    found = sorted(set(widths))
    if len(found) < 2 or found[0] < 1:
        raise ValueError(
            f"widths must be at least two distinct sizes of at least 1, got {list(widths)}; four "
            "or more that span a factor of eight make an exponent worth its name"
        )
    return found


def point_loss(loss: str | PointLoss) -> PointLoss:
    """``ce``, ``mse`` (½ Σ over outputs, mean over the batch) or a loss of one's own."""
    if callable(loss):
        return loss
    if loss == "ce":
        return nn.functional.cross_entropy
    if loss == "mse":
        return _half_squares
    raise ValueError(str(unknown_name("loss", loss, ("ce", "mse"))))


def _half_squares(prediction: Tensor, target: Tensor) -> Tensor:
    return (prediction - target).square().flatten(1).sum(1).mean() / 2


def targets_of(target: Tensor, loss: str | PointLoss, outputs: int) -> Tensor:
    """Labels as one-hot rows where squared error asks for numbers; anything else as it is."""
    if loss == "mse" and not target.is_floating_point():
        return nn.functional.one_hot(target.long(), outputs).to(torch.get_default_dtype())
    return target


def batches(
    data: Data, steps: int, batch_size: int | None, seed: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """So many batches, the same for the same seed.

    Args:
        data: inputs and targets, or what draws a batch with a generator.
        steps: how many.
        batch_size: rows of each, drawn without repetition inside a batch; None for all.
        seed: of the draws.
    """
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        if callable(data):
            yield data(generator)
        elif batch_size is None or batch_size >= len(data[0]):
            yield data
        else:
            rows = torch.randperm(len(data[0]), generator=generator)[:batch_size]
            yield data[0][rows.to(data[0].device)], data[1][rows.to(data[1].device)]


def model_at(
    make_model: MakeModel, width: int, seed: int, *, parametrization: str, widths: Sequence[int]
) -> nn.Module:
    """A model of a width drawn from a seed; muP's base is the smallest width."""
    if parametrization not in ("sp", "mup"):
        raise ValueError(str(unknown_name("parametrization", parametrization, ("sp", "mup"))))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        base = min(widths) if parametrization == "mup" else None
        return at_width(make_model, width, base_width=base)


def make_optimizer(optimizer: MakeOptimizer, model: nn.Module, lr: float) -> Any:
    """``sgd``, ``adam``, or what ``optimizer(params, lr=lr)`` gives.

    A name means the muP form for a model with base shapes; where all multipliers are 1 that is the
    plain one.
    """
    params = [p for p in model.parameters() if p.requires_grad]
    if callable(optimizer):
        return optimizer(params, lr=lr)
    if optimizer not in PLAIN:
        raise ValueError(str(unknown_name("optimizer", optimizer, PLAIN)))
    kinds = PLAIN if any(base_shape_of(p) is None for p in params) else SCALED
    return kinds[optimizer](params, lr=lr)
