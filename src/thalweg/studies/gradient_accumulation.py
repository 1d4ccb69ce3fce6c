"""Is gradient accumulation the same as the whole batch, by means of means and by counts?

A small language model on sequences of very different lengths, in float64: the gradient of means of
micro-batches' means, and of sums divided by the count of the whole step, beside that of the whole
batch; four simulated ranks; two hundred steps of training. Control: sequences of one length.

Source: "Fixing Gradient Accumulation", Debut, Zucker, Mueller, Shieh, Bossan 2024
(huggingface.co/blog/gradient_accumulation).

Cost: paper does 3240 × the work of quick (num_steps * longest * (1e6 + sequences * width * (6 *
width + vocabulary))), in 4 GB.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from thalweg.instruments import simulate_ddp
from thalweg.optim import AccumulationContext, count_tokens
from thalweg.studies.figures import Figures, data_hash

__all__ = ["PRESETS", "Config", "run"]

MICRO_BATCHES = (2, 4, 8, 16)


@dataclass(frozen=True)
class Config:
    """Settings.

    Attributes:
        vocabulary: of the language model.
        width: of its GRU.
        sequences: in a batch, a multiple of 16.
        longest: sequence; the shortest has two tokens.
        num_steps: of training.
        lr: of SGD.
        ranks: simulated.
    """

    vocabulary: int = 50
    width: int = 16
    sequences: int = 16
    longest: int = 32
    num_steps: int = 200
    lr: float = 0.5
    ranks: int = 4


PRESETS = {
    "smoke": Config(num_steps=10),
    "quick": Config(),
    "full": Config(width=64, sequences=64, num_steps=500),
    "paper": Config(vocabulary=1000, width=256, sequences=128, longest=128, num_steps=2000),
}

Batch = tuple[Tensor, Tensor]


class LanguageModel(nn.Module):
    """Embedding, optionally a GRU, and logits."""

    def __init__(self, vocabulary: int, width: int, *, recurrent: bool) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, width)
        self.gru = nn.GRU(width, width, batch_first=True) if recurrent else None
        self.head = nn.Linear(width, vocabulary)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T) tokens to (B, T, vocabulary) logits."""
        hidden = self.embed(x)
        hidden = torch.tanh(hidden) if self.gru is None else self.gru(hidden)[0]
        return self.head(hidden)


def run(config: Config, seed: int) -> Figures:
    """One seed of every claim."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(2, config.longest + 1, (config.sequences,), generator=generator)
    varied = _batch(config, lengths, generator)
    constant = _batch(config, torch.full_like(lengths, config.longest), generator)
    torch.manual_seed(seed)
    model = LanguageModel(config.vocabulary, config.width, recurrent=True).double()
    naive = {k: _error(model, varied, k, _naive) for k in MICRO_BATCHES}
    right = {k: _error(model, varied, k, _counted) for k in MICRO_BATCHES}
    local, world = _ranks(config, varied)
    tracked = [_train(config, seed, varied, step) for step in (_whole, _counted, _naive)]
    off = [max(abs(a - b) for a, b in zip(t, tracked[0], strict=True)) for t in tracked[1:]]
    return Figures(
        samples={
            "normalised_exact": max(right.values()),
            "naive_bias_grows": naive[16] / naive[2],
            "global_count": world,
            "training_tracks": off[0],
        },
        baselines={
            "normalised_exact": max(naive.values()),
            "naive_bias_grows": naive[2],
            "global_count": local,
            "training_tracks": off[1],
        },
        controls={
            "normalised_exact": naive[16],
            "naive_bias_grows": _error(model, constant, 16, _naive),
            "global_count": local,
            "training_tracks": off[1],
        },
        curves={
            "error of the mean of means against micro-batches": (
                list(map(float, naive)),
                list(naive.values()),
            ),
            "loss of the whole batch": (list(range(config.num_steps)), tracked[0]),
            "loss by means of means": (list(range(config.num_steps)), tracked[2]),
        },
        data_hash=data_hash(*varied, *constant),
    )


def _batch(config: Config, lengths: Tensor, generator: torch.Generator) -> Batch:
    shape = (config.sequences, config.longest)
    x = torch.randint(config.vocabulary, shape, generator=generator)
    keep = torch.arange(config.longest) < lengths[:, None]
    return x, torch.where(keep, x, -100)


def _loss_sum(model: nn.Module, batch: Batch) -> Tensor:
    x, labels = batch
    # Columns that are padding in every row change no counted logit, and take time.
    longest = int((labels != -100).any(0).sum())
    x, labels = x[:, :longest], labels[:, :longest]
    logits = model(x)[:, :-1].flatten(0, 1)
    return nn.functional.cross_entropy(logits, labels[:, 1:].flatten(), reduction="sum")


def _mean(model: nn.Module, batch: Batch) -> Tensor:
    return _loss_sum(model, batch) / count_tokens(batch[1])


def _parts(batch: Batch, k: int) -> list[Batch]:
    return list(zip(batch[0].chunk(k), batch[1].chunk(k), strict=True))


def _whole(model: nn.Module, batch: Batch, k: int) -> None:
    model.zero_grad()
    _mean(model, batch).backward()


def _naive(model: nn.Module, batch: Batch, k: int) -> None:
    model.zero_grad()
    for part in _parts(batch, k):
        (_mean(model, part) / k).backward()


def _counted(model: nn.Module, batch: Batch, k: int) -> None:
    optimizer = torch.optim.SGD(model.parameters(), 0.0)
    with AccumulationContext(model, optimizer, k, count_fn=count_tokens) as scale:
        for part in _parts(batch, k):
            scale(_loss_sum(model, part), part[1]).backward()


Step = Callable[[nn.Module, Batch, int], None]


def _error(model: nn.Module, batch: Batch, k: int, step: Step) -> float:
    """Relative error of an accumulated gradient."""
    gradients = []
    for way in (step, _whole):
        way(model, batch, k)
        grads = [p.grad for p in model.parameters() if p.grad is not None]
        gradients.append(nn.utils.parameters_to_vector(grads))
    return float((gradients[0] - gradients[1]).norm() / gradients[1].norm())


def _ranks(config: Config, batch: Batch) -> tuple[float, float]:
    """Errors of data-parallel gradients with each rank's own count and with that of all."""
    model = LanguageModel(config.vocabulary, config.width, recurrent=False).double()
    ranks, total = _parts(batch, config.ranks), count_tokens(batch[1])
    _whole(model, batch, 1)
    full = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    norm = torch.stack([g.norm() for g in full.values()]).norm()
    errors = []
    for loss in (_mean, lambda m, b: config.ranks * _loss_sum(m, b) / total):
        found = simulate_ddp(model, loss, ranks)
        gaps = torch.stack([(found[n] - g).norm() for n, g in full.items()])
        errors.append(float(gaps.norm() / norm))
    return errors[0], errors[1]


def _train(config: Config, seed: int, batch: Batch, step: Step) -> list[float]:
    """Loss of the whole batch after each step of SGD with eight micro-batches."""
    torch.manual_seed(seed)
    model = LanguageModel(config.vocabulary, config.width, recurrent=True).double()
    optimizer = torch.optim.SGD(model.parameters(), config.lr)
    losses = []
    for _ in range(config.num_steps):
        step(model, batch, 8)
        optimizer.step()
        with torch.no_grad():
            losses.append(_mean(model, batch).item())
    return losses
