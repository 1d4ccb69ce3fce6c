"""How many random dimensions does fine-tuning need, and what lowers the number?

Dense networks are pretrained on ten handwritten digits and fine-tuned on 300 examples of "digit at
least 5" in random subspaces, from no pretraining, with true and with shuffled labels, in several
widths, with a learnt scale for each layer, and with random labels mixed in. Baselines: training the
new head alone, random initial weights, the share of random labels.

Source: A. Aghajanyan, L. Zettlemoyer, S. Gupta 2020, arXiv 2012.13255.

Cost: paper does 629 × the work of quick (num_steps * len(lrs) * len(noise_dims) * (1e6 + batch *
hidden * (64 + hidden))), in 4 GB.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from scipy.stats import spearmanr
from torch import Tensor, nn

from thalweg.data import Digits, digits
from thalweg.studies.figures import Figures, data_hash
from thalweg.studies.minilm import (
    Layer,
    SnippetClassifier,
    load_minilm,
    movie_snippets,
    snippet_states,
)
from thalweg.trajectory import IntrinsicDimensionResult, intrinsic_dimension_of_finetuning

__all__ = ["PRESETS", "Config", "run"]

CHANCE = 0.5


@dataclass(frozen=True)
class Config:
    """Settings.

    Attributes:
        hidden: width of the two hidden layers.
        pretraining: steps on ten digits.
        num_examples: to fine-tune on.
        num_steps: of fine-tuning, Adam.
        batch: examples a step.
        lrs: of the subspace, the better one is taken for each dimension.
        full_lrs: of full fine-tuning, likewise.
        dims: to look through.
        said_dims: with scales, which are paid out of them.
        widths: hidden widths of the models that are compared.
        width_dims: to look through for those.
        noise: shares of random labels.
        noise_dims: to look through for those.
        shuffles: orders of the dimensions over the levels that the control is the mean of.
        language_model: fine-tune the last layer of a pretrained language model, too, see
            ``thalweg.studies.minilm``: it gives curves, and needs two packages.
        snippets: path of its data, the source distribution of vaderSentiment.
        snippet_examples: to fine-tune it on; half as many are kept for the score.
        snippet_steps: of fine-tuning it.
        snippet_dims: to look through for it.
        snippet_lrs: of its subspace.
    """

    hidden: int = 64
    pretraining: int = 400
    num_examples: int = 300
    num_steps: int = 150
    batch: int = 100
    lrs: tuple[float, ...] = (0.03, 0.2)
    full_lrs: tuple[float, ...] = (0.003, 0.01)
    dims: tuple[int, ...] = (1, 2, 5, 10, 20, 40, 80, 160)
    said_dims: tuple[int, ...] = (5, 10, 20, 40, 80, 160)
    widths: tuple[int, ...] = (16, 64, 512)
    width_dims: tuple[int, ...] = (5, 20, 80, 320)
    noise: tuple[float, ...] = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
    noise_dims: tuple[int, ...] = (5, 20, 80, 320)
    shuffles: int = 200
    language_model: bool = False
    snippets: str = "vaderSentiment-2.5.tar.gz"
    snippet_examples: int = 800
    snippet_steps: int = 150
    snippet_dims: tuple[int, ...] = (200, 1000, 5000)
    snippet_lrs: tuple[float, ...] = (0.1, 0.3, 1.0)


PRESETS = {
    "smoke": Config(
        pretraining=200,
        num_steps=50,
        lrs=(0.2,),
        full_lrs=(0.01,),
        dims=(20, 160),
        said_dims=(20, 160),
        widths=(16, 64),
        width_dims=(20, 160),
        noise=(0.0, 1.0),
        noise_dims=(20, 320),
    ),
    "quick": Config(),
    "full": Config(
        widths=(16, 32, 64, 128, 256, 512),
        width_dims=(1, 2, 5, 10, 20, 40, 80, 160),
        lrs=(0.01, 0.03, 0.1, 0.2, 0.5),
        noise_dims=(5, 10, 20, 40, 80, 160, 320, 640),
    ),
    "paper": Config(
        hidden=512,
        pretraining=4000,
        num_steps=1000,
        widths=(16, 32, 64, 128, 256, 512, 1024),
        dims=(1, 2, 5, 10, 20, 40, 80, 160, 320),
        lrs=(0.01, 0.03, 0.1, 0.2, 0.5),
        noise_dims=(5, 10, 20, 40, 80, 160, 320, 640, 1280),
        language_model=True,
        snippet_examples=6000,
        snippet_steps=1000,
    ),
}


@dataclass(frozen=True)
class _Task:
    """Examples to fine-tune on and to score, with labels 0 and 1."""

    x: Tensor
    y: Tensor
    x_test: Tensor
    y_test: Tensor


def run(config: Config, seed: int) -> Figures:
    """One seed of every claim."""
    # First, since it may find its packages missing.
    snippets = language_model(config, seed) if config.language_model else {}
    data = digits(seed=seed)
    task = _task(data, config, 0.0, seed)
    model = _pretrained(config, data, config.hidden, seed)
    fresh = _pretrained(config, data, config.hidden, seed, steps=0)
    shuffled = _pretrained(config, data, config.hidden, seed, shuffle=True)
    tuned = _dimension(config, task, model, config.dims, seed)
    random = _dimension(config, task, fresh, config.dims, seed)
    control = _dimension(config, task, shuffled, config.dims, seed, stop_when_reached=True)
    full = float(tuned.baseline.mean())
    scaled = _dimension(
        config,
        task,
        model,
        config.said_dims,
        seed,
        said=True,
        baseline=full,
        stop_when_reached=True,
    )
    sizes, by_width, by_width_fresh = [], [], []
    for width in config.widths:
        for steps, into in ((config.pretraining, by_width), (0, by_width_fresh)):
            start = _pretrained(config, data, width, seed, steps=steps)
            # Sparse, since a dense matrix for 300,000 parameters takes most of the time.
            found = _dimension(
                config,
                task,
                start,
                config.width_dims,
                seed,
                projection="sparse",
                stop_when_reached=True,
            )
            into.append(_finite(found.interpolated, found.D))
        sizes.append(found.D)
    needed, gaps = [], []
    for share in config.noise:
        noisy = _task(data, config, share, seed)
        need, gap = _by_training_score(config, noisy, model, seed)
        needed.append(need)
        gaps.append(gap)
    head = sum(p.numel() for p in model[-1].parameters())
    return Figures(
        samples={
            "few_parameters": _finite(tuned.d90, tuned.D),
            "pretraining_lowers": _ratio(random, tuned),
            "larger_needs_less": _slope(sizes, by_width),
            "scales_help": _ratio(scaled, tuned),
            "tracks_gap": _rank_correlation(needed, gaps),
        },
        baselines={
            "few_parameters": head,
            "pretraining_lowers": _finite(random.interpolated, random.D),
            "larger_needs_less": _slope(sizes, by_width_fresh),
            "scales_help": _finite(tuned.interpolated, tuned.D),
            "tracks_gap": _rank_correlation(config.noise, gaps),
        },
        controls={
            "few_parameters": _finite(random.d90, random.D),
            "pretraining_lowers": _ratio(random, control),
            "tracks_gap": _shuffled_correlation(needed, gaps, config.shuffles, seed),
        },
        curves={
            "share of full fine-tuning, pretrained": tuned.curve(),
            "share of full fine-tuning, random weights": random.curve(),
            "share of full fine-tuning, pretrained on shuffled labels": control.curve(),
            "share above chance, pretrained": _above_chance(tuned),
            "share above chance, random weights": _above_chance(random),
            "dimension by size, pretrained": (list(map(float, sizes)), by_width),
            "dimension by size, random weights": (list(map(float, sizes)), by_width_fresh),
            "dimension by share of random labels": (list(config.noise), needed),
            "gap by share of random labels": (list(config.noise), gaps),
            **snippets,
        },
        data_hash=data_hash(data.x, data.y),
    )


def _task(data: Digits, config: Config, share: float, seed: int) -> _Task:
    """Is the digit at least 5? A share of all labels is replaced by coin tosses."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randperm(len(data.y), generator=generator)[: config.num_examples]

    def labels(y: Tensor) -> Tensor:
        tossed = torch.rand(len(y), generator=generator) < share
        return torch.where(tossed, torch.randint(2, (len(y),), generator=generator), y // 5)

    return _Task(data.x[rows], labels(data.y[rows]), data.x_test, labels(data.y_test))


def _pretrained(
    config: Config,
    data: Digits,
    width: int,
    seed: int,
    *,
    steps: int | None = None,
    shuffle: bool = False,
) -> nn.Sequential:
    """Trained on ten digits, with a new head for two classes."""
    torch.manual_seed(seed)
    body = [nn.Linear(64, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU()]
    model, head = nn.Sequential(*body, nn.Linear(width, 10)), nn.Linear(width, 2)
    y = data.y[torch.randperm(len(data.y))] if shuffle else data.y
    steps = config.pretraining if steps is None else steps
    _train(model, data.x, y, 0.003, steps, config.batch, seed)
    model[-1] = head
    return model


def _train(
    model: nn.Module, x: Tensor, y: Tensor, lr: float, steps: int, batch: int, seed: int
) -> None:
    params = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(params, lr)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        rows = torch.randint(len(y), (batch,), generator=generator)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x[rows]), y[rows]).backward()
        optimizer.step()


def _dimension(
    config: Config,
    task: _Task,
    model: nn.Module,
    dims: Sequence[int],
    seed: int,
    by_training: bool = False,
    **options: Any,
) -> IntrinsicDimensionResult:
    def train(model: nn.Module, lr: float) -> None:
        _train(model, task.x, task.y, lr, config.num_steps, config.batch, seed)

    settings = {"projection": "dense", "granularity": "model", "said": False, **options}
    score = _score(task.x, task.y) if by_training else _score(task.x_test, task.y_test)
    return intrinsic_dimension_of_finetuning(
        model, train, score, dims, config.lrs, [seed], full_lrs=config.full_lrs, **settings
    )


def _score(x: Tensor, y: Tensor) -> Callable[[nn.Module], float]:
    @torch.no_grad()
    def score(model: nn.Module) -> float:
        return float((model(x).argmax(1) == y).double().mean())

    return score


def _by_training_score(
    config: Config, task: _Task, model: nn.Sequential, seed: int
) -> tuple[float, float]:
    """Dimension by training score, and the gap that full fine-tuning leaves."""
    score, test = _score(task.x, task.y), _score(task.x_test, task.y_test)
    full: list[tuple[float, float]] = []
    for lr in config.full_lrs:
        tuned = copy.deepcopy(model)
        _train(tuned, task.x, task.y, lr, config.num_steps, config.batch, seed)
        full.append((score(tuned), score(tuned) - test(tuned)))
    reached, gap = max(full)
    found = _dimension(
        config,
        task,
        model,
        config.noise_dims,
        seed,
        by_training=True,
        baseline=reached,
        stop_when_reached=True,
    )
    return _finite(found.interpolated, found.D), gap


def language_model(config: Config, seed: int) -> dict[str, tuple[list[float], list[float]]]:
    """Test accuracies of MiniLM on movie-review snippets, last layer and head, as curves."""
    model, tokenizer = load_minilm()
    texts, labels = movie_snippets(config.snippets)
    count = config.snippet_examples
    torch.manual_seed(seed)
    rows = torch.randperm(len(texts))[: count + count // 2]
    packed = snippet_states(model, tokenizer, [texts[i] for i in rows.tolist()])
    x, y = packed[:count], labels[rows[:count]]
    score = _score(packed[count:], labels[rows[count:]])

    def train(model: nn.Module, lr: float) -> None:
        _train(model, x, y, lr, config.snippet_steps, 32, seed)

    def head_alone() -> float:
        probe = copy.deepcopy(pretrained)
        probe.layer.requires_grad_(False)
        train(probe, 0.01)
        return score(probe)

    pretrained, fresh = SnippetClassifier(model.layers[-1]), SnippetClassifier(Layer())
    dims = list(map(float, config.snippet_dims))
    curves = {"MiniLM, head alone": (dims, [head_alone()] * len(dims))}
    for name, start in (("pretrained", pretrained), ("random last layer", fresh)):
        found = intrinsic_dimension_of_finetuning(
            start,
            train,
            score,
            config.snippet_dims,
            config.snippet_lrs,
            [seed],
            said=False,
            projection="sparse",
            granularity="model",
            full_lrs=(1e-4, 3e-4),
        )
        curves[f"MiniLM, {name}"] = (dims, found.scores[:, 0].tolist())
        curves[f"MiniLM, {name}, full"] = (dims, found.baseline.tolist() * len(dims))
    return curves


def _ratio(a: IntrinsicDimensionResult, b: IntrinsicDimensionResult) -> float:
    return _finite(a.interpolated, a.D) / _finite(b.interpolated, b.D)


def _finite(d: float, D: int) -> float:
    """All parameters where no dimension looked through was enough."""
    return d if math.isfinite(d) else float(D)


def _above_chance(found: IntrinsicDimensionResult) -> tuple[list[float], list[float]]:
    return replace(found, chance=CHANCE).curve()


def _slope(sizes: Sequence[int], dims: Sequence[float]) -> float:
    """Of the logarithm of the dimension on that of the number of parameters."""
    x, y = (torch.tensor(v, dtype=torch.float64).log() for v in (sizes, dims))
    x = x - x.mean()
    return float(x @ y / (x @ x))


def _rank_correlation(a: Sequence[float], b: Sequence[float]) -> float:
    """Spearman's; 0 where one of the two is constant and has no ranks."""
    if len(set(a)) == 1 or len(set(b)) == 1:
        return 0.0
    found: Any = spearmanr(a, b)
    return float(found.statistic)


def _shuffled_correlation(
    needed: Sequence[float], gaps: Sequence[float], shuffles: int, seed: int
) -> float:
    """Mean over orders of the dimensions."""
    generator = torch.Generator().manual_seed(seed)
    dims = torch.tensor(needed, dtype=torch.float64)
    orders = [torch.randperm(len(dims), generator=generator) for _ in range(shuffles)]
    return sum(_rank_correlation(dims[o].tolist(), gaps) for o in orders) / shuffles
