"""What does on-policy distillation write into the weights, and would a part of them do?

A network pretrained on digits, stored in bfloat16 and trained in float32, learns a changed domain
from the grades of a teacher that knows it, beside supervised training at ten times the learning
rate and four times the steps, as the papers compare them. The change of its middle matrix on noisy
digits is compared with noise; on mirrored digits, where there is enough to gain, training is
repeated from the source with the coordinates that changed most, and with as many at random.
A hidden unit that is silent on all images takes one from the rank of the change.

Source: Yu, Liu, Hu, Ma, Jiang, Ye 2026, arXiv 2606.13657, and Shen et al. 2026, arXiv 2606.07082,
smaller.

Cost: paper does 325 × the work of quick (sft_steps * (1e6 + 100 * hidden * (64 + hidden))), in 2
GB.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from thalweg.data import Digits
from thalweg.studies.digits_bandit import (
    Loss,
    accuracy,
    bf16_stored,
    distillation_loss,
    fine_tuned,
    mirrored,
    noisy,
    pretrained,
    sft_loss,
    taught,
)
from thalweg.studies.figures import Figures, data_hash
from thalweg.trajectory import SubspaceLock, TensorDelta, delta_report
from thalweg.trajectory.update_masks import lowest

__all__ = ["PRESETS", "Config", "run"]

MATRIX = "2.weight"  # the middle one, h × h
FULL_RANK = 0.95  # share of the singular values above 1e-5 of the largest
States = dict[int, dict[str, Tensor]]


@dataclass(frozen=True)
class Config:
    """Settings.

    Attributes:
        hidden: units of each of the two hidden layers.
        pretrain_steps: of Adam at 1e-3 on clean digits.
        teacher_steps: of the teacher's training on the new domain.
        noise: standard deviation added to pixels in [0, 1].
        opd_steps: of distillation.
        opd_lr: its learning rate.
        sft_steps: of supervised fine-tuning.
        sft_lr: its learning rate.
        k: singular directions of the change and of the source.
        lock: right singular directions followed over time.
        density: share of the coordinates in the masks.
    """

    hidden: int = 128
    pretrain_steps: int = 400
    teacher_steps: int = 400
    noise: float = 0.5
    opd_steps: int = 200
    opd_lr: float = 1e-5
    sft_steps: int = 800
    sft_lr: float = 1e-4
    k: int = 16
    lock: int = 4
    density: float = 0.1


PRESETS = {
    "smoke": Config(
        hidden=64, pretrain_steps=150, teacher_steps=100, opd_steps=100, sft_steps=200, k=8
    ),
    "quick": Config(),
    "full": Config(hidden=512, k=32),
    "paper": Config(hidden=1024, pretrain_steps=4000, opd_steps=2000, sft_steps=8000, k=64),
}


def run(config: Config, seed: int) -> Figures:
    """Distillation and supervised training on noisy digits, and masked ones on mirrored digits."""
    model, clean = pretrained(seed, hidden=config.hidden, num_steps=config.pretrain_steps)
    model.load_state_dict(bf16_stored(model.state_dict()))
    data = noisy(clean, seed, std=config.noise)
    teacher = taught(model, data, seed=seed, num_steps=config.teacher_steps)
    graded: Loss = partial(distillation_loss, teacher=teacher)
    short, long = (config.opd_lr, config.opd_steps), (config.sft_lr, config.sft_steps)
    opd = _trained(model, graded, data, seed, *short)
    sft = _trained(model, sft_loss, data, seed, *long)
    opd_long = _trained(model, graded, data, seed, *long)
    start = {name: w.detach().clone() for name, w in model.state_dict().items()}
    by_teacher, by_labels, equal = (
        _delta(config, start, states[max(states)], seed) for states in (opd, sft, opd_long)
    )
    shuffled = _delta(config, start, _shuffled(start, opd[max(opd)], seed), seed)
    isotropic = [_delta(config, start, D, seed) for D in _isotropic(start, opd[max(opd)], seed)]
    masked, random = _subnetworks(config, model, mirrored(clean), seed)
    return Figures(
        samples={
            "sparse_updates": by_teacher.unchanged - by_labels.unchanged,
            "concentrated": _concentration(config, by_teacher),
            "off_principal": _principal(config, by_teacher),
            "subnetwork_suffices": masked - 2 * random,
            "locks_early": _locked(config, start, opd),
        },
        baselines={
            "sparse_updates": by_labels.unchanged,
            "concentrated": _top(config, by_teacher, noise=True),
            "off_principal": _principal(config, by_labels),
            "subnetwork_suffices": random,
            "locks_early": _locked(config, start, sft),
        },
        controls={
            "sparse_updates": equal.unchanged - by_labels.unchanged,
            "concentrated": _concentration(config, shuffled),
            "off_principal": sum(_principal(config, t) for t in isotropic) / len(isotropic),
            "locks_early": _frames(config, seed),
        },
        data_hash=data_hash(data.x, data.y, data.x_test, data.y_test),
    )


def _trained(
    model: nn.Module,
    loss: Loss,
    data: Digits,
    seed: int,
    lr: float,
    num_steps: int,
    masks: dict[str, Tensor] | None = None,
) -> States:
    """Weights after every tenth of the steps, in float32."""
    tenths = [round(num_steps * i / 10) for i in range(1, 11)]
    return fine_tuned(
        model, loss, data, lr=lr, num_steps=num_steps, seed=seed, keep=tenths, masks=masks
    )


def _delta(
    config: Config, start: dict[str, Tensor], end: dict[str, Tensor], seed: int
) -> TensorDelta:
    """The stored change of the middle matrix."""
    size = start[MATRIX].shape[0]
    report = delta_report(
        {MATRIX: start[MATRIX]},
        {MATRIX: end[MATRIX]},
        topk=(config.k,),
        ratios=(config.k / size,),
        seed=1000 * seed + 7,
    )
    return report.tensors[0]


def _top(config: Config, t: TensorDelta, *, noise: bool = False) -> float:
    """Energy of the first k directions of the change, or of noise of its norm."""
    spectrum = t.spectrum_control if noise else t.spectrum
    assert spectrum is not None
    return spectrum.top_energy[config.k]


def _concentration(config: Config, t: TensorDelta) -> float:
    """That energy over noise's; 0 where the change is not of full numerical rank."""
    assert t.spectrum is not None
    full = t.spectrum.numerical_rank[1e-5] >= FULL_RANK
    return _top(config, t) / _top(config, t, noise=True) if full else 0.0


def _principal(config: Config, t: TensorDelta) -> float:
    """Energy between the source's first k directions over that of an isotropic change."""
    ((both, *_),), ((chance, *_),) = t.energy.values(), t.energy_isotropic.values()
    return both / chance


def _shuffled(start: dict[str, Tensor], end: dict[str, Tensor], seed: int) -> dict[str, Tensor]:
    """The stored change with its entries permuted."""
    g = torch.Generator().manual_seed(9000 + seed)
    W0 = start[MATRIX]
    delta = end[MATRIX].bfloat16().float() - W0
    order = torch.randperm(delta.numel(), generator=g)
    return {MATRIX: W0 + delta.flatten()[order].reshape(delta.shape)}


def _isotropic(
    start: dict[str, Tensor], end: dict[str, Tensor], seed: int, draws: int = 20
) -> list[dict[str, Tensor]]:
    """Gaussian changes of equal norm."""
    g = torch.Generator().manual_seed(8000 + seed)
    W0 = start[MATRIX]
    size = (end[MATRIX] - W0).norm()
    drawn = (torch.randn(W0.shape, generator=g) for _ in range(draws))
    return [{MATRIX: W0 + D * size / D.norm()} for D in drawn]


def _locked(config: Config, start: dict[str, Tensor], states: States) -> float:
    """Overlap of the leading right directions of the change at a fifth of the steps and at the end.

    Of the float32 weights, as the change is followed while it is trained.
    """
    lock = SubspaceLock(names=[MATRIX], K=config.lock)
    lock.append(0, start)
    for step, state in states.items():
        lock.append(step, state)
    return float(lock.similarity()[MATRIX][1])  # of ten checkpoints, the second


def _frames(config: Config, seed: int, draws: int = 100) -> float:
    """The same overlap of random frames; K/n in the mean."""
    g = torch.Generator().manual_seed(7000 + seed)
    shape = (2, draws, config.hidden, config.lock)
    a, b = torch.linalg.qr(torch.randn(shape, generator=g)).Q
    return float((a.mT @ b).square().sum() / config.lock / draws)


def _subnetworks(config: Config, model: nn.Module, data: Digits, seed: int) -> tuple[float, float]:
    """Share of the gain in accuracy with the coordinates that changed most, and with others."""
    teacher = taught(model, data, seed=seed, num_steps=config.teacher_steps)
    graded: Loss = partial(distillation_loss, teacher=teacher)
    start = {name: w.detach().clone() for name, w in model.state_dict().items()}
    g = torch.Generator().manual_seed(6000 + seed)

    def end(masks: dict[str, Tensor] | None) -> dict[str, Tensor]:
        states = _trained(model, graded, data, seed, config.opd_lr, config.opd_steps, masks)
        return states[config.opd_steps]

    whole = end(None)
    most, some = {}, {}
    for name, w in whole.items():
        count = max(1, int(config.density * w.numel()))
        most[name] = lowest(-(w - start[name]).abs(), count)
        some[name] = lowest(torch.rand(w.shape, generator=g), count)
    base = accuracy(model, start, data)
    gain = accuracy(model, whole, data) - base
    parts = [accuracy(model, end(masks), data) - base for masks in (most, some)]
    return (parts[0] / gain, parts[1] / gain) if gain else (float("nan"), float("nan"))
