"""Does minibatch SGD change each balance law exactly as the recursion predicts?

A ReLU network learns handwritten digits in float64 by SGD with momentum and weight decay. For each
hidden unit, h = ‖out‖² − ‖in‖² − b² is predicted from the first step on by the recursion of
``thalweg.laws.broken``, and compared with the weights after every step. Baseline: the law taken as
constant. Control: the recursion without its decay term.

Source: D. Kunin et al. 2020, arXiv 2012.04728; Galley, Shahverdi, Flinth 2026, arXiv 2606.10913.

Cost: paper does 186 × the work of quick (num_steps * (1e6 + 74 * batch * hidden)), in 1 GB.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import nn

from thalweg.data import digits
from thalweg.laws import Hyper, Law, LawState, Piece, advance
from thalweg.studies.figures import Figures, data_hash, thin

__all__ = ["PRESETS", "Config", "run"]


@dataclass(frozen=True)
class Config:
    """Settings.

    Attributes:
        hidden: units of the hidden layer.
        num_steps: minibatch steps.
        batch: samples a step.
        lr: step size.
        momentum: β.
        weight_decay: λ, in the gradient as ``torch.optim.SGD`` has it.
    """

    hidden: int = 64
    num_steps: int = 10_000
    batch: int = 32
    lr: float = 0.02
    momentum: float = 0.9
    weight_decay: float = 0.01


PRESETS = {
    "smoke": Config(hidden=16, num_steps=300),
    "quick": Config(),
    "full": Config(hidden=256, num_steps=50_000),
    "paper": Config(hidden=1024, num_steps=200_000, batch=128),
}


def run(config: Config, seed: int) -> Figures:
    """Train once and follow the laws."""
    data = digits(seed=seed, dtype=torch.float64)
    generator = torch.Generator().manual_seed(seed)
    model = nn.Sequential(nn.Linear(64, config.hidden), nn.ReLU(), nn.Linear(config.hidden, 10))
    model.double()
    params = dict(model.named_parameters())
    law = Law(
        "0 → 2",
        "‖out_j‖² − ‖in_j‖² − b_j²",
        (Piece("2.weight", 1.0, axis=1), Piece("0.weight", -1.0), Piece("0.bias", -1.0)),
    )
    optimizer = torch.optim.SGD(
        params.values(),
        config.lr,
        momentum=config.momentum,
        weight_decay=config.weight_decay,
    )
    hyper = Hyper(config.lr, config.momentum, weight_decay=config.weight_decay)
    first = law.fn(params)
    state = LawState(first, torch.zeros_like(first))
    naive, naive_hyper = state, replace(hyper, weight_decay=0.0)
    scale = law.magnitude(params)
    errors, drifts, naive_errors, losses = [], [], [], []
    for _ in range(config.num_steps):
        rows = torch.randint(len(data.y), (config.batch,), generator=generator)
        loss = nn.functional.cross_entropy(model(data.x[rows]), data.y[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        velocity = {n: optimizer.state[p]["momentum_buffer"] for n, p in params.items()}
        vv = law.fn(velocity)
        state, naive = advance(state, hyper, vv, vv), advance(naive, naive_hyper, vv, vv)
        measured = law.fn(params)
        # Decay takes h and θ to zero together, so errors are relative to what h is the sum of.
        scale = torch.maximum(scale, law.magnitude(params))
        errors.append(((measured - state.h).abs() / scale).max().item())
        naive_errors.append(((measured - naive.h).abs() / scale).max().item())
        drifts.append(((measured - first).abs() / scale).max().item())
        losses.append(loss.item())
    steps = thin(range(1, config.num_steps + 1))
    return Figures(
        samples={"recursion_exact": max(errors)},
        baselines={"recursion_exact": max(drifts)},
        controls={"recursion_exact": max(naive_errors)},
        curves={
            "largest error of the recursion": (steps, thin(errors)),
            "largest drift of the law": (steps, thin(drifts)),
            "largest error without the decay term": (steps, thin(naive_errors)),
            "loss": (steps, thin(losses)),
        },
        data_hash=data_hash(data.x, data.y),
    )
