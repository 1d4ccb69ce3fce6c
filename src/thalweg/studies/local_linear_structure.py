"""Which linear directions does a task use, and for how long are they the same?

A network that knows digits in four positions, told which, is damaged by noise on its two square
matrices and recovers one position through low-rank adapters. At the damaged point the gradients of
minibatches are compared with isotropic ones; the displacement of the recovery is set beside its own
first updates, the gradients at the start and random directions, all of equal number; windows of
gradients are compared with the first; and one gradient step is compared with the difference of
class means in the activations.

Source: I. Piontkovskaia, S. Nikolenko 2026, arXiv 2606.10929; the definitions and the whole set-up
are reconstructed from its abstract. Here the four image symmetries are quarter-turns, and adapters
stand beside the damaged matrices only.

Cost: paper does 101 × the work of quick (pretrain_steps * (1e6 + batch * hidden * (64 + 2 *
hidden))), in 2 GB.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import mean

import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from thalweg.data import Digits, digits
from thalweg.instruments import caa_vector, gradient_step_shift, steer
from thalweg.studies.damaged_digits import (
    Batch,
    Recovery,
    damaged,
    drawn,
    loss,
    positioned,
    trained,
)
from thalweg.studies.figures import Figures, data_hash
from thalweg.trajectory import basis_drift, prefix_basis, subspace_capture, task_gradients

__all__ = ["PRESETS", "Config", "run"]

MIDDLE, LAST = "3", "5"  # outputs of the second and third ReLU
ALPHAS = (0.0, 0.5, 1.0, 2.0, 4.0)


@dataclass(frozen=True)
class Config:
    """Settings.

    Attributes:
        hidden: units of each of the three hidden layers.
        pretrain_steps: of Adam at 1e-3 on all four positions.
        rank: of the adapters.
        lr: of Adam in the recovery.
        batch: images a step.
        task: quarter-turns of the position that is recovered.
        noise: spread of the damage over that of the weights.
        hard_noise: the same where the displacement is looked at.
        num_gradients: of the bank at the damaged point.
        num_steps: of the recovery whose displacement is looked at.
        prefix: first updates, and directions of every other basis.
        drift_steps: of the recovery whose gradients are looked at.
        window: gradients in a window.
        directions: of a window.
        early: first step of the window that the later one is compared with.
        late: first step of the later one.
        step_lr: of the one gradient step.
        classes: digits among which pairs are contrasted.
    """

    hidden: int = 128
    pretrain_steps: int = 2000
    rank: int = 4
    lr: float = 5e-3
    batch: int = 64
    task: int = 0
    noise: float = 1.0
    hard_noise: float = 2.0
    num_gradients: int = 32
    num_steps: int = 100
    prefix: int = 20
    drift_steps: int = 200
    window: int = 20
    directions: int = 8
    early: int = 20
    late: int = 50
    step_lr: float = 1e-2
    classes: int = 10


PRESETS = {
    "smoke": Config(hidden=48, pretrain_steps=200, drift_steps=80, classes=3),
    "quick": Config(),
    "full": Config(pretrain_steps=6000, hidden=256),
    "paper": Config(pretrain_steps=20_000, hidden=512, num_steps=500, prefix=100),
}


@dataclass
class _Found:
    """What the parts of the study put together, as in ``Figures``."""

    samples: dict[str, float] = field(default_factory=dict)
    baselines: dict[str, float] = field(default_factory=dict)
    controls: dict[str, float] = field(default_factory=dict)
    curves: dict[str, tuple[Sequence[float], Sequence[float]]] = field(default_factory=dict)

    def claim(
        self, claim: str, sample: float, baseline: float, control: float | None = None
    ) -> None:
        self.samples[claim], self.baselines[claim] = sample, baseline
        if control is not None:
            self.controls[claim] = control


def run(config: Config, seed: int) -> Figures:
    """One network, both damages and their recoveries, and its contrasts."""
    data, generator = digits(seed=seed), torch.Generator().manual_seed(seed)
    model = trained(
        data,
        hidden=config.hidden,
        num_steps=config.pretrain_steps,
        seed=seed,
        generator=generator,
    )
    found = _Found()
    size = max(config.num_gradients, 2 * config.window)
    batches = [drawn(data, config.task, config.batch, generator) for _ in range(size)]
    state = generator.get_state()
    mild, hard, clean = (
        damaged(model, noise, rank=config.rank, generator=generator.set_state(state))
        for noise in (config.noise, config.hard_noise, 0.0)
    )
    _gradients(found, config, mild, batches, generator)
    _displacement(found, config, hard, clean, data, batches, generator)
    _drift(found, config, mild, data, batches, generator)
    _steering(found, config, model, data, generator)
    return Figures(
        found.samples,
        found.baselines,
        found.controls,
        found.curves,
        data_hash(data.x, data.y, batches[0][0]),
    )


def _gradients(
    found: _Found,
    config: Config,
    model: nn.Module,
    batches: Sequence[Batch],
    generator: torch.Generator,
) -> None:
    """Minibatch gradients at the damaged point, and as many drawn ones."""
    bank = task_gradients(model, loss, batches[: config.num_gradients], "lora")
    noise = torch.linalg.svdvals(torch.randn(bank.rows.shape, generator=generator)).square()
    of_noise, null = float(noise[:4].sum() / noise.sum()), bank.energy_null(4)
    found.claim("gradients_low_rank", bank.energy(4) / null, null, of_noise / null)
    few = _few(bank.size)
    found.curves["energy of gradients"] = few, [bank.energy(m) for m in few]
    found.curves["energy of gradients (theory)"] = few, [bank.energy_null(m) for m in few]


def _displacement(
    found: _Found,
    config: Config,
    hard: nn.Sequential,
    clean: nn.Sequential,
    data: Digits,
    batches: Sequence[Batch],
    generator: torch.Generator,
) -> None:
    """A recovery from heavy damage, and what bases of equal size hold of it."""
    path = _recovered(hard, config, data, config.num_steps, generator)
    static, before = (
        task_gradients(model, loss, batches[: config.num_gradients], "lora")
        for model in (hard, clean)
    )
    frame = torch.randn(static.dim, static.size, generator=generator, dtype=torch.float64)
    bases: dict[str, Callable[[int], Tensor]] = {
        "the prefix": lambda m: prefix_basis(path.states, m).dense(),
        "gradients at its start": static.basis,
        "gradients before the damage": before.basis,
        "random directions": lambda m: torch.linalg.qr(frame[:, :m]).Q,
    }
    delta, m = path.displacement, config.prefix
    shares = {name: subspace_capture(delta, basis(m)).share for name, basis in bases.items()}
    prefix, fixed = prefix_basis(path.states, m), shares["gradients at its start"]
    found.claim("prefix_captures", prefix.captured, prefix.residual, shares["random directions"])
    found.claim("static_misses", prefix.captured / fixed, fixed)
    few = _few(static.size)
    prefixes = [prefix_basis(path.states, m) for m in few]
    products = [prefix_basis(path.products(), m).captured for m in few]
    found.curves["displacement in the prefix (theory)"] = few, [p.walk for p in prefixes]
    found.curves["rest of it in the prefix"] = few, [p.residual for p in prefixes]
    found.curves["products BA in their prefix"] = few, products
    low, high = (path.accuracy(data, config.task, moved) for moved in (None, delta))
    for name, basis in bases.items():
        within = [basis(m) for m in few]
        held = [subspace_capture(delta, Q).share for Q in within]
        right = [path.accuracy(data, config.task, Q @ (Q.T @ delta)) for Q in within]
        gains = [(accuracy - low) / (high - low) for accuracy in right]
        found.curves[f"displacement in {name}"] = few, held
        found.curves[f"gain in accuracy by its part in {name}"] = few, gains
    found.curves["accuracy before and after the recovery"] = [0, config.num_steps], [low, high]


def _drift(
    found: _Found,
    config: Config,
    mild: nn.Sequential,
    data: Digits,
    batches: Sequence[Batch],
    generator: torch.Generator,
) -> None:
    """Windows of gradients of a longer recovery beside the first."""
    path = _recovered(mild, config, data, config.drift_steps, generator)
    w, m = config.window, config.directions
    at_start = task_gradients(mild, loss, batches[: 2 * w], "lora")
    drift = basis_drift(path.gradients, m, w, ceiling=at_start)
    early, late = drift.at(config.early), drift.at(config.late)
    found.claim("basis_drifts", late / early, early, drift.ceiling / early)
    starts = list(range(0, config.drift_steps - w + 1, 10))
    found.curves["overlap with the first window"] = starts, [drift.at(t) for t in starts]
    found.curves["overlap with the first window (theory)"] = starts, [drift.random] * len(starts)
    found.curves["two sets of gradients at the start"] = starts, [drift.ceiling] * len(starts)
    # The same batches everywhere, so that nothing but the weights differs. From the first step
    # on: before it the gradients of A are 0.
    there, moved = [], copy.deepcopy(mild)
    for t in starts:
        moved.load_state_dict(path.states[max(t, 1)], strict=False)
        there.append(task_gradients(moved, loss, batches[:w], "lora").rows)
    same = basis_drift(torch.cat(there), m, w, stride=w)
    found.curves["overlap with the first window, same batches"] = starts, list(same.overlap)


def _steering(
    found: _Found, config: Config, model: nn.Sequential, data: Digits, generator: torch.Generator
) -> None:
    """One gradient step beside the difference of class means, for pairs of classes."""
    cosines: dict[str, list[float]] = {"middle": [], "last": [], "shuffled": []}
    effects: dict[str, list[list[float]]] = {"class means": [], "step": [], "random": []}
    x = positioned(data.x, config.task)
    for a, b in itertools.combinations(range(config.classes), 2):
        pos, neg = x[data.y == a], x[data.y == b]
        both = torch.cat([pos, neg])

        def less(model: nn.Module, x: Tensor, a: int = a, b: int = b) -> Tensor:
            """Mean log-odds of b against a."""
            logits = model(x)
            return (logits[:, b] - logits[:, a]).mean()

        v, s = {}, {}
        for layer in (MIDDLE, LAST):
            v[layer] = caa_vector(model, layer, pos, neg)
            s[layer] = gradient_step_shift(model, less, layer, both, config.step_lr)
        mixed = both[torch.randperm(len(both), generator=generator)]
        chance = caa_vector(model, MIDDLE, mixed[: len(pos)], mixed[len(pos) :])
        cosines["middle"].append(_cosine(v[MIDDLE], s[MIDDLE]))
        cosines["last"].append(_cosine(v[LAST], s[LAST]))
        cosines["shuffled"].append(abs(_cosine(chance, s[MIDDLE])))
        noise = torch.randn(len(chance), generator=generator)
        with torch.no_grad():
            plain = float(less(model, both))
            for name, vector in zip(effects, (v[MIDDLE], s[MIDDLE], noise), strict=True):
                gains = []
                for alpha in ALPHAS:
                    with steer(model, MIDDLE, vector / vector.norm(), alpha):
                        gains.append(plain - float(less(model, both)))
                effects[name].append(gains)
    middle, last, shuffled = (mean(values) for values in cosines.values())
    found.claim("step_like_steering", middle, last, shuffled)
    for name, rows in effects.items():
        found.curves[f"log-odds gained along {name}"] = (
            ALPHAS,
            [mean(column) for column in zip(*rows, strict=True)],
        )


def _recovered(
    start: nn.Sequential, config: Config, data: Digits, num_steps: int, generator: torch.Generator
) -> Recovery:
    return Recovery.of(
        start,
        data,
        task=config.task,
        lr=config.lr,
        batch=config.batch,
        num_steps=num_steps,
        generator=generator,
    )


def _few(most: int) -> list[int]:
    return [m for m in (1, 2, 5, 10, 15, 20, 25, 30) if m <= most]


def _cosine(a: Tensor, b: Tensor) -> float:
    return float(cosine_similarity(a, b, dim=0))
