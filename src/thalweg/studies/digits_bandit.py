"""Reinforcement learning with a verifiable reward at the scale of a minute: digits as a bandit.

A network that has learnt upright digits meets mirrored ones. It samples a class for an image and is
told right or wrong, nothing else: one step of the setting in which language models are trained on
answers that can be checked. Several studies start here.

Source: the loss is GRPO, Shao et al. 2024, arXiv 2402.03300, of one token; the task is ours.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from thalweg.data import Digits, digits

__all__ = ["accuracy", "fine_tuned", "grpo_loss", "mirrored", "pretrained"]

Loss = Callable[[nn.Module, Tensor, Tensor], Tensor]


def mirrored(data: Digits) -> Digits:
    """The same images, left and right exchanged, with the same labels."""

    def flip(x: Tensor) -> Tensor:
        return x.view(-1, 8, 8).flip(2).reshape(-1, 64)

    return Digits(flip(data.x), data.y, flip(data.x_test), data.y_test)


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
    cross_entropy: Loss = lambda m, x, y: nn.functional.cross_entropy(m(x), y)  # noqa: E731
    *_, (_, trained) = fine_tuned(
        model, cross_entropy, data, lr=lr, num_steps=num_steps, seed=seed, keep=[num_steps]
    ).items()
    model.load_state_dict(trained)
    return model, data


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

    Returns:
        Step → state dict, copied.
    """
    model, generator = copy.deepcopy(model), torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(model.parameters(), lr, betas=(0.9, 0.98))
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
