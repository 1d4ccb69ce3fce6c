"""Does reinforcement learning leave the principal directions alone, beyond what a small step does?

A network pretrained on digits, stored in bfloat16 and trained in float32, learns noisy digits from
rewards, and from labels at ten times the learning rate and four times the steps, as the papers
compare them. Its middle matrix before and after is compared, beside noise of equal norm or of equal
visibility; and both trainings once more at equal learning rate and steps.

Source: H. Zhu, Z. Zhang, H. Huang et al. 2025, arXiv 2511.08567, smaller.

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
    bf16_stored,
    fine_tuned,
    grpo_loss,
    noisy,
    pretrained,
    sft_loss,
)
from thalweg.studies.figures import Figures, data_hash
from thalweg.trajectory import (
    TensorGeometry,
    UpdateGeometryReport,
    compare_checkpoints,
    principal_angles,
)

__all__ = ["PRESETS", "Config", "run"]

MATRIX = "2.weight"  # the middle one, h × h


@dataclass(frozen=True)
class Config:
    """Settings.

    Attributes:
        hidden: units of each of the two hidden layers.
        pretrain_steps: of Adam at 1e-3 on clean digits.
        noise: standard deviation added to pixels in [0, 1].
        rl_steps: of reinforcement learning.
        rl_lr: its learning rate.
        sft_steps: of supervised fine-tuning.
        sft_lr: its learning rate.
        k: principal directions.
        alpha: share of the weights that count as small.
        draws: of noise.
    """

    hidden: int = 128
    pretrain_steps: int = 400
    noise: float = 0.5
    rl_steps: int = 200
    rl_lr: float = 1e-5
    sft_steps: int = 800
    sft_lr: float = 1e-4
    k: int = 16
    alpha: float = 0.5
    draws: int = 20


PRESETS = {
    "smoke": Config(hidden=64, pretrain_steps=150, rl_steps=50, sft_steps=200, k=8, draws=4),
    "quick": Config(),
    "full": Config(hidden=512, k=32),
    "paper": Config(hidden=1024, pretrain_steps=4000, rl_steps=2000, sft_steps=8000, k=64),
}


def run(config: Config, seed: int) -> Figures:
    """Both trainings, and both at equal length."""
    model, clean = pretrained(seed, hidden=config.hidden, num_steps=config.pretrain_steps)
    model.load_state_dict(bf16_stored(model.state_dict()))
    data = noisy(clean, seed, std=config.noise)
    rewarded: Loss = partial(grpo_loss, generator=torch.Generator().manual_seed(seed))
    short = (config.rl_lr, config.rl_steps)
    long = (config.sft_lr, config.sft_steps)
    rl = _tuned(model, rewarded, data, seed, *short)
    sft = _tuned(model, sft_loss, data, seed, *long)
    rl_long = _tuned(model, rewarded, data, seed, *long)
    start = {MATRIX: model.state_dict()[MATRIX]}
    W0 = start[MATRIX]
    reports = [_report(config, start, tuned, seed) for tuned in (rl, sft, rl_long)]
    by_reward, by_labels, equal = (r.tensors[0] for r in reports)
    noise = _noise(rl - W0, config.draws, seed)
    angles = [_left(W0, W0 + D, config.k) for D in noise]
    second = _report(config, start, rl, seed + 1).tensors[0]
    return Figures(
        samples={
            "sparser_than_sft": by_reward.sparsity - by_labels.sparsity,
            "keeps_spectrum": by_reward.drift / by_labels.drift,
            "keeps_directions": by_reward.angle_left,
            "off_principal": by_reward.energy_lift,
            "favours_small_weights": by_reward.low_lift,
        },
        baselines={
            "sparser_than_sft": by_labels.sparsity,
            "keeps_spectrum": by_labels.drift,
            "keeps_directions": sum(angles) / len(angles),
            "off_principal": by_labels.energy_lift,
            "favours_small_weights": by_reward.low_control,
        },
        controls={
            "sparser_than_sft": equal.sparsity - by_labels.sparsity,
            "keeps_spectrum": _per_norm(by_reward) / _per_norm(by_labels),
            "keeps_directions": by_labels.angle_left,
            "off_principal": _isotropic_lift(config, W0, noise),
            "favours_small_weights": second.low_control / by_reward.low_control,
        },
        data_hash=data_hash(data.x, data.y, data.x_test, data.y_test),
    )


def _tuned(
    model: nn.Module, loss: Loss, data: Digits, seed: int, lr: float, num_steps: int
) -> Tensor:
    """The middle matrix at the end, in float32: comparisons round it."""
    states = fine_tuned(model, loss, data, lr=lr, num_steps=num_steps, seed=seed, keep=[num_steps])
    return states[num_steps][MATRIX]


def _report(
    config: Config, start: dict[str, Tensor], tuned: Tensor, seed: int
) -> UpdateGeometryReport:
    return compare_checkpoints(
        start,
        bf16_stored({MATRIX: tuned}),
        k=config.k,
        r=config.k,
        alpha=config.alpha,
        n_control=config.draws,
        seed=1000 * seed + 7,
    )


def _per_norm(t: TensorGeometry) -> float:
    """Drift in units of the relative norm of the change."""
    return t.drift / t.relative_norm


def _noise(delta: Tensor, draws: int, seed: int) -> list[Tensor]:
    """Isotropic changes of equal norm."""
    g = torch.Generator().manual_seed(9000 + seed)
    drawn = (torch.randn(delta.shape, generator=g) for _ in range(draws))
    return [D * delta.norm() / D.norm() for D in drawn]


def _left(W0: Tensor, W1: Tensor, k: int) -> float:
    """Largest angle of the left directions, degrees."""
    return float(principal_angles(W0, W1, k, side="left").max())


def _isotropic_lift(config: Config, W0: Tensor, noise: list[Tensor]) -> float:
    """Energy between the principal directions over its expectation, mean over draws."""
    lifts = [
        compare_checkpoints({MATRIX: W0}, {MATRIX: W0 + D}, k=config.k, control=None)
        .tensors[0]
        .energy_lift
        for D in noise
    ]
    return sum(lifts) / len(lifts)
