"""Does structured knowledge accumulation keep its own time, and what is its entropy?

A sigmoid network sees the digits again and again without labels, at several rates with one product
of rate and steps. Measured: when each layer's entropy is lowest and its knowledge flow highest,
zeros of the Tensor Net, the summed entropy beside the change of Bernoulli entropy, and whether the
last layer's activations tell the digits apart. Baselines: gradient descent in the same network,
times predicted from second moments, the other sign, principal components.

Source: B. Mahi 2025, arXiv 2504.03214.

Cost: paper does 10 × the work of quick (duration / fine * widths[0] * (64 + widths[1])), in 1 GB.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from thalweg.data import digits
from thalweg.errors import ThalwegError
from thalweg.instruments import bernoulli_entropy_change
from thalweg.nn import SKANetwork
from thalweg.optim import SKAHistory, ska_fit
from thalweg.studies.figures import Figures, data_hash, thin
from thalweg.theory import characteristic_time

__all__ = ["PRESETS", "Config", "run"]


@dataclass(frozen=True)
class Config:
    """Settings.

    Attributes:
        widths: of the layers after the 64 inputs.
        num_images: of the digits.
        duration: rate times steps.
        fine: the rate at which most is measured.
        double: a second rate, for the order of the error.
        middle: the rate whose times are compared with those at ``fine``.
        coarse: the rate of the negative control.
        init_std: of the initial weights.
        gd_init_std: of gradient descent, which stays on a plateau for long from smaller weights.
        gd_scale: how much larger its rates are, at ``middle`` and ``fine``.
        gd_duration: its rate times steps.
        gd_images: of the digits it sees.
    """

    widths: tuple[int, ...] = (64, 32, 16, 10)
    num_images: int = 1797
    duration: float = 2.0
    fine: float = 0.005
    double: float = 0.01
    middle: float = 0.02
    coarse: float = 0.08
    init_std: float = 0.01
    gd_init_std: float = 0.3
    gd_scale: float = 40.0
    gd_duration: float = 100.0
    gd_images: int = 200


PRESETS = {
    "smoke": Config(
        num_images=300, fine=0.01, double=0.02, middle=0.04, coarse=0.16, gd_duration=20.0
    ),
    "quick": Config(),
    "full": Config(fine=0.00125, double=0.0025, middle=0.005),
    "paper": Config(widths=(256, 128, 64, 10), duration=0.5, fine=0.001, double=0.002),
}


def run(config: Config, seed: int) -> Figures:
    """Fit at four rates from the same weights, and compare."""
    x, y = _images(config, seed)
    fine = _fit(config, x, seed, config.fine)
    double, middle, coarse = (
        _fit(config, x, seed, lr) for lr in (config.double, config.middle, config.coarse)
    )
    paper = _fit(config, x, seed, config.fine, sign="paper")
    lowest = [_times(r.history.entropy.argmin(0), r.lr) for r in (middle, fine)]
    peaks = _times(fine.history.flow.argmax(0), config.fine)
    features, components = _accuracies(fine.net(x).detach(), x, y, seed)
    descent = [_descent_peaks(config, x, y, seed, lr) for lr in (config.middle, config.fine)]
    steps = thin(torch.arange(1, len(fine.history.flow) + 1) * config.fine)
    return Figures(
        samples={
            "same_trajectory": _difference(*lowest),
            "layer_order": _delay(peaks),
            "tensor_net_crossings": float(_behaved(fine.history.tensor_net)),
            "entropy_is_bernoulli": fine.error,
            "useful_features": features - components,
        },
        baselines={
            "same_trajectory": _difference(*descent),
            "layer_order": _delay(_predicted(config, x)),
            "tensor_net_crossings": float(_behaved(paper.history.tensor_net)),
            "entropy_is_bernoulli": double.error,
            "useful_features": components,
        },
        controls={"entropy_is_bernoulli": coarse.error},
        curves={
            f"{what}, layer {i + 1}": (steps, thin(series[:, i]))
            for what, series in (
                ("entropy", fine.history.entropy),
                ("flow", fine.history.flow),
                ("Tensor Net", fine.history.tensor_net),
            )
            for i in range(len(config.widths))
        },
        data_hash=data_hash(x, y),
    )


@dataclass(frozen=True)
class _Fit:
    """One run: its rate, what it measured, the network, and how far entropies are from exact."""

    lr: float
    history: SKAHistory
    net: SKANetwork
    error: float


def _network(config: Config, seed: int, init_std: float) -> SKANetwork:
    generator = torch.Generator().manual_seed(seed)
    return SKANetwork([64, *config.widths], init_std, torch.float64, generator=generator)


def _fit(config: Config, x: Tensor, seed: int, lr: float, sign: str = "code") -> _Fit:
    net, last = _network(config, seed, config.init_std), []

    def keep(step: int, knowledge: list[Tensor]) -> None:
        last[:] = knowledge

    first = [z.detach() for z in net.pre_activations(x)]
    history = ska_fit(
        net,
        x,
        lr=lr,
        steps=round(config.duration / lr),
        sign="paper" if sign == "paper" else "code",
        callback=keep,
    )
    exact = torch.stack([bernoulli_entropy_change(a, b) for a, b in zip(first, last, strict=True)])
    error = ((history.entropy.sum(0) - exact) / exact).abs().max().item()
    return _Fit(lr, history, net, error)


def _times(rows: Tensor, lr: float) -> list[float]:
    """Row k − 1 of a history is step k."""
    return [lr * (row + 1) for row in rows.tolist()]


def _difference(first: Sequence[float], second: Sequence[float]) -> float:
    """Largest relative difference of the times of the layers; none where both are 0."""
    return max(abs(a - b) / max(b, 1e-12) for a, b in zip(first, second, strict=True))


def _delay(times: Sequence[float]) -> float:
    """The smaller of the delays from layer 2 to 3 and from layer 3 to 1."""
    return min(times[2] - times[1], times[0] - times[2])


def _predicted(config: Config, x: Tensor) -> list[float]:
    """When units are no longer undecided if early growth went on: τ ln(1/z) from z = init·√λ."""
    taus = characteristic_time(x, [64, *config.widths], config.init_std).tolist()
    return [
        tau * math.log(1 / (config.init_std * math.sqrt(4 * math.log(2) / tau))) for tau in taus
    ]


def _behaved(tensor_net: Tensor) -> int:
    """How many of layers 1 to 4 cross zero as is claimed: 1 and 3 once, 2 and 4 never.

    The first row is exactly 0, and the step away from it no crossing.
    """
    signs = tensor_net[1:].sign()
    crossings = (signs[1:] * signs[:-1] < 0).sum(0).tolist()
    return sum(found == expected for found, expected in zip(crossings, (1, 0, 1, 0), strict=True))


def _descent_peaks(config: Config, x: Tensor, y: Tensor, seed: int, lr: float) -> list[float]:
    """When the gradient of each layer is largest under gradient descent on cross-entropy."""
    net, norms = _network(config, seed, config.gd_init_std), []
    x, y, rate = x[: config.gd_images], y[: config.gd_images], lr * config.gd_scale
    optimizer = torch.optim.SGD(net.parameters(), rate)
    for _ in range(round(config.gd_duration / rate)):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net.pre_activations(x)[-1], y).backward()
        grads = [m.weight.grad for m in net.linear_maps()]
        norms.append(torch.stack([g.norm() for g in grads if g is not None]))
        optimizer.step()
    return [rate * step for step in torch.stack(norms).argmax(0).tolist()]


def _images(config: Config, seed: int) -> tuple[Tensor, Tensor]:
    """All digits in the order of the seed, pixels from 0 to 1."""
    data = digits(seed=seed, dtype=torch.float64)
    x, y = torch.cat([data.x, data.x_test]), torch.cat([data.y, data.y_test])
    x = (x - x.min()) / (x.max() - x.min())
    return x[: config.num_images], y[: config.num_images]


def _accuracies(features: Tensor, x: Tensor, y: Tensor, seed: int) -> tuple[float, float]:
    """Logistic regression on the last activations, and on as many principal components."""
    try:
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler
    except ImportError:
        raise ThalwegError("this needs scikit-learn: pip install 'thalweg[data]'") from None
    train = len(x) * 1000 // 1797
    centred = x - x[:train].mean(0)
    basis = torch.linalg.svd(centred[:train], full_matrices=False).Vh[: features.shape[1]]
    found = []
    for inputs in (features, centred @ basis.T):
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=5000))
        model.fit(inputs[:train].numpy(), y[:train].numpy())
        found.append(float(model.score(inputs[train:].numpy(), y[train:].numpy())))
    return found[0], found[1]
