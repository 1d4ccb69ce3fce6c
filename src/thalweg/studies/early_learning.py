"""Does early-learning regularisation keep a network from memorising wrong labels?

A dense network learns handwritten digits of which 40 % have a wrong label, by cross-entropy and
with the regulariser at several weights; after every epoch it is looked at what is predicted for the
wrongly labelled images and for clean test images. Baselines: cross-entropy, and cross-entropy
stopped at its best epoch on the clean test set, which nobody could know. Control: a weight that is
too small.

Source: S. Liu, J. Niles-Weed, N. Razavian, C. Fernandez-Granda 2020, arXiv 2007.00151.

Cost: paper does 29.2 × the work of quick (epochs * num_train * (1e6 + batch * hidden * (64 +
hidden))), in 1 GB.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from thalweg.data import Digits, corrupt_labels, digits
from thalweg.instruments import Memorization, MemorizationTracker
from thalweg.losses import ELRLoss
from thalweg.studies.figures import Figures, data_hash

__all__ = ["PRESETS", "Config", "run"]


@dataclass(frozen=True)
class Config:
    """Settings.

    Attributes:
        num_train: images to train on.
        rate: share of them with a wrong label.
        hidden: width of the two hidden layers.
        lr: of SGD with momentum 0.9.
        batch: images a step.
        epochs: passes over the images.
        lam: weight of the regulariser.
        weak_lam: a weight that is too small.
        beta: averaging of the targets.
        swept_lams: other weights, at ``beta``.
        swept_betas: other averagings, at ``lam``.
    """

    num_train: int = 1000
    rate: float = 0.4
    hidden: int = 256
    lr: float = 0.05
    batch: int = 50
    epochs: int = 80
    lam: float = 7.0
    weak_lam: float = 1.0
    beta: float = 0.7
    swept_lams: tuple[float, ...] = (3.0, 15.0)
    swept_betas: tuple[float, ...] = (0.5, 0.9, 0.99)


PRESETS = {
    "smoke": Config(num_train=400, hidden=128, epochs=40, swept_lams=(), swept_betas=()),
    "quick": Config(),
    "full": Config(epochs=200, swept_lams=(2.0, 3.0, 5.0, 10.0, 15.0)),
    "paper": Config(num_train=1400, hidden=1024, epochs=150),
}


@dataclass(frozen=True)
class _Training:
    """What one training went through; axes `E` epochs, `N` training images.

    ``classes``: (E, N) predicted; ``accuracy``: (E,) on the test images; ``flagged``: (N,) labels
    that the targets hold to be wrong, none for cross-entropy.
    """

    classes: Tensor
    accuracy: Tensor
    memorization: Memorization
    flagged: Tensor


def run(config: Config, seed: int) -> Figures:
    """One seed of every claim."""
    data = digits(seed=seed, num_train=config.num_train)
    noisy = corrupt_labels(data.y, config.rate, seed=seed, num_classes=10)
    wrong = noisy != data.y

    def trained(lam: float | None, beta: float = config.beta) -> _Training:
        return _trained(config, data, noisy, lam, beta, seed)

    plain, kept, weak = trained(None), trained(config.lam), trained(config.weak_lam)
    lams = {config.lam: kept, config.weak_lam: weak} | {m: trained(m) for m in config.swept_lams}
    betas = {config.beta: kept} | {b: trained(config.lam, b) for b in config.swept_betas}
    best = int(plain.accuracy.argmax())
    final, plain_final = float(kept.accuracy[-1]), float(plain.accuracy[-1])
    epochs = [float(e + 1) for e in range(config.epochs)]
    return Figures(
        samples={
            "keeps_accuracy": final - plain_final,
            "beats_stopping": final - float(plain.accuracy[best]),
            "prevents_memorisation": float(kept.memorization.memorised[-1]),
            "two_phases": _fall(plain.memorization),
            "detects_wrong_labels": min(_detection(kept.flagged, wrong)),
        },
        baselines={
            "keeps_accuracy": plain_final,
            "beats_stopping": float(plain.accuracy[best]),
            "prevents_memorisation": float(plain.memorization.memorised[best]),
            "two_phases": (plain.memorization.peak + 1) / config.epochs,
            "detects_wrong_labels": min(_detection(plain.classes[best] != noisy, wrong)),
        },
        controls={
            "keeps_accuracy": float(weak.accuracy[-1]) - plain_final,
            "prevents_memorisation": float(plain.memorization.memorised[-1]),
            "two_phases": _fall(kept.memorization),
            "detects_wrong_labels": _detection(plain.classes[-1] != noisy, wrong)[1],
        },
        curves={
            **{
                f"{what}, {name}": (epochs, series.tolist())
                for name, t in (("cross-entropy", plain), ("regularised", kept))
                for what, series in (
                    ("test accuracy", t.accuracy),
                    ("wrong labels predicted right", t.memorization.correct_on_wrong),
                    ("wrong labels memorised", t.memorization.memorised),
                )
            },
            "final test accuracy against weight": _final(lams),
            "final test accuracy against averaging": _final(betas),
        },
        data_hash=data_hash(data.x, noisy),
    )


def _trained(
    config: Config, data: Digits, noisy: Tensor, lam: float | None, beta: float, seed: int
) -> _Training:
    """Train by cross-entropy, or with the regulariser at weight ``lam``."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    width = config.hidden
    model = nn.Sequential(
        *(nn.Linear(64, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU()),
        nn.Linear(width, 10),
    )
    regularised = ELRLoss(len(noisy), 10, lam=lam or 0.0, beta=beta)
    optimizer = torch.optim.SGD(model.parameters(), config.lr, momentum=0.9)
    tracker = MemorizationTracker(data.y, noisy)
    classes, accuracy = [], []
    for _ in range(config.epochs):
        for rows in torch.randperm(len(noisy), generator=generator).split(config.batch):
            logits = model(data.x[rows])
            if lam is None:
                loss = nn.functional.cross_entropy(logits, noisy[rows])
            else:
                loss = regularised(logits, noisy[rows], rows)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            classes.append(model(data.x).argmax(1))
            accuracy.append((model(data.x_test).argmax(1) == data.y_test).double().mean())
        tracker.after_epoch(classes[-1])
    return _Training(
        torch.stack(classes),
        torch.stack(accuracy),
        tracker.history(),
        regularised.detect(noisy),
    )


def _fall(seen: Memorization) -> float:
    """From the peak of early learning to the end."""
    return float(seen.correct_on_wrong.max() - seen.correct_on_wrong[-1])


def _detection(flagged: Tensor, wrong: Tensor) -> tuple[float, float]:
    """Precision and recall; precision is 0 where nothing is flagged."""
    hits = float((flagged & wrong).sum())
    return hits / max(1.0, float(flagged.sum())), hits / float(wrong.sum())


def _final(trainings: dict[float, _Training]) -> tuple[list[float], list[float]]:
    settings = sorted(trainings)
    return settings, [float(trainings[s].accuracy[-1]) for s in settings]
