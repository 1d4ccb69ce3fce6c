"""Does one direction and one line per tensor, seen early, tell where a training ends?

A network pretrained on upright digits learns mirrored ones from rewards alone (``digits_bandit``),
at three learning rates. From the first checkpoints the last is written without training and
compared with the last checkpoint of the prefix and with its change scaled with time; the whole
path is projected on one direction per tensor; and the straightness of its coefficient is set
beside that of a random walk with as many checkpoints.

Source: Z. Wei, S. Zhu, Y. Chen, C. Huang, T. Huang, Y. Meng 2026, arXiv 2605.21468, smaller.

Cost: paper does 88.2 × the work of quick (num_steps * (1e6 + 100 * hidden * (64 + hidden))), in 24
GB.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median

import torch
from torch import Tensor, nn

from thalweg.data import Digits
from thalweg.studies.digits_bandit import accuracy, fine_tuned, grpo_loss, mirrored, pretrained
from thalweg.studies.figures import Figures, data_hash
from thalweg.trajectory import DeltaStore, fit_rank1, foresight, reconstruct

__all__ = ["PRESETS", "Config", "run"]

LIMIT = 0.9584  # R² of a line through a random walk with many checkpoints
Weights = dict[str, Tensor]


@dataclass(frozen=True)
class Config:
    """Settings.

    Attributes:
        hidden: units of each of the two hidden layers.
        pretrain_steps: of Adam at 1e-3 on upright digits.
        num_steps: of reinforcement learning.
        prefix: checkpoints seen, at the lazy learning rate.
        far_prefix: the same at the large one.
        group: samples per image.
        lr: lazy learning rate.
        middle_lr: of a second run for the projection.
        far_lr: large learning rate.
    """

    hidden: int = 128
    pretrain_steps: int = 400
    num_steps: int = 500
    prefix: int = 50
    far_prefix: int = 75
    group: int = 8
    lr: float = 1e-5
    middle_lr: float = 3e-5
    far_lr: float = 1e-4


PRESETS = {
    "smoke": Config(hidden=64, pretrain_steps=150, num_steps=200, prefix=20, far_prefix=30),
    "quick": Config(),
    "full": Config(num_steps=2000, prefix=200, far_prefix=300),
    "paper": Config(hidden=512, pretrain_steps=2000, num_steps=5000, prefix=500, far_prefix=750),
}


@dataclass(frozen=True)
class Path:
    """A reinforcement learning run.

    Attributes:
        model: holds the start.
        store: every checkpoint.
        data: mirrored digits.
        states: step → weights, from the start on.
    """

    model: nn.Module
    store: DeltaStore
    data: Digits
    states: dict[int, Weights]

    def score(self, state: Weights) -> float:
        """Accuracy on held-out mirrored digits."""
        return accuracy(self.model, state, self.data)

    @property
    def end(self) -> float:
        """Accuracy after the last step."""
        return self.score(self.states[self.store.steps[-1]])

    def kept(self, state: Weights) -> float:
        """Share of the gain in accuracy over the start that these weights have."""
        start = self.score(self.states[0])
        return (self.score(state) - start) / (self.end - start)


def run(config: Config, seed: int) -> Figures:
    """Three runs, and what their beginnings tell of their ends."""
    lazy, middle, far = (
        _trained(config, seed, lr) for lr in (config.lr, config.middle_lr, config.far_lr)
    )
    end = config.num_steps
    line = fit_rank1(lazy.store, steps=slice(1, config.prefix))
    bent = fit_rank1(lazy.store, steps=slice(1, config.prefix), fit="polynomial")
    far_line = fit_rank1(far.store, steps=slice(1, config.far_prefix))
    by_line = lazy.score(line.predict(end))
    whole = fit_rank1(lazy.store)
    walk = fit_rank1(_walk(lazy.store, seed))
    seen = [round(config.prefix * f) for f in (0.2, 0.5, 1, 2, 4)]
    return Figures(
        samples={
            "prefix_predicts_end": by_line - lazy.end,
            "one_direction_suffices": min(p.kept(reconstruct(p.store)) for p in (lazy, middle)),
            "linear_coefficient": median(whole.r2.values()),
            "nonlinear_no_better": lazy.score(bent.predict(end)) - by_line,
            "beyond_lazy": far.score(far_line.predict(end)) - far.end,
        },
        baselines={
            "prefix_predicts_end": lazy.score(_scaled(lazy, config.prefix, end)) - lazy.end,
            "one_direction_suffices": min(
                p.kept(reconstruct(p.store, rank=2)) for p in (lazy, middle)
            ),
            "linear_coefficient": LIMIT,
            "nonlinear_no_better": by_line,
            "beyond_lazy": far.score(far.states[config.far_prefix]) - far.end,
        },
        controls={
            "prefix_predicts_end": lazy.score(lazy.states[config.prefix]) - lazy.end,
            "one_direction_suffices": min(p.kept(_random(p, seed)) for p in (lazy, middle)),
            "linear_coefficient": median(walk.r2.values()),
        },
        curves={
            **{
                f"accuracy, {name}": (seen, [p.score(p.states[s]) for s in seen])
                for name, p in (("lazy", lazy), ("large steps", far))
            },
            **{
                f"predicted end, {name}": (seen, _predictions(p, seen, end))
                for name, p in (("lazy", lazy), ("large steps", far))
            },
            **{
                f"foresight error, {name}": (seen, _errors(p, seen, end))
                for name, p in (("lazy", lazy), ("large steps", far))
            },
        },
        data_hash=data_hash(lazy.data.x, lazy.data.y, lazy.data.x_test, lazy.data.y_test),
    )


def _trained(config: Config, seed: int, lr: float) -> Path:
    model, upright = pretrained(seed, hidden=config.hidden, num_steps=config.pretrain_steps)
    data, generator = mirrored(upright), torch.Generator().manual_seed(seed)
    states = fine_tuned(
        model,
        partial(grpo_loss, group=config.group, generator=generator),
        data,
        lr=lr,
        num_steps=config.num_steps,
        seed=seed,
        keep=range(1, config.num_steps + 1),
    )
    states = {0: {k: v.detach().clone() for k, v in model.state_dict().items()}, **states}
    return Path(model, DeltaStore(states), data, states)


def _scaled(path: Path, seen: int, end: int) -> Weights:
    """The change of the last checkpoint seen, times as much longer as the end is later."""
    base, last = path.states[0], path.states[seen]
    return {name: base[name] + (last[name] - base[name]) * end / seen for name in base}


def _random(path: Path, seed: int) -> Weights:
    """The last change, along one random direction per tensor only."""
    g = torch.Generator().manual_seed(seed)
    base, last = path.states[0], path.states[path.store.steps[-1]]
    out = {}
    for name in base:
        v = torch.randn(base[name].shape, generator=g)
        v = v / v.norm()
        out[name] = base[name] + ((last[name] - base[name]) * v).sum() * v
    return out


def _walk(store: DeltaStore, seed: int) -> list[Weights]:
    """As many checkpoints of as many weights, every step fresh noise."""
    g = torch.Generator().manual_seed(seed)
    state = {name: torch.zeros(info.shape) for name, info in store.tensors.items()}
    states = [state]
    for _ in store.steps:
        state = {name: w + torch.randn(w.shape, generator=g) for name, w in state.items()}
        states.append(state)
    return states


def _predictions(path: Path, seen: Sequence[int], end: int) -> list[float]:
    fits = (fit_rank1(path.store, steps=slice(1, s)) for s in seen)
    return [path.score(fit.predict(end)) for fit in fits]


def _errors(path: Path, seen: Sequence[int], end: int) -> list[float]:
    fits = (fit_rank1(path.store, steps=slice(1, s)) for s in seen)
    return [foresight(fit, end).error for fit in fits]
