"""Does a penalty on the Jacobian bring generalisation forward, and align Jacobians with inputs?

XOR of two signs among many coordinates of noise, learnt by a ReLU net without biases under weight
decay: it memorises within tens of steps. Four trainings from the same weights: weight decay alone
(the control), with the penalty, and with either Grokfast filter (the baseline). For the rank of
Jacobians, a net on handwritten digits with and without the penalty, for as many steps as take both
to full training accuracy.

Source: Walker, Humayun, Balestriero, Baraniuk 2025, arXiv 2506.12284, smaller.

Cost: paper does 3200 × the work of quick (num_steps * num_train * hidden * dim), in 4 GB.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from thalweg.data import digits
from thalweg.instruments import GrokkingMonitor, centroid_alignment, centroids, jacobian_pc1
from thalweg.losses import GrokAlign
from thalweg.optim import GrokfastEMA, GrokfastMA
from thalweg.studies.figures import Figures, data_hash, thin

__all__ = ["PRESETS", "Config", "run"]


@dataclass(frozen=True)
class Config:
    """Settings.

    Attributes:
        dim: coordinates of an input; the first two are the signal.
        noise: size of the others.
        num_train: training points.
        num_test: test points.
        hidden: units.
        lr: of plain SGD, full batch.
        weight_decay: in the gradient, as ``torch.optim.SGD`` has it.
        weight: of the penalty.
        num_steps: of each training.
        align_at: step at which alignments are compared.
        align_every: steps between alignments on the curve; ``align_at`` is a multiple.
        digits_train: training images of the digits net.
        digits_hidden: its units, in each of two layers.
        digits_weight: of its penalty.
        digits_steps: full-batch steps of Adam at 1e-3.
    """

    dim: int = 2000
    noise: float = 0.22
    num_train: int = 200
    num_test: int = 400
    hidden: int = 64
    lr: float = 0.1
    weight_decay: float = 0.1
    weight: float = 1.0
    num_steps: int = 400
    align_at: int = 360
    align_every: int = 20
    digits_train: int = 400
    digits_hidden: int = 100
    digits_weight: float = 0.01
    digits_steps: int = 500


PRESETS = {
    "smoke": Config(
        dim=1500,
        noise=0.25,
        num_test=200,
        hidden=48,
        num_steps=100,
        align_at=100,
        digits_train=100,
        digits_hidden=48,
        digits_steps=120,
    ),
    "quick": Config(),
    "full": Config(num_steps=2000, digits_steps=3000),
    "paper": Config(
        dim=40_000, noise=0.05, num_train=400, hidden=2048, num_steps=1000, digits_steps=3000
    ),
}


@dataclass
class Training:
    """One training on XOR.

    Attributes:
        model: at its end.
        first_share: share of the signal in the centroids before the first step.
        monitor: of its accuracies.
        test: accuracy on test points, after each step.
        alignment: step to the mean |cos(μ_x, x)| on training points.
        memorised: that mean at the first step of full memory; nan if there was none.
    """

    model: nn.Module
    first_share: float
    monitor: GrokkingMonitor = field(default_factory=GrokkingMonitor)
    test: list[float] = field(default_factory=list)
    alignment: dict[int, float] = field(default_factory=dict)
    memorised: float = float("nan")


def run(config: Config, seed: int) -> Figures:
    """Four trainings on XOR and two on digits."""
    generator = torch.Generator().manual_seed(seed)
    train, test = (_xor(config, n, generator) for n in (config.num_train, config.num_test))
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Linear(config.dim, config.hidden, bias=False),
        nn.ReLU(),
        nn.Linear(config.hidden, 1, bias=False),
    )
    decay = _trained(config, model, train, test)
    aligned = _trained(
        config, model, train, test, penalty=lambda m: GrokAlign(m, weight=config.weight)
    )
    # the settings of the companions in the paper's study
    ema = _trained(
        config, model, train, test, grokfast=lambda m: GrokfastEMA(m, alpha=0.8, lamb=0.1)
    )
    ma = _trained(
        config, model, train, test, grokfast=lambda m: GrokfastMA(m, window=100, lamb=5.0)
    )

    signs = torch.randint(2, test[0].shape, generator=generator) * 2.0 - 1
    signs[:, :2] = 0  # the noise lies in the other coordinates
    noisy = test[0] + 2 * config.noise * signs, test[1]
    robust = {name: _accuracy(t.model, *noisy) for name, t in (("+", aligned), ("-", decay))}
    share = {name: _signal_share(t.model, train[0]) for name, t in (("+", aligned), ("-", decay))}
    at = config.align_at
    rank, plain_rank = _digits_ranks(config, seed)
    steps = thin(range(1, config.num_steps + 1))
    marks = [float(s) for s in aligned.alignment]
    named = {"weight decay": decay, "penalty": aligned, "Grokfast-EMA": ema, "Grokfast-MA": ma}
    return Figures(
        samples={
            "sooner": _generalised_at(config, aligned),
            "alignment_rises": aligned.alignment[at] / decay.alignment[at],
            "uses_signal": share["+"] - share["-"],
            "robust_to_noise": robust["+"] - robust["-"],
            "nearer_rank_one": rank - plain_rank,
        },
        baselines={
            "sooner": min(_generalised_at(config, ema), _generalised_at(config, ma)),
            "alignment_rises": decay.alignment[at],
            "uses_signal": share["-"],
            "robust_to_noise": robust["-"],
            "nearer_rank_one": plain_rank,
        },
        controls={
            "sooner": _generalised_at(config, decay),
            "alignment_rises": aligned.memorised,
            "uses_signal": aligned.first_share - decay.first_share,
        },
        curves={
            **{f"test accuracy, {n}": (steps, thin(t.test)) for n, t in named.items()},
            "alignment, penalty": (marks, list(aligned.alignment.values())),
            "alignment, weight decay": (marks, list(decay.alignment.values())),
        },
        data_hash=data_hash(*train, *test),
    )


def _trained(
    config: Config,
    model: nn.Module,
    train: tuple[Tensor, Tensor],
    test: tuple[Tensor, Tensor],
    *,
    penalty: Callable[[nn.Module], GrokAlign] | None = None,
    grokfast: Callable[[nn.Module], GrokfastEMA | GrokfastMA] | None = None,
) -> Training:
    """A copy of the model, trained."""
    training = Training(copy.deepcopy(model), _signal_share(model, train[0]))
    net, monitor = training.model, training.monitor
    extra = penalty(net) if penalty else None
    grads = grokfast(net) if grokfast else None
    optimizer = torch.optim.SGD(net.parameters(), config.lr, weight_decay=config.weight_decay)
    for step in range(1, config.num_steps + 1):
        loss = nn.functional.mse_loss(net(train[0]).squeeze(1), train[1])
        if extra is not None:
            loss = loss + extra(train[0])
        optimizer.zero_grad()
        loss.backward()
        if grads is not None:
            grads.apply()
        optimizer.step()
        training.test.append(_accuracy(net, *test))
        monitor.update(step, train=_accuracy(net, *train), test=training.test[-1])
        if step == monitor.memorised_at:
            training.memorised = _alignment(net, train[0])
        if step % config.align_every == 0:
            training.alignment[step] = _alignment(net, train[0])
    return training


def _xor(config: Config, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Inputs (n, dim) of signs, all but the first two times ``noise``, and their labels ±1."""
    x = torch.randint(2, (n, config.dim), generator=generator) * 2.0 - 1
    y = x[:, 0] * x[:, 1]
    x[:, 2:] *= config.noise
    return x, y


def _accuracy(model: nn.Module, x: Tensor, y: Tensor) -> float:
    with torch.no_grad():
        return (model(x).squeeze(1) * y > 0).float().mean().item()


def _alignment(model: nn.Module, x: Tensor) -> float:
    # the sign of the only output is that of the label
    return centroid_alignment(model, x).abs().mean().item()


def _signal_share(model: nn.Module, x: Tensor) -> float:
    """Mean share of the centroid's norm in the two coordinates of the signal."""
    mu = centroids(model, x)
    return (mu[:, :2].norm(dim=1) / mu.norm(dim=1)).nan_to_num(0.0).mean().item()


def _generalised_at(config: Config, training: Training) -> float:
    found = training.monitor.generalised_at
    return float(config.num_steps + 1 if found is None else found)


def _digits_ranks(config: Config, seed: int) -> tuple[float, float]:
    """Mean share of the first squared singular value at test points, with and without penalty.

    nan unless both nets learnt all of the training part.
    """
    data = digits(seed=seed, num_train=config.digits_train)
    torch.manual_seed(seed)
    h = config.digits_hidden
    start = nn.Sequential(nn.Linear(64, h), nn.ReLU(), nn.Linear(h, h), nn.ReLU(), nn.Linear(h, 10))
    shares = []
    for weight in (config.digits_weight, 0.0):
        model = copy.deepcopy(start)
        generator = torch.Generator().manual_seed(seed)
        penalty = GrokAlign(model, weight=weight, generator=generator)
        optimizer = torch.optim.Adam(model.parameters(), 1e-3)
        for _ in range(config.digits_steps):
            loss = nn.functional.cross_entropy(model(data.x), data.y)
            if weight > 0:
                loss = loss + penalty(data.x)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        learnt = bool((model(data.x).argmax(1) == data.y).all())
        shares.append(jacobian_pc1(model, data.x_test).mean().item() if learnt else float("nan"))
    return shares[0], shares[1]
