"""Do wide CNNs learn local targets faster, and is the exponent the predicted one?

Gaussian targets that depend on one, two or all patches of the input are learnt by kernel regression
with the tangent kernel of a hierarchical CNN and with that of a fully connected network. Beside the
learning curves: the spectrum on one circle, and the empirical tangent kernel of finite networks.

Source: F. Cagnetta, A. Favero, M. Wyart 2022, arXiv 2208.01003.

Cost: paper does 512 × the work of quick (max(sizes) ** 3), in 12 GB.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from thalweg.nn import HierarchicalCNN
from thalweg.numerics import curve_from_gram, entk_gram, sample_gaussian_field
from thalweg.studies.figures import Figures, data_hash, thin
from thalweg.theory import (
    HierarchicalKernel,
    LearningCurve,
    curve_exponent,
    fc_kernel,
    learning_curve,
    multisphere,
    patch_dimension,
)

__all__ = ["PRESETS", "Config", "run"]

#: Filters of the student, of the teachers on 1, 2 and 4 patches, and the dimension of the input.
STUDENT = (2, 2, 2)
TEACHERS = ((2,), (2, 2), (2, 2, 2))
DIM = 8

Kernel = Callable[..., Tensor]
Kind = Literal["ntk", "nngp"]


@dataclass(frozen=True)
class Config:
    """Settings.

    Attributes:
        sizes: of the training sets.
        fit_from: smallest size in the fit of exponents.
        num_test: test points.
        num_inputs: draws of inputs.
        n_draws: targets for each.
        num_spectrum: points from whose kernel learning curves are told.
        grid: points on the circle for its spectrum.
        width: of the finite networks.
        narrow: width of the baseline.
        num_nets: initialisations that are averaged.
    """

    sizes: tuple[int, ...] = (64, 128, 256, 512, 1024)
    fit_from: int = 128
    num_test: int = 512
    num_inputs: int = 2
    n_draws: int = 4
    num_spectrum: int = 2048
    grid: int = 4096
    width: int = 400
    narrow: int = 50
    num_nets: int = 6


PRESETS = {
    "smoke": Config(
        sizes=(32, 64, 128, 256),
        fit_from=64,
        num_test=200,
        num_inputs=1,
        num_spectrum=400,
        num_nets=2,
    ),
    "quick": Config(),
    "full": Config(sizes=(64, 128, 256, 512, 1024, 2048, 4096), num_inputs=4, num_spectrum=6000),
    "paper": Config(
        sizes=(64, 128, 256, 512, 1024, 2048, 4096, 8192), num_test=8192, num_spectrum=12_000
    ),
}


def run(config: Config, seed: int) -> Figures:
    """Learning curves, the circle's spectrum, and finite networks."""
    cnn = [_curve(config, seed, HierarchicalKernel(STUDENT), t) for t in TEACHERS]
    dense = [_curve(config, seed, _dense, t) for t in TEACHERS[:2]]
    slopes, dense_slopes = ([c.slope for c in curves] for curves in (cnn, dense))
    top = patch_dimension(STUDENT, len(STUDENT))
    predicted = [curve_exponent(patch_dimension(t, len(t)), top) for t in TEACHERS]
    whole = [1 / top] * len(TEACHERS)

    ntk, nngp = _spectrum(config, "ntk"), _spectrum(config, "nngp")
    x = multisphere(4, DIM, 2, generator=torch.Generator().manual_seed(seed))
    limit = HierarchicalKernel((2, 2))(x)
    wide, narrow = (_empirical(x, w, config, seed) for w in (config.width, config.narrow))
    features = HierarchicalKernel((2, 2), "nngp")(x)

    curves = {}
    for filters, measured in zip(TEACHERS, cnn, strict=True):
        patches = f"target on {math.prod(filters) // 2} of 4 patches"
        n = measured.n.tolist()
        curves[f"{patches}, convolutional"] = (n, measured.error.tolist())
        curves[f"{patches}, convolutional (theory)"] = (n, _told(config, seed, filters, n))
    for filters, measured in zip(TEACHERS, dense, strict=False):
        patches = f"target on {math.prod(filters) // 2} of 4 patches"
        curves[f"{patches}, fully connected"] = (measured.n.tolist(), measured.error.tolist())
    degrees = thin(range(8, 201, 2))
    curves["tangent kernel on a circle, even degrees"] = (degrees, thin(ntk[8:201:2]))
    curves["random-feature kernel on a circle, even degrees"] = (degrees, thin(nngp[8:201:2]))
    for name, power in (("tangent", -2), ("random-feature", -4)):
        title = f"{name} kernel on a circle, even degrees"
        law = [curves[title][1][0] * (k / degrees[0]) ** power for k in degrees]
        curves[f"{title} (theory)"] = (degrees, law)

    ratios = [a / b for a, b in zip(slopes, dense_slopes, strict=False)]
    return Figures(
        samples={
            "exponents_ordered": min(slopes[0] - slopes[1], slopes[1] - slopes[2]),
            "exponents_predicted": _farthest(slopes, predicted),
            "cnn_adapts": min(ratios),
            "spectrum_exponent": _slope(ntk),
            "finite_nets_match": _distance(wide, limit),
        },
        baselines={
            "exponents_ordered": dense_slopes[0] - dense_slopes[1],
            "exponents_predicted": _farthest(slopes, whole),
            "cnn_adapts": max(dense_slopes),
            "spectrum_exponent": -2.0,  # −2ν − d with ν = 1/2, d = 1
            "finite_nets_match": _distance(narrow, limit),
        },
        controls={
            "exponents_predicted": _farthest(slopes, predicted[::-1]),
            "spectrum_exponent": _slope(nngp),
            "finite_nets_match": _distance(wide, features),
        },
        curves=curves,
        data_hash=data_hash(x, *(c.error for c in cnn)),
    )


def _teacher(x: Tensor, filters: tuple[int, ...]) -> Tensor:
    """Kernel of targets that depend on the first patches only."""
    return HierarchicalKernel(filters)(x[:, : math.prod(filters)])


def _dense(x: Tensor, y: Tensor | None = None) -> Tensor:
    return fc_kernel(x, y, normalize=True)


def _inputs(n: int, generator: torch.Generator) -> Tensor:
    return multisphere(n, DIM, 2, generator=generator)


def _curve(config: Config, seed: int, student: Kernel, filters: tuple[int, ...]) -> LearningCurve:
    """The same inputs for every student and teacher of a seed."""
    return learning_curve(
        student,
        lambda x: _teacher(x, filters),
        config.sizes,
        inputs=_inputs,
        num_test=config.num_test,
        n_draws=config.n_draws,
        num_inputs=config.num_inputs,
        fit_from=config.fit_from,
        generator=torch.Generator().manual_seed(seed),
    )


def _told(config: Config, seed: int, filters: tuple[int, ...], n: list[float]) -> list[float]:
    """The learning curve that mean-field theory tells from the spectrum, on other inputs."""
    generator = torch.Generator().manual_seed(seed + 1_000)
    x = _inputs(config.num_spectrum, generator)
    y = sample_gaussian_field(_teacher(x, filters), config.n_draws, generator)
    return curve_from_gram(HierarchicalKernel(STUDENT)(x), y, torch.tensor(n)).tolist()


def _spectrum(config: Config, kind: Kind) -> Tensor:
    """Eigenvalues of the one-layer kernel on a circle by degree: its Fourier coefficients."""
    angle = torch.arange(config.grid, dtype=torch.float64) * (2 * math.pi / config.grid)
    points = torch.stack([angle.cos(), angle.sin()], 1)
    row = HierarchicalKernel((2,), kind)(points[:1], points)[0]
    return torch.fft.rfft(row).real / config.grid


def _slope(spectrum: Tensor) -> float:
    """Log–log slope over even degrees 8 to 200."""
    x = torch.arange(8, 201, 2).double().log()
    x, y = x - x.mean(), spectrum[8:201:2].log()
    return ((x * y).sum() / x.square().sum()).item()


def _empirical(x: Tensor, width: int, config: Config, seed: int) -> Tensor:
    """Mean empirical tangent kernel of finite networks."""
    generator = torch.Generator().manual_seed(seed)
    nets = (
        HierarchicalCNN((2, 2), width, DIM, generator=generator, dtype=torch.float64)
        for _ in range(config.num_nets)
    )
    return torch.stack([entk_gram(net, x) for net in nets]).mean(0)


def _distance(a: Tensor, b: Tensor) -> float:
    return (torch.linalg.norm(a - b) / torch.linalg.norm(b)).item()


def _farthest(a: list[float], b: list[float]) -> float:
    return max(abs(p - q) for p, q in zip(a, b, strict=True))
