"""Does a closed form give the test error of linear networks over time, and when to stop?

Linear students of noisy linear teachers are drawn and trained exactly, and their test error is
compared with the theory of many dimensions; peak, best stopping time, best ridge penalty and the
harm of initial weights are read off drawn spectra. Last, students with fixed random ReLU features
learn a ReLU teacher, in numbers below and above that of the samples.

Source: M. S. Advani, A. M. Saxe, H. Sompolinsky 2017, arXiv 1710.03667.

Cost: paper does 521 × the work of quick (num_draws * dim**3), in 2 GB.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from thalweg.studies.figures import Figures, data_hash, thin
from thalweg.theory import (
    LinearDynamics,
    double_descent,
    predict_from_data,
    simulate_student_teacher,
)

__all__ = ["PRESETS", "Config", "run"]

#: Number of features to test error, in units of the variance of the labels.
Errors = dict[int, float]


@dataclass(frozen=True)
class Config:
    """Settings.

    Attributes:
        dim: inputs of the linear student.
        num_draws: draws of data and teacher whose errors are averaged.
        snr: signal-to-noise of the teacher.
        until: last time of the comparison with theory.
        late: time that stands for the end of training.
        relu_inputs: of the ReLU teacher.
        relu_units: of its hidden layer.
        relu_samples: its student sees.
        relu_features: of the students; the number of samples and ten times it must be among them.
        relu_draws: draws, of whose test errors the median is taken.
        relu_until: time at which it is.
        relu_noise: standard deviation of label noise, in units of the teacher's output.
    """

    dim: int = 400
    num_draws: int = 12
    snr: float = 5.0
    until: float = 50.0
    late: float = 1e4
    relu_inputs: int = 20
    relu_units: int = 20
    relu_samples: int = 100
    relu_features: tuple[int, ...] = (5, 10, 20, 50, 70, 85, 100, 120, 140, 200, 500, 1000)
    relu_draws: int = 15
    relu_until: float = 1e5
    relu_noise: float = 0.0


PRESETS = {
    "smoke": Config(dim=150, num_draws=12, relu_features=(20, 100, 1000), relu_draws=5),
    "quick": Config(),
    "full": Config(dim=1000, num_draws=24, relu_draws=100),
    "paper": Config(dim=2000, num_draws=50, relu_draws=300),
}


def run(config: Config, seed: int) -> Figures:
    """Draw, compare with theory, and read the rest off the spectra."""
    generator = torch.Generator().manual_seed(seed)
    t = torch.cat([torch.zeros(1), torch.logspace(-2, math.log10(config.until), 40)]).double()
    curves = {}
    deviation = {"theory": 0.0, "end": 0.0, "noise": 0.0}
    for alpha in (0.3, 1.0, 2.0):
        seen = _simulated(config, alpha, t, generator)
        theory = LinearDynamics(alpha, snr=config.snr)
        wrong = LinearDynamics(alpha, sigma_eps=math.sqrt(2 / config.snr))
        told = theory.test_error(t)
        at_end = torch.full_like(t, theory.asymptote())
        for name, guess in (("theory", told), ("end", at_end), ("noise", wrong.test_error(t))):
            found = (guess / seen - 1).abs().max().item()
            # At α = 1 the end is infinite, which would say nothing of the others.
            deviation[name] = max(deviation[name], found if math.isfinite(found) else 0.0)
        curves[f"test error over time, α = {alpha}"] = (thin(t), thin(seen))
        curves[f"test error over time, α = {alpha} (theory)"] = (thin(t), thin(told))

    spectra = {a: _spectrum(config.dim, a, generator) for a in (0.5, 1.0, 2.0)}
    drawn = {a: _theory(config, a, lam) for a, lam in spectra.items()}
    late = {a: th.test_error(config.late).item() for a, th in drawn.items()}
    best = {a: th.optimal_stopping().error for a, th in drawn.items()}
    ridge = {a: th.ridge() for a, th in drawn.items()}
    limit = double_descent([0.5, 1.0, 2.0], config.late, snr=config.snr).tolist()

    rise = _theory(config, 0.5, spectra[0.5], sigma_0=1.0).optimal_stopping().error - best[0.5]
    frozen = drawn[0.5].modes.frozen
    fed = _theory(config, 2.0, spectra[2.0], sigma_0=1.0).asymptote() - drawn[2.0].asymptote()

    measured, predicted, first = _relu(config, generator)
    P = config.relu_samples
    alphas = torch.logspace(math.log10(0.25), math.log10(4), 41)
    features = [float(h) for h in config.relu_features]
    curves |= {
        "end of training, by samples per parameter": (
            thin(alphas),
            thin(double_descent(alphas, config.late, snr=config.snr)),
        ),
        "best stopping, by samples per parameter": (
            thin(alphas),
            thin(double_descent(alphas, "t*", snr=config.snr)),
        ),
        "ReLU features, test error by their number": (features, list(measured.values())),
        "ReLU features, test error by their number (theory)": (features, list(predicted.values())),
    }
    return Figures(
        samples={
            "theory_matches": deviation["theory"],
            "peak_at_one": late[1.0] / max(late[0.5], late[2.0]),
            "stopping_near_ridge": max(best[a] / ridge[a] for a in drawn),
            "small_init_needed": rise / frozen,
            "bigger_is_safer": measured[P] / measured[10 * P],
        },
        baselines={
            "theory_matches": deviation["end"],
            "peak_at_one": limit[1] / max(limit[0], limit[2]),
            "stopping_near_ridge": ridge[1.0],
            "small_init_needed": frozen,
            "bigger_is_safer": measured[10 * P],
        },
        controls={
            "theory_matches": deviation["noise"],
            "peak_at_one": best[1.0] / max(best[0.5], best[2.0]),
            "stopping_near_ridge": max(late[a] / ridge[a] for a in drawn),
            "small_init_needed": fed,
        },
        curves=curves,
        data_hash=data_hash(*spectra.values(), first),
    )


def _simulated(config: Config, alpha: float, t: Tensor, generator: torch.Generator) -> Tensor:
    """Mean test error of the draws."""
    draws = (
        simulate_student_teacher(
            config.dim,
            round(alpha * config.dim),
            t,
            sigma_eps=config.snr**-0.5,
            generator=generator,
        ).test_error
        for _ in range(config.num_draws)
    )
    return torch.stack(list(draws)).mean(0)


def _spectrum(dim: int, alpha: float, generator: torch.Generator) -> Tensor:
    X = torch.randn(round(alpha * dim), dim, generator=generator, dtype=torch.float64)
    return torch.linalg.eigvalsh(X.T @ X / dim)


def _theory(config: Config, alpha: float, lam: Tensor, sigma_0: float = 0.0) -> LinearDynamics:
    return LinearDynamics(alpha, eigenvalues=lam, snr=config.snr, sigma_0=sigma_0)


def _relu(config: Config, generator: torch.Generator) -> tuple[Errors, Errors, Tensor]:
    """By number of features: median measured and predicted test error; and the first inputs."""
    by_draw = list(_relu_draws(config, generator))
    measured = torch.tensor([[m for m, _ in row] for row, _ in by_draw]).median(0).values
    predicted = torch.tensor([[p for _, p in row] for row, _ in by_draw]).median(0).values
    sizes = config.relu_features
    return (
        dict(zip(sizes, measured.tolist(), strict=True)),
        dict(zip(sizes, predicted.tolist(), strict=True)),
        by_draw[0][1],
    )


def _relu_draws(
    config: Config, generator: torch.Generator
) -> Iterator[tuple[list[tuple[float, float]], Tensor]]:
    """Test errors of each student, measured and predicted without training; and the inputs."""
    P, N = config.relu_samples, config.relu_inputs

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    t = torch.tensor([config.relu_until], dtype=torch.float64)
    for _ in range(config.relu_draws):
        x = normal(P + 2000, N)
        clean = (x @ normal(N, config.relu_units)).relu() @ normal(config.relu_units)
        y = (clean - clean.mean()) / clean.std()
        y = y + config.relu_noise * normal(len(y))
        row = []
        for size in config.relu_features:
            features = (x @ normal(N, size) / N**0.5).relu() / size**0.5
            train, test = features[:P], features[P:]
            told = predict_from_data(train, y[:P], t, X_test=test)
            U, s, Vh = torch.linalg.svd(train, full_matrices=False)
            _, grown = told.dynamics.decay(t, s**2)
            out = test @ (Vh.T @ (grown[0] * (U.T @ y[:P]) / s))
            row.append(((out - y[P:]).square().mean().item(), told.test_error.item()))
        yield row, x
