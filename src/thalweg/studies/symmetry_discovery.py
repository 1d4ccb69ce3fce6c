"""Is equivariance by design exact, and can symmetries be found in what a network has learnt?

A p4 network and a CNN of its size, trained with and without rotations, on turned digits; dimensions
of equivariant maps against character theory; the generators of so(1,3) from a network that learnt
the Minkowski norm; and training on full orbits from equivariant weights.

Sources: T. Cohen, M. Welling 2016, arXiv 1602.07576; N. Gruver et al. 2022, arXiv 2210.02984;
M. Finzi, M. Welling, A. G. Wilson 2021, arXiv 2104.09459; LieSD 2024, arXiv 2410.09841;
M. M. Bronstein et al. 2021, arXiv 2104.13478. Departure: 8 × 8 digits instead of MNIST, and a known
norm instead of collider data. Both networks on digits read out the maximum: with the mean neither
learns in 25 epochs (a third of the turned digits for p4, half for the augmented CNN). The claim
leaves the batch open; the lead of p4 on seed 100, which is not among the evidence, was 0.02, 0.05,
0.07, 0.04, 0.09 for 32, 50 (used here), 64, 100, 125 images a step.

Cost: paper does 800 × the work of quick (norm_steps * norm_points * width), in 1 GB.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from thalweg.data import Digits, digits
from thalweg.laws import EquivarianceMonitor, Group, discover_symmetries, equivariance_error
from thalweg.nn import EquivariantLinear, GroupPool, P4Conv2d, P4LiftConv2d
from thalweg.studies.figures import Figures, data_hash, thin

__all__ = ["PRESETS", "Config", "run"]

Named = dict[str, float]
Series = dict[str, list[float]]
C4 = Group.cyclic(4, rotation=True)


@dataclass(frozen=True)
class Config:
    """Settings.

    Attributes:
        num_train: upright training images.
        epochs: of the three networks on digits.
        batch: images a step.
        lr: of Adam on digits.
        width: hidden units of the network that learns the norm.
        norm_points: training points of that network.
        norm_steps: its full-batch Adam steps.
        norm_lr: its step size at first, falling to 0 by a half cosine.
        flow_steps: SGD steps from symmetrised weights.
        flow_lr: their step size.
        flow_batch: images a step, before augmentation.
    """

    num_train: int = 500
    epochs: int = 25
    batch: int = 50
    lr: float = 3e-3
    width: int = 64
    norm_points: int = 2000
    norm_steps: int = 2000
    norm_lr: float = 3e-3
    flow_steps: int = 200
    flow_lr: float = 0.05
    flow_batch: int = 16


PRESETS = {
    "smoke": Config(epochs=6, norm_points=500, norm_steps=500, flow_steps=10, flow_lr=0.1),
    "quick": Config(),
    "full": Config(num_train=1000, epochs=100, width=256, norm_steps=10_000, flow_steps=2000),
    "paper": Config(num_train=1400, epochs=300, width=512, norm_points=20_000, norm_steps=20_000),
}


def run(config: Config, seed: int) -> Figures:
    """Measure all five."""
    torch.manual_seed(seed)
    data = digits(seed=seed, num_train=config.num_train, flat=False)
    accuracy, error, learnt = _digits(config, data, seed)
    wrong, wrong_trace = _dimensions(seed)
    gap, spectra = _norm(config, seed)
    outside, paths = _flow(config, data, seed)
    steps = range(config.flow_steps + 1)
    rows = {  # claim: figure, baseline, control
        "p4_rotated_accuracy": (
            accuracy["p4"] - accuracy["augmented"], accuracy["augmented"], accuracy["upright"]
        ),
        "p4_exact": (error["p4"], error["upright"], error["augmented"]),
        "nullspace_dimensions": (wrong, wrong_trace),
        "symmetry_gap": (gap["trained"], gap["exact"], gap["untrained"]),
        "flow_preserves": (outside["orbit"], outside["random turn"], outside["upright"]),
    }  # fmt: skip
    return Figures(
        samples={claim: row[0] for claim, row in rows.items()},
        baselines={claim: row[1] for claim, row in rows.items()},
        controls={claim: row[2] for claim, row in rows.items() if len(row) > 2},
        curves={
            "equivariance error, CNN trained with rotations": _curve(range(len(learnt)), learnt),
            **{f"singular values, {k}": _curve(range(1, 17), v) for k, v in spectra.items()},
            **{f"non-equivariant weights, {k}": _curve(steps, v) for k, v in paths.items()},
        },
        data_hash=data_hash(data.x, data.y),
    )  # fmt: skip


def _curve(x: Sequence[float], y: Sequence[float]) -> tuple[list[float], list[float]]:
    return thin(x), thin(y)


def _step(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def turn(i: int, x: Tensor) -> Tensor:
    """Images turned by i quarters."""
    return torch.rot90(x, i, (-2, -1))


def cnn(width: int = 16) -> nn.Sequential:
    """Two 3 × 3 convolutions; 2650 parameters at width 16."""
    return nn.Sequential(
        nn.Conv2d(1, width, 3, padding=1), nn.ReLU(),
        nn.Conv2d(width, width, 3, padding=1), nn.ReLU(),
        nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(width, 10),
    )  # fmt: skip


def p4_net(width: int = 8) -> nn.Sequential:
    """The same with p4 convolutions; 2482 parameters at width 8."""
    return nn.Sequential(
        P4LiftConv2d(1, width, 3, padding=1), nn.ReLU(),
        P4Conv2d(width, width, 3, padding=1), nn.ReLU(),
        GroupPool("max", space=True), nn.Linear(width, 10),
    )  # fmt: skip


def _digits(config: Config, data: Digits, seed: int) -> tuple[Named, Named, list[float]]:
    """Accuracy on turned images, equivariance error, and the latter along the augmented run."""
    generator = torch.Generator().manual_seed(seed)
    turned = _random_turns(data.x_test, generator)
    accuracy, error, learnt = {}, {}, []
    for name, net in (("p4", p4_net()), ("augmented", cnn()), ("upright", cnn())):
        monitor = EquivarianceMonitor(net, data.x_test[:200], C4, turn)
        optimizer = torch.optim.Adam(net.parameters(), config.lr)
        monitor(0)
        for epoch in range(config.epochs):
            for rows in torch.randperm(len(data.y), generator=generator).split(config.batch):
                x = data.x[rows]
                if name == "augmented":
                    x = _random_turns(x, generator)
                loss = functional.cross_entropy(net(x), data.y[rows])
                _step(optimizer, loss)
            if name == "augmented":
                monitor(epoch + 1)
        with torch.no_grad():
            accuracy[name] = (net(turned).argmax(1) == data.y_test).float().mean().item()
        error[name] = equivariance_error(net, data.x_test, C4, turn).item()
        learnt = monitor.errors if name == "augmented" else learnt
    return accuracy, error, learnt


def _random_turns(x: Tensor, generator: torch.Generator) -> Tensor:
    """Every image by a number of quarters of its own."""
    quarters = torch.randint(4, (len(x),), generator=generator)
    return torch.stack([turn(i, x) for i in range(4)])[quarters, torch.arange(len(x))]


def _dimensions(seed: int) -> tuple[float, float]:
    """Dimensions that differ from character theory: of the null space, and of the mean's trace."""
    generator = torch.Generator().manual_seed(seed)
    wrong = wrong_trace = 0.0
    for into, out, whole_in, whole_out, expected in _cases():
        squares = (torch.empty_like(r[0]) for r in (into, out))
        q_in, q_out = (nn.init.orthogonal_(q, generator=generator) for q in squares)
        layer = EquivariantLinear(q_in @ into @ q_in.T, q_out @ out @ q_out.T, bias=False)
        wrong += abs(len(layer.coefficients) - expected)
        # The projector M ↦ mean ρ_out(g) M ρ_in(g)ᵀ has trace mean tr ρ_out(g) tr ρ_in(g).
        in_trace = torch.einsum("gii->g", q_in @ whole_in @ q_in.T)
        out_trace = torch.einsum("gii->g", q_out @ whole_out @ q_out.T)
        wrong_trace += abs(round((in_trace * out_trace).mean().item()) - expected)
    return wrong, wrong_trace


def _cases() -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor, int]]:
    """Generators in and out, the whole group in and out, and the dimension by character theory."""
    for n in (3, 4):
        whole = Group.symmetric(n).elements
        eye = torch.eye(n, dtype=torch.float64)
        few = torch.stack([eye[[1, 0, *range(2, n)]], eye.roll(1, 0)])
        # Burnside: the mean of (number of fixed points)^(k+m) over the permutations.
        fixed = [round(float(g.trace())) for g in whole]
        for k, m in ((1, 1), (2, 0), (2, 1), (2, 2)):
            expected = sum(f ** (k + m) for f in fixed) // math.factorial(n)
            yield _power(few, k), _power(few, m), _power(whole, k), _power(whole, m), expected
    shifts = Group.cyclic(6).elements
    yield shifts[1:2], shifts[1:2], shifts, shifts, 6
    quarter = torch.tensor([[[0.0, -1.0], [1.0, 0.0]]], dtype=torch.float64)  # generates so(2)
    both = torch.cat([quarter, torch.tensor([[[1.0, 0.0], [0.0, -1.0]]], dtype=torch.float64)])
    # Products of two matrix entries have degree 2: five turns average them as all turns do.
    five, ten = Group.cyclic(5, rotation=True).elements, Group.dihedral(5).elements
    yield quarter, quarter, five, five, 2
    yield both, both, ten, ten, 1


def _power(stack: Tensor, order: int) -> Tensor:
    """The action on tensors of some order."""
    result = torch.ones(len(stack), 1, 1, dtype=stack.dtype)
    for _ in range(order):
        result = torch.stack([torch.kron(a, b) for a, b in zip(result, stack, strict=True)])
    return result


def _norm(config: Config, seed: int) -> tuple[Named, Series]:
    """Seventh ÷ sixth singular value, and all, of ∇f⊗x: exact, untrained and trained."""
    generator = torch.Generator().manual_seed(seed)

    def norm(x: Tensor) -> Tensor:
        return 2 * x[:, 0].square() - x.square().sum(1)

    x = torch.randn(config.norm_points, 4, generator=generator)
    wide = config.width
    layers = (nn.Linear(4, wide), nn.Tanh(), nn.Linear(wide, wide), nn.Tanh(), nn.Linear(wide, 1))
    net = nn.Sequential(*layers)
    gaps, spectra = {}, {}

    def look(name: str, f: Callable[[Tensor], Tensor], points: Tensor) -> None:
        values = discover_symmetries(f, points, dim=6).singular_values
        # Zero to round-off is no smaller than round-off: the ratio stays finite.
        sixth = values[5].clamp_min(torch.finfo(values.dtype).eps * values[-1])
        gaps[name], spectra[name] = float(values[6] / sixth), values.tolist()

    look("exact", norm, x.double())
    look("untrained", net, x)
    target = norm(x)
    optimizer = torch.optim.Adam(net.parameters(), config.norm_lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, config.norm_steps)
    for _ in range(config.norm_steps):
        loss = functional.mse_loss(net(x)[:, 0], target)
        _step(optimizer, loss)
        schedule.step()
    look("trained", net, x)
    return gaps, spectra


def _flow(config: Config, data: Digits, seed: int) -> tuple[Named, Series]:
    """Norm of the non-equivariant part of a CNN's weights after training, and along it."""
    start = _symmetrised([p.double() for p in cnn().parameters()])
    x = data.x.double()
    final, paths = {}, {}
    for name in ("orbit", "random turn", "upright"):
        generator = torch.Generator().manual_seed(seed)
        net = cnn().double()
        with torch.no_grad():
            for p, s in zip(net.parameters(), start, strict=True):
                p.copy_(s)
        optimizer = torch.optim.SGD(net.parameters(), config.flow_lr)
        path = [_outside(list(net.parameters()))]
        for _ in range(config.flow_steps):
            rows = torch.randint(len(x), (config.flow_batch,), generator=generator)
            images, labels = x[rows], data.y[rows]
            if name == "orbit":
                images, labels = torch.cat([turn(i, images) for i in range(4)]), labels.repeat(4)
            elif name == "random turn":
                images = _random_turns(images, generator)
            loss = functional.cross_entropy(net(images), labels)
            _step(optimizer, loss)
            path.append(_outside(list(net.parameters())))
        final[name], paths[name] = path[-1], path
    return final, paths


def _symmetrised(params: Sequence[Tensor]) -> list[Tensor]:
    """The weights of a ``cnn`` averaged over quarter turns.

    A turn acts on filters in space, and on hidden channels by moving them on within groups of four:
    the orientations of one p4 channel. The network of the turned weights sees the turned image.
    """

    def moved(w: Tensor, axis: int, i: int) -> Tensor:
        return w.unflatten(axis, (-1, 4)).roll(i, axis + 1).flatten(axis, axis + 1)

    first, first_bias, second, second_bias, head, head_bias = (p.detach() for p in params)
    turns = [
        (
            moved(turn(i, first), 0, i), moved(first_bias, 0, i),
            moved(moved(turn(i, second), 0, i), 1, i), moved(second_bias, 0, i),
            moved(head, 1, i), head_bias,
        )
        for i in range(4)
    ]  # fmt: skip
    return [torch.stack(parts).mean(0) for parts in zip(*turns, strict=True)]


def _outside(params: Sequence[Tensor]) -> float:
    """Norm of the part of the weights that is not equivariant."""
    parts = zip(params, _symmetrised(params), strict=True)
    return math.sqrt(sum(float((p.detach() - s).square().sum()) for p, s in parts))
