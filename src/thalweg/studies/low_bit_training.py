"""Does StableSPAM train four-bit nets through gradient spikes better than Adam and than clipping?

A dense network with INT4 weights and activations learns handwritten digits; with a small
probability a step has its whole gradient multiplied by 1000. Baselines: Adam, and Adam with the
gradient clipped at global norm 1, each at the better of the same learning rates. Control: the same
comparison without spikes, which is to show no gain. Losses are measured with quantisation on.

Source: T. Huang et al. 2025, arXiv 2502.17055; the task is of our making.

Cost: paper does 16000 × the work of quick (num_steps * (1e6 + batch * width * (64 + 2 * width))),
in 1 GB.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from statistics import fmean, pstdev

import torch
from torch import Tensor, nn

from thalweg.data import Digits, digits
from thalweg.nn import quantize_model
from thalweg.optim import ClipState, NormState, StableSPAM, adaclip, adagn
from thalweg.studies.figures import Figures, data_hash, thin

__all__ = ["METHODS", "PRESETS", "Config", "Method", "Norms", "run", "train"]


@dataclass(frozen=True)
class Config:
    """Settings.

    Attributes:
        width: of the three hidden layers.
        group_size: numbers that share a scale.
        num_steps: of a training.
        batch: samples a step.
        spike_probability: of a step with a spike.
        spike: what the gradient is multiplied with there.
        lrs: with spikes; each method at its best.
        swept_lrs: without spikes, for the dependence on the learning rate.
    """

    width: int = 64
    group_size: int = 32
    num_steps: int = 200
    batch: int = 64
    spike_probability: float = 0.02
    spike: float = 1000.0
    lrs: tuple[float, ...] = (3e-3, 1e-2)
    swept_lrs: tuple[float, ...] = (0.01, 0.03, 0.1)


PRESETS = {
    "smoke": Config(width=32, num_steps=15, lrs=(1e-2,), swept_lrs=(0.01, 0.1)),
    "quick": Config(),
    "full": Config(num_steps=1000),
    "paper": Config(width=512, num_steps=20_000, batch=512),
}


@dataclass(frozen=True)
class Method:
    """An optimizer, and what the loop does beside it.

    Attributes:
        make: parameters and learning rate to the optimizer.
        clip: global norm at which gradients are clipped; None for not at all.
    """

    make: Callable[[Iterable[Tensor], float], torch.optim.Optimizer]
    clip: float | None = None


METHODS = {
    "Adam": Method(lambda p, lr: torch.optim.Adam(p, lr)),
    "Adam + clip": Method(lambda p, lr: torch.optim.Adam(p, lr), 1.0),
    "StableSPAM": Method(lambda p, lr: StableSPAM(p, lr)),
    "norm scaling alone": Method(lambda p, lr: StableSPAM(p, lr, adaclip=False, reset_interval=0)),
}


@dataclass
class Norms:
    """Gradient norms of each tensor over the steps of one training.

    Attributes:
        raw: a list per step, before anything.
        clipped: after clipping at the global norm, if the loop clips.
        tamed: after ``adaclip`` and ``adagn``.
    """

    raw: list[list[float]] = field(default_factory=list)
    clipped: list[list[float]] = field(default_factory=list)
    tamed: list[list[float]] = field(default_factory=list)

    @staticmethod
    def unsteadiness(rows: list[list[float]]) -> float:
        """Standard deviation over mean across steps, mean over tensors with any gradient."""
        columns = [c for c in zip(*rows, strict=True) if fmean(c) > 0]
        return fmean(pstdev(c) / fmean(c) for c in columns)


def run(config: Config, seed: int) -> Figures:
    """One seed of every claim."""
    data = digits(seed=seed)
    norms = {name: Norms() for name in METHODS}

    def final(name: str, lr: float, spikes: bool) -> float:
        model = network(config, seed)
        watched = norms[name] if spikes and lr == max(config.lrs) else None

        def batch(generator: torch.Generator) -> Tensor:
            rows = torch.randint(len(data.y), (config.batch,), generator=generator)
            return nn.functional.cross_entropy(model(data.x[rows]), data.y[rows])

        probability = config.spike_probability if spikes else 0.0
        train(
            model,
            batch,
            METHODS[name],
            lr=lr,
            num_steps=config.num_steps,
            spike_probability=probability,
            spike=config.spike,
            seed=seed,
            norms=watched,
        )
        return held_out_loss(model, data)

    spiked = {n: {lr: final(n, lr, True) for lr in config.lrs} for n in METHODS}
    calm_lrs = sorted({*config.lrs, *config.swept_lrs})
    compared = ("Adam", "StableSPAM")
    calm = {n: {lr: final(n, lr, False) for lr in calm_lrs} for n in compared}
    calm["norm scaling alone"] = {lr: final("norm scaling alone", lr, False) for lr in config.lrs}

    best = {n: min(losses.values()) for n, losses in spiked.items()}
    calm_best = {n: min(losses[lr] for lr in config.lrs) for n, losses in calm.items()}
    swept = {n: [calm[n][lr] for lr in config.swept_lrs] for n in compared}
    sensitivity = {n: max(losses) / min(losses) for n, losses in swept.items()}
    stable, clipping = norms["StableSPAM"], norms["Adam + clip"]
    steps = thin(range(1, config.num_steps + 1))
    return Figures(
        samples={
            "stable_under_spikes": best["StableSPAM"] / best["Adam"],
            "beats_clipped_adam": best["StableSPAM"] / best["Adam + clip"],
            "lr_insensitive": sensitivity["StableSPAM"] / sensitivity["Adam"],
            "flat_norm": Norms.unsteadiness(stable.tamed),
            "norm_scaling_alone": best["norm scaling alone"] / best["Adam"],
        },
        baselines={
            "stable_under_spikes": best["Adam"],
            "beats_clipped_adam": best["Adam + clip"],
            "lr_insensitive": sensitivity["Adam"],
            "flat_norm": Norms.unsteadiness(clipping.clipped),
            "norm_scaling_alone": best["Adam"],
        },
        controls={
            "stable_under_spikes": calm_best["StableSPAM"] / calm_best["Adam"],
            "flat_norm": Norms.unsteadiness(stable.raw),
            "norm_scaling_alone": calm_best["norm scaling alone"] / calm_best["Adam"],
        },
        curves={
            "norm of the first gradient, raw": (steps, thin(r[0] for r in stable.raw)),
            "norm of the first gradient, entering the moments": (
                steps,
                thin(r[0] for r in stable.tamed),
            ),
            **{
                f"test loss without spikes against learning rate, {n}": (config.swept_lrs, losses)
                for n, losses in swept.items()
            },
        },
        data_hash=data_hash(data.x, data.y),
    )


def network(config: Config, seed: int) -> nn.Module:
    """Three hidden layers in INT4, the head in full precision."""
    torch.manual_seed(seed)
    w = config.width
    model = nn.Sequential(
        *(nn.Linear(64, w), nn.ReLU(), nn.Linear(w, w), nn.ReLU(), nn.Linear(w, w), nn.ReLU()),
        nn.Linear(w, 10),
    )
    return quantize_model(
        model, weight="int_asym", act="int_sym", group_size=config.group_size, skip=["6"]
    )


def held_out_loss(model: nn.Module, data: Digits) -> float:
    """Cross-entropy of the test part; infinite if it is not finite."""
    with torch.no_grad():
        loss = float(nn.functional.cross_entropy(model(data.x_test), data.y_test))
    return loss if math.isfinite(loss) else math.inf


def train(
    model: nn.Module,
    batch_loss: Callable[[torch.Generator], Tensor],
    method: Method,
    *,
    lr: float,
    num_steps: int,
    spike_probability: float = 0.0,
    spike: float = 1000.0,
    seed: int = 0,
    norms: Norms | None = None,
) -> None:
    """Train with a tenth of the steps as warm-up and a cosine to zero; stops where it diverges.

    Args:
        model: trained in place.
        batch_loss: loss of a batch drawn with a generator.
        method: optimizer and clipping.
        lr: largest learning rate.
        num_steps: of the optimizer.
        spike_probability: of a step whose whole gradient is multiplied.
        spike: with this.
        seed: of batches and spikes.
        norms: takes gradient norms if given.
    """
    params = list(model.parameters())
    optimizer = method.make(params, lr)
    warmup = max(1, num_steps // 10)

    def rate(step: int) -> float:
        decay = 0.5 * (1 + math.cos(math.pi * step / num_steps))
        return min(1.0, (step + 1) / warmup) * decay

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
    generator = torch.Generator().manual_seed(seed)
    spikes = torch.rand(num_steps, generator=generator) < spike_probability
    past: list[tuple[ClipState | None, NormState | None]] = [(None, None)] * len(params)
    for spiked in spikes.tolist():
        loss = batch_loss(generator)
        if not math.isfinite(loss.item()):
            return
        optimizer.zero_grad()
        loss.backward()
        grads = [p.grad for p in params if p.grad is not None]
        if spiked:
            torch._foreach_mul_(grads, spike)
        if norms is not None:
            norms.raw.append([float(g.norm()) for g in grads])
            past, tamed = _tamed(grads, past)
            norms.tamed.append(tamed)
        if method.clip is not None:
            nn.utils.clip_grad_norm_(params, method.clip)
            if norms is not None:
                norms.clipped.append([float(g.norm()) for g in grads])
        optimizer.step()
        schedule.step()


def _tamed(
    grads: list[Tensor], past: list[tuple[ClipState | None, NormState | None]]
) -> tuple[list[tuple[ClipState | None, NormState | None]], list[float]]:
    """Norms of what ``StableSPAM`` makes of the gradients, by its two functions."""
    states, sizes = [], []
    for g, (clip, norm) in zip(grads, past, strict=True):
        u, clip = adaclip(g, clip)
        u, norm = adagn(u, norm)
        states.append((clip, norm))
        sizes.append(float(u.norm()))
    return states, sizes
