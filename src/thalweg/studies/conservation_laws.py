"""What does gradient flow conserve, and what does symmetry of the data add?

Counts laws of small random networks by Lie brackets, and follows gradient flows in float64 to see
which quantities stay: the span of the first layer on data augmented by permutations, the angle of a
polynomial unit on data augmented by rotations, the span of the rows of lightning attention on
rotation-symmetric data, and none of them under logistic loss.

Source: Galley, Shahverdi, Flinth 2026, arXiv 2606.10913; S. Marcotte, R. Gribonval, G. Peyré 2023,
arXiv 2307.00144.

Cost: paper does 562 × the work of quick (num_relu * largest_width**6), in 1 GB.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from thalweg.laws import (
    Fields,
    augment_fully,
    conservation_laws,
    fields_from_map,
    generic_point,
    path_map,
)
from thalweg.laws.rank import certain_rank
from thalweg.numerics import Group, gradient_flow
from thalweg.studies.figures import Figures, data_hash

__all__ = ["PRESETS", "Config", "run"]

Drifts = dict[str, float]


@dataclass(frozen=True)
class Config:
    """Settings.

    Attributes:
        num_linear: random linear networks that are counted.
        num_relu: random ReLU networks that are counted.
        largest_width: of their layers.
        largest_order: of the rotation groups C_n.
        time: length of the flows of linear networks and attention.
        tokens: of the attention's input; the quadrature has 256 nodes per token.
    """

    num_linear: int = 7
    num_relu: int = 5
    largest_width: int = 3
    largest_order: int = 10
    time: float = 2.0
    tokens: int = 2


PRESETS = {
    "smoke": Config(num_linear=2, num_relu=1, largest_order=4, tokens=1),
    "quick": Config(),
    "full": Config(num_linear=50, num_relu=50, largest_order=16),
    "paper": Config(num_linear=500, num_relu=500, largest_width=4, largest_order=24),
}


def run(config: Config, seed: int) -> Figures:
    """One seed of every claim."""
    generator = torch.Generator().manual_seed(seed)
    wrong, lower_wrong, fields_wrong = _counts(config, generator)
    x = torch.randn(12, 4, generator=generator, dtype=torch.float64)
    y = torch.randn(12, generator=generator, dtype=torch.float64)
    planar = torch.randn(10, 2, generator=generator, dtype=torch.float64)
    planar /= planar.norm(dim=1).max()  # x⁸ of a Gaussian makes the flow stiff
    target = torch.randn(10, generator=generator, dtype=torch.float64)
    linear = {r: _linear(x, y, r, config.time, generator) for r in (1, 2)}
    rule, naive, angles = _sharp_rule(planar, target, config.largest_order, generator)
    logistic = _logistic(x, y, planar, target, config.time, generator)
    span = _lightning(config, generator)
    orders = list(range(1, config.largest_order + 1))
    return Figures(
        samples={
            "counts_known": float(wrong),
            "symmetric_data_adds": max(d["augmented"] for d in linear.values()),
            "sharp_rule": float(rule),
            "logistic_adds_none": logistic["augmented"],
            "lightning_span": span["symmetric"],
        },
        baselines={
            "counts_known": float(lower_wrong),
            "symmetric_data_adds": max(d["own law"] for d in linear.values()),
            "sharp_rule": float(naive),
            "logistic_adds_none": logistic["plain"],
            "lightning_span": span["own law"],
        },
        controls={
            "counts_known": float(fields_wrong),
            "symmetric_data_adds": min(d["plain"] for d in linear.values()),
            "logistic_adds_none": logistic["squared"],
            "lightning_span": span["plain"],
        },
        curves={
            f"drift of the angle, degree {k}, against n of C_n": (orders, drifts)
            for k, drifts in angles.items()
        },
        data_hash=data_hash(x, y, planar, target),
    )


def _counts(config: Config, generator: torch.Generator) -> tuple[int, int, int]:
    """Networks that brackets, polynomials and the bare fields miscount."""
    wrong = lower_wrong = fields_wrong = 0
    families: list[tuple[Fields, int]] = []
    for i in range(config.num_linear):
        widths = _widths(2 + (i % 4 == 3), config.largest_width, generator)
        phi, dim = _product_map(widths)
        families.append((fields_from_map(phi, dim), _linear_laws(widths, generator)))
    for i in range(config.num_relu):
        widths = _widths(2, config.largest_width, generator)
        phi, dim = path_map(widths, bias=i % 2 == 1)
        families.append((fields_from_map(phi, dim), widths[1]))
    for family, laws in families:
        report = conservation_laws(family, generator=generator)
        wrong += report.n_laws != laws
        lower_wrong += report.lower != laws
        fields_wrong += family.dim - report.history[0] != laws
    return wrong, lower_wrong, fields_wrong


def _linear(x: Tensor, y: Tensor, rank: int, time: float, generator: torch.Generator) -> Drifts:
    """Drifts along the flow of f(x) = Σ U_j (x·V_j) on augmented and on plain data."""
    theta = 0.7 * torch.randn(5 * rank, generator=generator, dtype=torch.float64)

    def loss(data: tuple[Tensor, Tensor]) -> Callable[[Tensor], Tensor]:
        def value(t: Tensor) -> Tensor:
            return ((data[0] @ t[rank:].reshape(4, rank) @ t[:rank] - data[1]) ** 2).mean() / 2

        return value

    augmented = gradient_flow(loss(augment_fully((x, y), Group.symmetric(4))), theta, time)
    plain = gradient_flow(loss((x, y)), theta, time)
    balance = [
        torch.outer(t[:rank], t[:rank]) - t[rank:].reshape(4, rank).T @ t[rank:].reshape(4, rank)
        for t in augmented
    ]
    return {
        "augmented": _span_drift([_centred(t[rank:].reshape(4, rank)) for t in augmented]),
        "plain": _span_drift([_centred(t[rank:].reshape(4, rank)) for t in plain]),
        "own law": max(float((b - balance[0]).norm()) for b in balance),
    }


def _sharp_rule(
    x: Tensor, y: Tensor, largest: int, generator: torch.Generator
) -> tuple[int, int, dict[int, list[float]]]:
    """Pairs (k, n) in which the sharp and the naive rule are wrong, and the drifts of the angle."""
    wrong = naive = 0
    drifts: dict[int, list[float]] = {}
    theta = torch.randn(3, generator=generator, dtype=torch.float64)
    for k in (2, 3, 4):
        drifts[k] = []
        for n in range(1, largest + 1):
            data = augment_fully((x, y), Group.cyclic(n, rotation=True))
            moved = _angle_drift(gradient_flow(_power_loss(data, k), theta, 1.0))
            drifts[k].append(moved)
            kept = moved < 1e-9
            wrong += kept != (n > k if n % 2 else n > 2 * k)
            naive += kept != (n > k)
    return wrong, naive, drifts


def _logistic(
    x: Tensor, y: Tensor, planar: Tensor, target: Tensor, time: float, generator: torch.Generator
) -> Drifts:
    """log10 of drifts: logistic loss on augmented and plain data, squared error on augmented."""
    power = torch.randn(3, generator=generator, dtype=torch.float64)
    linear = 0.7 * torch.randn(5, generator=generator, dtype=torch.float64)
    angle_data = {
        "augmented": augment_fully((planar, target.sign()), Group.cyclic(3, rotation=True)),
        "plain": (planar, target.sign()),
    }
    span_data = {
        "augmented": augment_fully((x, y.sign()), Group.symmetric(4)),
        "plain": (x, y.sign()),
    }

    def margin(out: Tensor, sign: Tensor) -> Tensor:
        return torch.nn.functional.softplus(-sign * out).mean()

    def square(out: Tensor, sign: Tensor) -> Tensor:
        return ((out - sign) ** 2).mean() / 2

    def both(kind: str, loss: Callable[[Tensor, Tensor], Tensor]) -> tuple[float, float]:
        (px, py), (lx, ly) = angle_data[kind], span_data[kind]
        angle = _angle_drift(
            gradient_flow(lambda t: loss(t[0] * (px @ t[1:]) ** 2, py), power, 1.0)
        )
        path = gradient_flow(lambda t: loss((lx @ t[1:]) * t[0], ly), linear, time)
        return angle, _span_drift([_centred(t[1:].reshape(4, 1)) for t in path])

    def log(value: float) -> float:
        return math.log10(max(value, 1e-17))

    return {
        "augmented": log(min(both("augmented", margin))),
        "plain": log(min(both("plain", margin))),
        "squared": log(max(both("augmented", square))),
    }


def _lightning(config: Config, generator: torch.Generator) -> Drifts:
    """Drift of the span of (q, k, v) in R⁴ for pooled lightning attention with one row each.

    f(X) = Σ_t Σ_s (q·x_t)(k·x_s)(v·x_s) = ⟨q ⊗ k ⊗ v, ϕ(X)⟩: data enter through C = E[ϕϕᵀ] and
    B = E[yϕ] alone, which are computed once.
    """
    theta = 0.6 * torch.randn(12, generator=generator, dtype=torch.float64)
    nodes, weights = _gauss_hermite(4 * config.tokens)
    plain = torch.randn(40, config.tokens, 4, generator=generator, dtype=torch.float64)
    target = torch.randn(40, generator=generator, dtype=torch.float64)
    features = _cubic(nodes.reshape(-1, config.tokens, 4))
    # Targets that O(4) leaves alone are even in the tokens and the output is odd: B = 0.
    symmetric = (features.T * weights) @ features, torch.zeros(64, dtype=torch.float64)
    features = _cubic(plain)
    unsymmetric = features.T @ features / len(plain), features.T @ target / len(plain)

    def loss(c: Tensor, b: Tensor) -> Callable[[Tensor], Tensor]:
        def value(t: Tensor) -> Tensor:
            q, k, v = t.reshape(3, 4)
            weight = torch.einsum("i,j,k->ijk", q, k, v).reshape(-1)
            return weight @ c @ weight / 2 - weight @ b

        return value

    path = gradient_flow(loss(*symmetric), theta, config.time)
    other = gradient_flow(loss(*unsymmetric), theta, config.time)
    own = path[:, :4].square().sum(1) - path[:, 8:].square().sum(1)
    return {
        "symmetric": _span_drift([t.reshape(3, 4).T for t in path]),
        "plain": _span_drift([t.reshape(3, 4).T for t in other]),
        "own law": float((own - own[0]).abs().max()),
    }


def _cubic(tokens: Tensor) -> Tensor:
    """(N, 64) the features Σ_t Σ_s x_t ⊗ x_s ⊗ x_s of (N, tokens, 4) inputs."""
    pairs = torch.einsum("nsj,nsk->njk", tokens, tokens)
    return torch.einsum("ni,njk->nijk", tokens.sum(1), pairs).reshape(len(tokens), -1)


def _power_loss(data: tuple[Tensor, Tensor], k: int) -> Callable[[Tensor], Tensor]:
    x, y = data
    return lambda t: ((t[0] * (x @ t[1:]) ** k - y) ** 2).mean() / 2


def _angle_drift(path: Tensor) -> float:
    """Largest change of the direction of v, in radians; −v counts as v."""
    v = path[:, 1:] / path[:, 1:].norm(dim=1, keepdim=True)
    cross = v[:, 0] * v[0, 1] - v[:, 1] * v[0, 0]
    return float(cross.abs().max().asin())


def _span_drift(matrices: list[Tensor]) -> float:
    """Largest Frobenius change of the projector on a column space."""
    projectors = [(q := torch.linalg.qr(m)[0]) @ q.T for m in matrices]
    return max(float((p - projectors[0]).norm()) for p in projectors)


def _centred(v: Tensor) -> Tensor:
    return v - v.mean(0)


def _widths(depth: int, largest: int, generator: torch.Generator) -> list[int]:
    """Random widths; with one input and one output a deep network has a single gradient field.

    A single field has D − 1 local laws whatever it is, more than the balances of a deep network.
    """
    while True:
        widths = torch.randint(1, largest + 1, (depth + 1,), generator=generator).tolist()
        if widths[0] * widths[-1] > 1:
            return widths


def _product_map(widths: list[int]) -> tuple[Callable[[Tensor], Tensor], int]:
    """φ of a deep linear network: the product of its matrices."""
    shapes = list(zip(widths[1:], widths[:-1], strict=True))
    sizes = [a * b for a, b in shapes]

    def phi(theta: Tensor) -> Tensor:
        out: Tensor | None = None
        for part, shape in zip(theta.split(sizes), shapes, strict=True):
            out = part.reshape(shape) if out is None else part.reshape(shape) @ out
        assert out is not None
        return out

    return phi, sum(sizes)


def _linear_laws(widths: list[int], generator: torch.Generator) -> int:
    """Independent components of W_{l+1}ᵀW_{l+1} − W_l W_lᵀ, by the rank of their Jacobian."""
    shapes = list(zip(widths[1:], widths[:-1], strict=True))
    sizes = [a * b for a, b in shapes]

    def laws(theta: Tensor) -> Tensor:
        parts = theta.split(sizes)
        w = [p.reshape(s) for p, s in zip(parts, shapes, strict=True)]
        return torch.cat([(b.T @ b - a @ a.T).reshape(-1) for a, b in itertools.pairwise(w)])

    theta = generic_point(sum(sizes), generator=generator)
    jacobian = torch.func.jacrev(laws)(theta)
    assert isinstance(jacobian, Tensor)
    return certain_rank(jacobian, what="independent balance laws").rank


def _gauss_hermite(dim: int) -> tuple[Tensor, Tensor]:
    """Nodes (4^dim, dim) and weights of a standard Gaussian, exact to degree 7 per coordinate."""
    x, w = np.polynomial.hermite_e.hermegauss(4)
    w = w / w.sum()
    grid = torch.from_numpy(x)[torch.cartesian_prod(*[torch.arange(4)] * dim).reshape(-1, dim)]
    weights = torch.from_numpy(w)[torch.cartesian_prod(*[torch.arange(4)] * dim).reshape(-1, dim)]
    return grid, weights.prod(1)
