"""Damage and recovery at the scale of a second: digits in four positions, noise, adapters.

A network learns digits in four quarter-turns, told which; noise on its two square matrices damages
it; low-rank adapters beside them, with all else frozen, bring one position back.

Source: set-up ours, after the abstract of I. Piontkovskaia, S. Nikolenko 2026, arXiv 2606.10929;
adapters are LoRA, Hu et al. 2021, arXiv 2106.09685. Axes: `P` entries of all adapters.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, one_hot

from thalweg.data import Digits

__all__ = ["SQUARE", "Adapted", "Recovery", "damaged", "drawn", "loss", "positioned", "trained"]

Batch = tuple[Tensor, Tensor]
SQUARE = (2, 4)  # places of the square matrices


def positioned(x: Tensor, task: Tensor | int) -> Tensor:
    """Images turned by so many quarters, with the number beside them: (B, 64) → (B, 68)."""
    turns = torch.as_tensor(task).expand(len(x))
    image = x.view(-1, 8, 8)
    turned = torch.stack([image.rot90(k, (1, 2)) for k in range(4)])
    rows = torch.arange(len(x))
    return torch.cat([turned[turns, rows].flatten(1), one_hot(turns, 4).to(x)], 1)


def loss(model: nn.Module, batch: Batch) -> Tensor:
    """Cross-entropy on a batch."""
    return cross_entropy(model(batch[0]), batch[1])


def drawn(data: Digits, task: int | None, size: int, generator: torch.Generator) -> Batch:
    """A batch of training images, with replacement, in one position or, with None, in all."""
    rows = torch.randint(len(data.y), (size,), generator=generator)
    turns = torch.randint(4, (size,), generator=generator) if task is None else task
    return positioned(data.x[rows], turns), data.y[rows]


def trained(
    data: Digits, *, hidden: int, num_steps: int, seed: int, generator: torch.Generator
) -> nn.Sequential:
    """The network 68-h-h-h-10 that knows all four positions: Adam at 1e-3, batches of 64."""
    torch.manual_seed(seed)
    sizes = (68, hidden, hidden, hidden)
    model = nn.Sequential()
    for a, b in pairwise(sizes):
        model += nn.Sequential(nn.Linear(a, b), nn.ReLU())
    model.append(nn.Linear(hidden, 10))
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    for _ in range(num_steps):
        optimizer.zero_grad()
        loss(model, drawn(data, None, 64, generator)).backward()
        optimizer.step()
    return model


class Adapted(nn.Module):
    """W x + b + B A x, with W and b frozen and B = 0 at first."""

    def __init__(self, linear: nn.Linear, A: Tensor) -> None:
        super().__init__()
        self.linear = copy.deepcopy(linear).requires_grad_(False)
        self.lora_A = nn.Parameter(A.clone())
        self.lora_B = nn.Parameter(torch.zeros(linear.out_features, len(A)))

    def forward(self, x: Tensor) -> Tensor:
        """(B, in) → (B, out)."""
        return self.linear(x) + x @ self.lora_A.T @ self.lora_B.T


def damaged(
    model: nn.Sequential, noise: float, *, rank: int, generator: torch.Generator
) -> nn.Sequential:
    """A copy with noise on the square matrices, frozen, and fresh adapters beside them.

    Args:
        model: from ``trained``.
        noise: spread of the noise over that of the weights.
        rank: of the adapters.
        generator: of noise and adapters; the same state gives the same A for any noise.
    """
    model = copy.deepcopy(model).requires_grad_(False)
    for place in SQUARE:
        linear = model[place]
        assert isinstance(linear, nn.Linear)
        W = linear.weight
        W += noise * W.std() * torch.randn(W.shape, generator=generator)
        A = 2 * torch.rand(rank, linear.in_features, generator=generator) - 1
        model[place] = Adapted(linear, A * linear.in_features**-0.5)
    return model


@dataclass(frozen=True)
class Recovery:
    """How one position came back.

    Attributes:
        start: the damaged network, left alone.
        states: adapters before the first step and after each.
        gradients: (T, P), of each step.
    """

    start: nn.Sequential
    states: tuple[dict[str, Tensor], ...]
    gradients: Tensor

    @staticmethod
    def of(
        start: nn.Sequential,
        data: Digits,
        *,
        task: int,
        lr: float,
        batch: int,
        num_steps: int,
        generator: torch.Generator,
    ) -> Recovery:
        """Adam on the adapters, on batches of one position."""
        model = copy.deepcopy(start)
        adapters = {n: p for n, p in model.named_parameters() if p.requires_grad}
        optimizer = torch.optim.Adam(adapters.values(), lr)
        states, gradients = [_copied(adapters)], list[Tensor]()
        for _ in range(num_steps):
            optimizer.zero_grad()
            loss(model, drawn(data, task, batch, generator)).backward()
            gradients.append(torch.cat([p.grad.reshape(-1) for p in adapters.values()]))  # pyright: ignore[reportOptionalMemberAccess]
            optimizer.step()
            states.append(_copied(adapters))
        return Recovery(start, tuple(states), torch.stack(gradients))

    @property
    def displacement(self) -> Tensor:
        """φ_T − φ_0, (P,) float64."""
        return _flat(self.states[-1]) - _flat(self.states[0])

    def products(self) -> list[dict[str, Tensor]]:
        """BA of every state, in which the gauge of the factors does not show."""
        return [
            {str(i): s[f"{i}.lora_B"].double() @ s[f"{i}.lora_A"].double() for i in SQUARE}
            for s in self.states
        ]

    def accuracy(self, data: Digits, task: int, moved: Tensor | None = None) -> float:
        """On held-out images, with the adapters moved from their start by (P,); default: not."""
        state, at = dict(self.states[0]), 0
        for name, value in state.items():
            if moved is not None:
                state[name] = value + moved[at : at + value.numel()].view(value.shape).to(value)
            at += value.numel()
        with torch.no_grad():
            x = positioned(data.x_test, task)
            logits = torch.func.functional_call(self.start, state, (x,))
        return (logits.argmax(1) == data.y_test).double().mean().item()


def _copied(adapters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in adapters.items()}


def _flat(state: Mapping[str, Tensor]) -> Tensor:
    return torch.cat([t.reshape(-1).double() for t in state.values()])
