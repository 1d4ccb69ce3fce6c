"""Does AdamO keep a network able to learn where Adam loses it, and by which strength?

A ReLU network learns random labels of handwritten digits, anew in every task. All learners start
from the same weights and see the same batches, side by side in one stack of networks: Adam, AdamW,
the penalty towards the initial weights, the isometry penalty inside the loss, and AdamO, each over
strengths. Controls: Adam, and weight decay on dead units without a task gradient.

Source: A. Rosseau, R. Müller, A. Nowé 2026, arXiv 2606.09762; the task is of our making.

Cost: paper does 507 × the work of quick (num_tasks * epochs * images / batch * (1e6 + batch * width
* (64 + 2 * width))), in 1 GB.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor, nn

from thalweg.data import digits
from thalweg.instruments import dormant_fraction, entk_rank
from thalweg.losses.isometry import gram_deviation
from thalweg.optim import AdamO
from thalweg.studies.figures import Figures, data_hash

__all__ = ["PRESETS", "Config", "Crowd", "Learner", "revived", "run"]

CLAIMED = 1e-2  # the strength that the claims name


@dataclass(frozen=True)
class Config:
    """Settings.

    Attributes:
        num_tasks: each with new images and labels.
        images: of a task.
        epochs: of a task.
        batch: images a step.
        width: of the three hidden layers.
        lr: of all learners but those of ``adam_lrs``.
        adam_lrs: Adam's other learning rates.
        decays: weight decays of AdamW.
        towards_init: strengths of the penalty towards the initial weights.
        isometries: strengths λ of AdamO, with the claimed one.
        coupled: strengths of the isometry penalty in Adam's loss.
        shrink: factor of the old weights at a change of task, the rest being fresh ones.
        last: tasks at the end that the accuracy is the mean of.
        revival_steps: without a task gradient, for dead units.
    """

    num_tasks: int = 25
    images: int = 256
    epochs: int = 30
    batch: int = 32
    width: int = 64
    lr: float = 3e-3
    adam_lrs: tuple[float, ...] = (1e-4, 3e-4, 1e-3)
    decays: tuple[float, ...] = (0.03, 0.1, 0.3, 1.0)
    towards_init: tuple[float, ...] = (3e-4, 1e-3, 3e-3, 1e-2)
    isometries: tuple[float, ...] = (1e-3, CLAIMED, 1e-1)
    coupled: tuple[float, ...] = (1e-5, 1e-4, 1e-3, 1e-2)
    shrink: float = 0.5
    last: int = 5
    revival_steps: int = 3000


PRESETS = {
    "smoke": Config(
        num_tasks=2,
        epochs=6,
        adam_lrs=(),
        decays=(0.1,),
        towards_init=(1e-3,),
        isometries=(CLAIMED,),
        coupled=(1e-4,),
        last=1,
        revival_steps=400,
    ),
    "quick": Config(),
    "full": Config(num_tasks=60),
    "paper": Config(num_tasks=200, width=512, images=1200, lr=1e-3),
}


@dataclass(frozen=True)
class Learner:
    """One way to train.

    Attributes:
        name: what it is called in the curves.
        lr: learning rate.
        decay: decoupled weight decay.
        isometry: λ of AdamO; None for Adam.
        coupled: strength of the isometry penalty in the loss.
        towards_init: strength of the penalty towards the initial weights.
        shrink: factor of the weights at a change of task.
    """

    name: str
    lr: float
    decay: float = 0.0
    isometry: float | None = None
    coupled: float = 0.0
    towards_init: float = 0.0
    shrink: float = 1.0


def learners(config: Config) -> list[Learner]:
    """Those compared; the ones that take the same step stand together."""
    lr = config.lr
    return [
        Learner("Adam", lr),
        *(Learner("AdamW", lr, decay=s) for s in config.decays),
        *(Learner("towards init", lr, towards_init=s) for s in config.towards_init),
        *(Learner("penalty in the loss", lr, coupled=s) for s in config.coupled),
        Learner("shrink and perturb", lr, shrink=config.shrink),
        *(Learner("Adam", other) for other in config.adam_lrs),
        *(Learner("AdamO", lr, isometry=s) for s in config.isometries),
    ]


class Crowd:
    """Networks of one shape side by side: their weights are slices of stacks, (K, out, in).

    Args:
        members: who trains each.
        sizes: of the layers, inputs first.
        seed: of the initial weights, orthogonal, the same for all; biases are zero.
    """

    def __init__(self, members: Sequence[Learner], sizes: Sequence[int], seed: int) -> None:
        self.members, self.sizes = list(members), list(sizes)
        self.generator = torch.Generator().manual_seed(seed)
        self.init = self._drawn()
        self.stacks = [p.expand(len(members), *p.shape).clone() for p in self.init]
        for stack in self.stacks:
            stack.requires_grad_().grad = torch.zeros_like(stack)
        self.optimizers = self._optimizers()
        self.decay = torch.tensor([1 - m.lr * m.decay for m in self.members])
        self.anchored, self.anchors = self._given([m.towards_init for m in self.members])
        self.coupled, self.couplings = self._given([m.coupled for m in self.members])

    @staticmethod
    def _given(strengths: list[float]) -> tuple[slice, Tensor]:
        """The neighbours whose strength is not zero, and their strengths."""
        some = [k for k, s in enumerate(strengths) if s]
        found = slice(min(some, default=0), max(some, default=-1) + 1)
        return found, torch.tensor(strengths)[found]

    def _drawn(self) -> list[Tensor]:
        """Weight and bias of each layer."""
        drawn = []
        for fan_in, out in zip(self.sizes, self.sizes[1:], strict=False):
            weight = nn.init.orthogonal_(torch.empty(out, fan_in), generator=self.generator)
            drawn += [weight, torch.zeros(out)]
        return drawn

    def parts(self, members: slice | int) -> list[Tensor]:
        """Parameters of some members, views with gradients that are views, too."""
        parts = []
        for stack in self.stacks:
            assert stack.grad is not None
            part = nn.Parameter(stack.detach()[members])
            part.grad = stack.grad[members]
            parts.append(part)
        return parts

    def _optimizers(self) -> list[torch.optim.Optimizer]:
        """Adam is elementwise, so that neighbours with equal settings are one tensor to it."""
        adam, adamo, start = [], [], 0
        for (lr, isometry), some in groupby(self.members, lambda m: (m.lr, m.isometry)):
            stop = start + len(list(some))
            if isometry is None:
                adam.append({"params": self.parts(slice(start, stop)), "lr": lr})
            for k in range(start, stop) if isometry is not None else ():
                adamo.append({"params": self.parts(k), "lr": lr, "isometry": isometry})
            start = stop
        return [torch.optim.Adam(adam, foreach=True), AdamO(adamo)]

    def activations(self, x: Tensor) -> list[Tensor]:
        """Outputs of every layer after its ReLU, the logits last, each (K, B, units)."""
        h, out = x.expand(len(self.members), *x.shape), []
        for weight, bias in zip(self.stacks[::2], self.stacks[1::2], strict=True):
            if out:
                h = out[-1] = out[-1].relu()
            out.append(torch.baddbmm(bias.unsqueeze(1), h, weight.mT))
        return out

    def step(self, x: Tensor, y: Tensor) -> None:
        """One minibatch step of everyone."""
        for stack in self.stacks:
            assert stack.grad is not None
            stack.grad.zero_()
        logits = self.activations(x)[-1]
        labels = y.expand(len(self.members), -1)
        mean = nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten())
        (len(self.members) * mean + self._penalties()).backward()
        with torch.no_grad():  # as AdamW, before the step
            for stack in self.stacks:
                stack.mul_(self._each(self.decay, stack))
        for optimizer in self.optimizers:
            optimizer.step()

    def _penalties(self) -> Tensor:
        """Those that are in the loss."""
        total = torch.zeros(())
        for stack, start in zip(self.stacks, self.init, strict=True):
            off = (stack[self.anchored] - start).flatten(1)
            total = total + self.anchors @ off.square().sum(1)
            if start.ndim == 2:
                off = gram_deviation(stack[self.coupled]).flatten(1)
                total = total + self.couplings @ off.square().sum(1)
        return total

    @staticmethod
    def _each(values: Tensor, stack: Tensor) -> Tensor:
        return values.view(-1, *[1] * (stack.ndim - 1))

    @torch.no_grad()
    def new_task(self) -> None:
        """Shrinks and perturbs the weights of those who do."""
        fresh = self._drawn()
        for k, member in enumerate(self.members):
            if member.shrink < 1:
                for stack, new in zip(self.stacks, fresh, strict=True):
                    stack[k].mul_(member.shrink).add_(new, alpha=1 - member.shrink)

    @torch.no_grad()
    def accuracy(self, x: Tensor, y: Tensor) -> Tensor:
        """(K,) share of labels that each has right."""
        return (self.activations(x)[-1].argmax(-1) == y).float().mean(1)

    @torch.no_grad()
    def dormant(self, x: Tensor) -> list[float]:
        """Share of each one's hidden units that are zero on all inputs, mean over layers."""
        hidden = self.activations(x)[:-1]
        return [
            float(torch.stack([dormant_fraction(layer[k]) for layer in hidden]).mean())
            for k in range(len(self.members))
        ]

    def network(self, k: int) -> nn.Sequential:
        """One of them as a module."""
        pairs = list(zip(self.sizes, self.sizes[1:], strict=False))
        layers = [m for a, b in pairs for m in (nn.Linear(a, b), nn.ReLU())][:-1]
        model = nn.Sequential(*layers)
        with torch.no_grad():
            for p, stack in zip(model.parameters(), self.stacks, strict=True):
                p.copy_(stack[k])
        return model


def run(config: Config, seed: int) -> Figures:
    """One seed of every claim."""
    data = digits(seed=seed)
    width = config.width
    crowd = Crowd(learners(config), (64, width, width, width, 10), seed)
    generator = torch.Generator().manual_seed(1000 + seed)
    rows, accuracies = torch.zeros(0), []
    for task in range(config.num_tasks):
        if task:
            crowd.new_task()
        rows = torch.randperm(len(data.x), generator=generator)[: config.images]
        x, y = data.x[rows], torch.randint(10, (config.images,), generator=generator)
        for _ in range(config.epochs):
            for batch in torch.randperm(config.images, generator=generator).split(config.batch):
                crowd.step(x[batch], y[batch])
        accuracies.append(crowd.accuracy(x, y))
    by_task = torch.stack(accuracies, 1)  # (K, tasks)
    final = by_task[:, -config.last :].mean(1).tolist()
    x = data.x[rows]
    dormant = crowd.dormant(x)
    ranks = [entk_rank(crowd.network(k), x[:30]).value for k in range(len(crowd.members))]

    members = crowd.members
    adam = 0
    adamo = next(k for k, m in enumerate(members) if m.isometry == CLAIMED)
    kinds = {m.name: [k for k, n in enumerate(members) if n.name == m.name] for m in members}
    best = {name: max(ks, key=final.__getitem__) for name, ks in kinds.items()}
    shown = {**{f"{name}, best": k for name, k in best.items()}, "Adam": adam, "AdamO": adamo}
    tasks = list(map(float, range(1, config.num_tasks + 1)))
    curves = {f"accuracy by task: {n}": (tasks, by_task[k].tolist()) for n, k in shown.items()}
    strengths = {
        "Adam": ("learning rate", lambda m: m.lr),
        "AdamW": ("weight decay", lambda m: m.decay),
        "towards init": ("strength", lambda m: m.towards_init),
        "penalty in the loss": ("strength", lambda m: m.coupled),
        "AdamO": ("strength", lambda m: m.isometry),
    }
    for name, (axis, strength) in strengths.items():
        ks = sorted(kinds[name], key=lambda k: strength(members[k]))
        xs = [float(strength(members[k])) for k in ks]
        curves[f"accuracy against {axis}: {name}"] = xs, [final[k] for k in ks]
        curves[f"effective rank of the kernel against {axis}: {name}"] = xs, [ranks[k] for k in ks]
    revival = {name: revived(name, config.revival_steps, seed) for name in ("AdamO", "AdamW")}
    steps = list(map(float, range(0, config.revival_steps + 1, 100)))
    for name, shares in revival.items():
        curves[f"share of dead units revived by step: {name}"] = steps, shares
    init = best["towards init"]
    return Figures(
        samples={
            "keeps_plasticity": final[adamo],
            "matches_l2_init": final[adamo] - final[init],
            "kernel_rank_kept": ranks[adamo] - 5 * ranks[adam],
            "units_stay_alive": dormant[adamo],
            "revives_dead_units": revival["AdamO"][-1],
        },
        baselines={
            "keeps_plasticity": final[best["AdamW"]],
            "matches_l2_init": final[init],
            "kernel_rank_kept": ranks[adam],
            "units_stay_alive": dormant[init],
            "revives_dead_units": revived("Adam", config.revival_steps, seed)[-1],
        },
        controls={
            "keeps_plasticity": final[adam],
            "units_stay_alive": dormant[adam],
            "revives_dead_units": revival["AdamW"][-1],
        },
        curves=curves,
        data_hash=data_hash(data.x, data.y),
    )


def revived(name: str, num_steps: int, seed: int) -> list[float]:
    """Share of dead ReLU units that answer some input again, every 100 steps, the start first.

    The task gradient is zero throughout. Half of the rows are negative and nearly collinear, so
    that on inputs that are never negative their units are dead; the others are orthonormal.

    Args:
        name: ``AdamO``, ``AdamW`` for weight decay 0.1, or ``Adam``.
        num_steps: of the optimizer.
        seed: of weights and inputs.
    """
    generator = torch.Generator().manual_seed(seed)
    weight = nn.Parameter(nn.init.orthogonal_(torch.empty(64, 64), generator=generator))
    with torch.no_grad():
        weight[:32] = -torch.randn(32, 64, generator=generator).abs() / 8
    x = torch.randn(512, 64, generator=generator).relu()
    kinds = {
        "AdamO": lambda: AdamO([weight], 0.03, isometry=0.01),
        "AdamW": lambda: torch.optim.AdamW([weight], 0.03, weight_decay=0.1),
        "Adam": lambda: torch.optim.Adam([weight], 0.03),
    }
    optimizer = kinds[name]()
    weight.grad = torch.zeros_like(weight)
    shares = []
    for step in range(num_steps + 1):
        if step % 100 == 0:
            with torch.no_grad():
                shares.append(float((x @ weight[:32].T > 0).any(0).float().mean()))
        optimizer.step()
    return shares
