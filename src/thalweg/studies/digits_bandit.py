"""Reinforcement learning with a verifiable reward at the scale of a minute: digits as a bandit.

A network that has learnt upright digits meets mirrored ones. It samples a class for an image and is
told right or wrong, nothing else: one step of the setting in which language models are trained on
answers that can be checked. Noisy digits are another change of domain, and a teacher's grades or
the right classes other things to learn from. Several studies start here.

Source: the loss is GRPO, Shao et al. 2024, arXiv 2402.03300, of one token; distillation on the
student's own inputs as in arXiv 2606.07082; the task is ours.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from thalweg.data import Digits, digits
from thalweg.losses import opd_loss
from thalweg.optim import MaskedOptimizer

__all__ = [
    "accuracy",
    "bf16_stored",
    "distillation_loss",
    "fine_tuned",
    "grpo_loss",
    "mirrored",
    "noisy",
    "pretrained",
    "sft_loss",
    "taught",
]

Loss = Callable[[nn.Module, Tensor, Tensor], Tensor]


def mirrored(data: Digits) -> Digits:
    """The same images, left and right exchanged, with the same labels."""

    def flip(x: Tensor) -> Tensor:
        return x.view(-1, 8, 8).flip(2).reshape(-1, 64)

    return Digits(flip(data.x), data.y, flip(data.x_test), data.y_test)


def noisy(data: Digits, seed: int, *, std: float = 0.5) -> Digits:
    """The same images with Gaussian noise on every pixel, the same in every epoch.

    Args:
        data: pixels in [0, 1].
        seed: of the noise.
        std: its standard deviation.
    """
    g = torch.Generator().manual_seed(seed)
    x, x_test = (x + std * torch.randn(x.shape, generator=g) for x in (data.x, data.x_test))
    return Digits(x, data.y, x_test, data.y_test)


def _unit_range(data: Digits) -> Digits:
    """Pixels in [0, 1]."""
    low, high = data.x.min(), data.x.max()
    return Digits(
        (data.x - low) / (high - low), data.y, (data.x_test - low) / (high - low), data.y_test
    )


def pretrained(
    seed: int, *, hidden: int = 128, num_steps: int = 400, lr: float = 1e-3
) -> tuple[nn.Sequential, Digits]:
    """An MLP 64-h-h-10 trained on upright digits with pixels in [0, 1], and those digits.

    Args:
        seed: of the split, the weights and the batches of 64.
        hidden: h.
        num_steps: of Adam.
        lr: its learning rate.
    """
    data = _unit_range(digits(seed=seed))
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Linear(64, hidden),
        nn.ReLU(),
        nn.Linear(hidden, hidden),
        nn.ReLU(),
        nn.Linear(hidden, 10),
    )
    *_, (_, trained) = fine_tuned(
        model, sft_loss, data, lr=lr, num_steps=num_steps, seed=seed, keep=[num_steps]
    ).items()
    model.load_state_dict(trained)
    return model, data


def bf16_stored(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights as bfloat16 stores them, in float32: checkpoint, and start of a fine-tune."""
    return {name: w.bfloat16().float() for name, w in state.items()}


def sft_loss(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Cross-entropy with the right classes: supervised fine-tuning."""
    return nn.functional.cross_entropy(model(x), y)


def distillation_loss(model: nn.Module, x: Tensor, y: Tensor, *, teacher: nn.Module) -> Tensor:
    """Reverse KL divergence from a teacher; the classes y are not looked at.

    Args:
        model: the student, (B, 64) → (B, 10) logits.
        x: (B, 64).
        y: (B,).
        teacher: like the student.
    """
    with torch.no_grad():
        grades = teacher(x)
    return opd_loss(model(x), grades)


def taught(model: nn.Module, data: Digits, *, seed: int, num_steps: int = 400) -> nn.Module:
    """A teacher: a copy of the model trained on the data, supervised, with Adam at 1e-3.

    Args:
        model: the start; left alone.
        data: of the new domain.
        seed: of the batches.
        num_steps: of training.
    """
    states = fine_tuned(
        model, sft_loss, data, lr=1e-3, num_steps=num_steps, seed=seed + 1, keep=[num_steps]
    )
    teacher = copy.deepcopy(model)
    teacher.load_state_dict(states[num_steps])
    return teacher


def grpo_loss(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    group: int = 8,
    generator: torch.Generator | None = None,
) -> Tensor:
    """−mean A log p(a|x), A the reward less its group's mean, over its group's spread.

    Args:
        model: (B, 64) → (B, 10) logits.
        x: (B, 64).
        y: (B,) the right classes, rewarded with 1.
        group: samples per image.
        generator: of the samples.
    """
    log_p = model(x).log_softmax(1)
    actions = torch.multinomial(log_p.exp().detach(), group, replacement=True, generator=generator)
    reward = (actions == y[:, None]).float()
    advantage = (reward - reward.mean(1, keepdim=True)) / (reward.std(1, keepdim=True) + 1e-6)
    return -(advantage * log_p.gather(1, actions)).mean()


def fine_tuned(
    model: nn.Module,
    loss: Loss,
    data: Digits,
    *,
    lr: float,
    num_steps: int,
    seed: int,
    keep: range | list[int],
    batch: int = 64,
    masks: dict[str, Tensor] | None = None,
) -> dict[int, dict[str, Tensor]]:
    """A copy of the model trained with Adam, β = (0.9, 0.98), and its weights at some steps.

    Args:
        model: the start; left alone.
        loss: of the model on a batch (x, y).
        data: drawn from its training part with replacement.
        lr: constant.
        num_steps: of Adam.
        seed: of the batches.
        keep: steps to keep.
        batch: images a step.
        masks: name → entries that are trained; default: all.

    Returns:
        Step → state dict, copied.
    """
    model, generator = copy.deepcopy(model), torch.Generator().manual_seed(seed)
    optimizer: torch.optim.Optimizer = torch.optim.Adam(model.parameters(), lr, betas=(0.9, 0.98))
    if masks is not None:
        optimizer = MaskedOptimizer(optimizer, masks, model=model)
    wanted, kept = set(keep), dict[int, dict[str, Tensor]]()
    for step in range(1, num_steps + 1):
        rows = torch.randint(len(data.y), (batch,), generator=generator)
        optimizer.zero_grad()
        loss(model, data.x[rows], data.y[rows]).backward()
        optimizer.step()
        if step in wanted:
            kept[step] = {k: v.detach().clone() for k, v in model.state_dict().items()}
    return kept


def accuracy(model: nn.Module, state: dict[str, Tensor], data: Digits) -> float:
    """Share of test images that the model with these weights classifies right."""
    with torch.no_grad():
        logits = torch.func.functional_call(model, state, (data.x_test,))
    return (logits.argmax(1) == data.y_test).double().mean().item()
