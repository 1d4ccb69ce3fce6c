"""Trainings with a symptom and with its treatment: ground of the treatments and of some faults.

Each is ``(seed, path) -> figure`` once its treatment is given: recorded at ``path``, and the figure
is one that a user would care about. The data are handwritten digits, an XOR among noise, and a
family of sine waves.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import thalweg
from thalweg.data import corrupt_labels, digits
from thalweg.instruments import GrokkingMonitor, proportionality
from thalweg.losses import ELRLoss, GrokAlign
from thalweg.nn import HyperModule, HyperNet
from thalweg.optim import AdamO, ContinualBackprop, L2Init, ReDo
from thalweg.studies.digits_bandit import accuracy, mirrored, pretrained

__all__ = [
    "XOR_STEPS",
    "Beside",
    "adam",
    "adamo",
    "continual_backprop",
    "fine_tune",
    "l2_init",
    "new_labels",
    "noisy_labels",
    "redo",
    "sine_waves",
    "xor",
]

LR, TASKS, IMAGES, TASK_STEPS = 1e-2, 12, 64, 100
XOR_STEPS = 400


def noisy_labels(seed: int, path: Path, *, lr: float, lam: float | None) -> float:
    """A dense network on digits, 40 % of the labels wrong; accuracy on clean held-out ones.

    ``lam``: weight of the regulariser; None for cross-entropy.
    """
    data = digits(seed=seed, num_train=1000)
    labels = corrupt_labels(data.y, 0.4, seed=seed)
    torch.manual_seed(seed)
    model = nn.Sequential(
        *(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 10))
    )
    elr = ELRLoss(len(labels), 10, lam=lam or 0.0)
    optimizer = torch.optim.SGD(model.parameters(), lr, momentum=0.9)
    accuracy = 0.0
    with thalweg.record(model, optimizer, path, overhead=1.0):
        for epoch in range(80):
            for rows in torch.randperm(len(labels)).split(50):
                logits = model(data.x[rows])
                if lam is not None:
                    loss = elr(logits, labels[rows], rows)
                else:
                    loss = nn.functional.cross_entropy(logits, labels[rows])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            if epoch % 4 == 3:
                model.eval()
                with torch.no_grad():
                    out = model(data.x_test)
                    nn.functional.cross_entropy(out, data.y_test)
                accuracy = float((out.argmax(1) == data.y_test).double().mean())
                model.train()
    return accuracy


@dataclass(frozen=True)
class Beside:
    """What stands beside the model: an optimizer, a term of the loss, something after the step."""

    optimizer: torch.optim.Optimizer
    penalty: Callable[[], Tensor | float] = lambda: 0.0
    after_step: Callable[[], Any] = lambda: None


def adam(model: nn.Module) -> Beside:
    """Nothing but Adam."""
    return Beside(torch.optim.Adam(model.parameters(), LR))


def adamo(model: nn.Module) -> Beside:
    """AdamO."""
    return Beside(AdamO(model.parameters(), LR, isometry=0.02))


def l2_init(model: nn.Module) -> Beside:
    """A pull towards the initial weights."""
    return Beside(adam(model).optimizer, penalty=L2Init(model, weight=3e-3).penalty)


def redo(model: nn.Module) -> Beside:
    """Dormant units anew."""
    optimizer = adam(model).optimizer
    return Beside(optimizer, after_step=ReDo(model, optimizer, tau=0.025, every=50).after_step)


def continual_backprop(model: nn.Module) -> Beside:
    """The least useful units anew."""
    optimizer = adam(model).optimizer
    cbp = ContinualBackprop(model, optimizer, replacement_rate=1e-3, maturity=50)
    return Beside(optimizer, after_step=cbp.after_step)


def new_labels(seed: int, path: Path, *, beside: Callable[[nn.Module], Beside]) -> float:
    """New random labels of digits task after task; accuracy at the end of the last three tasks."""
    data = digits(seed=seed)
    torch.manual_seed(seed)
    model = nn.Sequential()
    for _ in range(3):
        model += nn.Sequential(nn.Linear(64, 64), nn.ReLU())
    model.append(nn.Linear(64, 10))
    used = beside(model)
    ends = []
    with thalweg.record(model, used.optimizer, path, overhead=1.0):
        for _ in range(TASKS):
            x = data.x[torch.randperm(len(data.x))[:IMAGES]]
            y = torch.randint(10, (IMAGES,))
            for _ in range(TASK_STEPS):
                rows = torch.randint(IMAGES, (32,))
                loss = nn.functional.cross_entropy(model(x[rows]), y[rows]) + used.penalty()
                used.optimizer.zero_grad()
                loss.backward()
                used.optimizer.step()
                used.after_step()
            with torch.no_grad():
                ends.append(float((model(x).argmax(1) == y).float().mean()))
    return sum(ends[-3:]) / 3


def xor(seed: int, path: Path, *, weight: float) -> float:
    """XOR of two signs among 1998 coordinates of noise; step at which 95 % of held-out are right.

    ``weight``: of the penalty. Looked at every tenth step; ``XOR_STEPS`` + 1 if it never is so.
    """
    torch.manual_seed(seed)
    x = torch.randint(2, (600, 2000)) * 2.0 - 1
    y = x[:, 0] * x[:, 1]
    x[:, 2:] *= 0.22
    model = nn.Sequential(nn.Linear(2000, 64, bias=False), nn.ReLU(), nn.Linear(64, 1, bias=False))
    penalty, monitor = GrokAlign(model, weight=weight), GrokkingMonitor()
    optimizer = torch.optim.SGD(model.parameters(), 0.1, weight_decay=0.1)
    with thalweg.record(model, optimizer, path, overhead=1.0) as recording:
        for step in range(1, XOR_STEPS + 1):
            loss = nn.functional.mse_loss(model(x[:200]).squeeze(1), y[:200])
            if weight:
                loss = loss + penalty(x[:200])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if step % 10 == 0:
                model.eval()
                with torch.no_grad():
                    out = model(x).squeeze(1)
                    nn.functional.mse_loss(out[200:], y[200:])
                right = (out * y > 0).double()
                train, test = float(right[:200].mean()), float(right[200:].mean())
                recording.log(monitor.update(step, train=train, test=test))
                model.train()
    found = monitor.generalised_at
    return float(XOR_STEPS + 1 if found is None else found)


def sine_waves(seed: int, path: Path, *, changed: bool) -> float:
    """Waves of every frequency γ by one hypernetwork; mean squared error of the last 50 steps.

    ``changed``: input encoded and output added to ordinary weights; else one without biases.
    """
    torch.manual_seed(seed)
    primary = nn.Sequential(
        *(nn.Linear(1, 24), nn.ReLU(), nn.Linear(24, 24), nn.ReLU(), nn.Linear(24, 1))
    )
    shapes = {n: p.shape for n, p in primary.named_parameters()}
    net = HyperNet(
        {"gamma": (1,)}, shapes, encoding="cos|sin" if changed else None, residual=changed
    )
    model = HyperModule(primary, net)
    for p in model.parameters():
        p.requires_grad_(changed or p.ndim > 1)
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], 1e-3)
    sizes = {"gamma": torch.linspace(0.05, 1, 20)[:, None]}
    errors = []
    with thalweg.record(model, optimizer, path, overhead=0.3) as recording:
        for step in range(1200):
            gamma, x = torch.rand(16, 1), torch.rand(16, 32, 1)
            y = torch.sin(2 * math.pi * x * (0.5 + gamma[:, None]))
            loss = nn.functional.mse_loss(model({"gamma": gamma}, x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            errors.append(float(loss.detach()))
            if step % 50 == 0:
                exponent = proportionality(net, sizes).exponent
                recording.log({"proportionality_exponent": exponent})
    return sum(errors[-50:]) / 50


def fine_tune(seed: int, path: Path, *, lr: float, steps: int) -> float:
    """A network that knows upright digits learns mirrored ones; accuracy on upright ones after."""
    model, upright = pretrained(seed)
    new = mirrored(upright)
    torch.manual_seed(seed)
    optimizer = torch.optim.Adam(model.parameters(), lr)
    with thalweg.record(model, optimizer, path, overhead=1.0):
        for _ in range(steps):
            rows = torch.randint(len(new.y), (64,))
            loss = nn.functional.cross_entropy(model(new.x[rows]), new.y[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return accuracy(model, model.state_dict(), upright)
