"""Do predicted weights grow with the input, and does training gain where they do not?

Fresh hypernetworks are asked for weights at a small and a large input. Then hypernetworks learn,
by Adam, to predict a small network that fits a sine of variable frequency: the standard one, one
with encoded input and additive output, and each change alone. All have biases, which start at 0 and
learn; a standard one whose biases stay 0, and which so stays proportional, is among the curves.
Baselines: the standard one, also at a larger learning rate.

Source: J. J. Gonzalez Ortiz, J. Guttag, A. V. Dalca 2023, arXiv 2304.07645.

Cost: paper does 289 × the work of quick (num_steps * (1e6 + num_inputs * (num_points + 128) *
width**2)), in 2 GB.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn

from thalweg.instruments import proportionality
from thalweg.nn import HyperModule, HyperNet
from thalweg.studies.figures import Figures, data_hash, thin

__all__ = ["PRESETS", "Config", "run"]


@dataclass(frozen=True)
class Config:
    """Settings.

    Attributes:
        hidden: widths of the hypernetwork.
        width: of the primary network's two hidden layers.
        num_steps: of Adam.
        num_inputs: hyper-inputs γ a step.
        num_points: points x for each γ.
        lr: of Adam.
        larger_lr: a second one for the standard hypernetwork.
        error: mean squared error that counts as learnt.
        window: steps over which the error is averaged for this.
        last: final steps over which the error is averaged.
    """

    hidden: tuple[int, ...] = (16, 128)
    width: int = 24
    num_steps: int = 1200
    num_inputs: int = 16
    num_points: int = 32
    lr: float = 1e-3
    larger_lr: float = 3e-3
    error: float = 0.15
    window: int = 50
    last: int = 100


PRESETS = {
    "smoke": Config(num_steps=150, num_inputs=8, error=0.3, last=30),
    "quick": Config(),
    "full": Config(num_steps=5000, width=48),
    "paper": Config(num_steps=20_000, width=128, hidden=(16, 128)),
}

#: Encoding and residual of each form.
FORMS: dict[str, tuple[str | None, bool]] = {
    "standard": (None, False),
    "encoding only": ("cos|sin", False),
    "additive only": (None, True),
    "both": ("cos|sin", True),
}


def run(config: Config, seed: int) -> Figures:
    """One seed of every claim."""
    errors = {form: _errors(config, form, config.lr, seed) for form in FORMS}
    faster = _errors(config, "standard", config.larger_lr, seed)
    without = _errors(config, "standard", config.lr, seed, biases=False)
    steps = {form: _steps(config, e) for form, e in errors.items()}
    final = {form: _mean(e[-config.last :]) for form, e in errors.items()}
    half = min(steps["encoding only"], steps["additive only"])
    axis = thin(range(1, config.num_steps + 1))
    return Figures(
        samples={
            "proportional": _ratio(config, "standard", seed),
            "trains_faster": steps["standard"] / steps["both"],
            "lower_final_error": final["both"] / final["standard"],
            "both_halves_needed": half / steps["both"],
        },
        baselines={
            "proportional": 1 / 0.05,
            "trains_faster": steps["standard"],
            "lower_final_error": min(final["standard"], _mean(faster[-config.last :])),
            "both_halves_needed": half,
        },
        controls={"proportional": _ratio(config, "both", seed)},
        curves={
            **{f"squared error, {form}": (axis, thin(e)) for form, e in errors.items()},
            "squared error, standard, larger rate": (axis, thin(faster)),
            "squared error, standard, biases kept at zero": (axis, thin(without)),
        },
        data_hash=data_hash(torch.cat(_batch(config, torch.Generator().manual_seed(seed))[1:])),
    )


def _ratio(config: Config, form: str, seed: int) -> float:
    """‖θ(1)‖/‖θ(0.05)‖ of a fresh hypernetwork."""
    encoding, residual = FORMS[form]
    w = config.width
    net = HyperNet(
        {"gamma": (1,)},
        {
            **{"0.weight": (w, 1), "0.bias": (w,), "2.weight": (w, w), "2.bias": (w,)},
            **{"4.weight": (1, w), "4.bias": (1,)},
        },
        config.hidden,
        encoding,
        residual,
        generator=torch.Generator().manual_seed(seed),
        dtype=torch.float64,
    )
    ends = torch.tensor([[0.05], [1.0]], dtype=torch.float64)
    return proportionality(net, {"gamma": ends}).ratio


def _errors(config: Config, form: str, lr: float, seed: int, *, biases: bool = True) -> list[float]:
    """Mean squared error of every step; ``biases``: whether the hypernetwork's learn."""
    torch.manual_seed(seed)
    encoding, residual = FORMS[form]
    w = config.width
    primary = nn.Sequential(
        *(nn.Linear(1, w), nn.ReLU(), nn.Linear(w, w), nn.ReLU(), nn.Linear(w, 1))
    )
    fresh = HyperNet(  # θ₀ starts by Kaiming's law, as the method says, not as the module does
        {"gamma": (1,)},
        {n: p.shape for n, p in primary.named_parameters()},
        config.hidden,
        encoding,
        residual,
    )
    model = HyperModule(primary, fresh)
    for p in model.parameters():
        p.requires_grad_(biases or p.ndim > 1)
    optimizer = torch.optim.Adam(model.parameters(), lr)
    generator = torch.Generator().manual_seed(seed)
    errors = []
    for _ in range(config.num_steps):
        gamma, x, y = _batch(config, generator)
        loss = nn.functional.mse_loss(model({"gamma": gamma}, x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        errors.append(loss.item())
    return errors


def _batch(
    config: Config, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """γ (n, 1), x (n, m, 1), y = sin(2πx(½ + γ))."""
    gamma = torch.rand(config.num_inputs, 1, generator=generator)
    x = torch.rand(config.num_inputs, config.num_points, 1, generator=generator)
    return gamma, x, torch.sin(2 * math.pi * x * (0.5 + gamma[:, None]))


def _steps(config: Config, errors: list[float]) -> float:
    """Steps until the mean over a window is below the error; all of them if it never is."""
    for end in range(config.window, len(errors) + 1):
        if _mean(errors[end - config.window : end]) < config.error:
            return float(end)
    return float(len(errors))


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
