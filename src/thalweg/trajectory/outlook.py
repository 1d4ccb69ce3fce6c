"""Where is a training going: how many dimensions it runs in, what its start tells, how far ahead.

Three questions to one matrix of inner products, so that snapshots of the weights, whole or
sketched, answer them alike. Each answer stands beside that of a random walk seen at the same steps.

- Dimensions: principal components of the path (``trajectory_pca``).
- The prefix: which share of ‖θ_T − θ_0‖² lies in the span of the first m changes. Of a random walk
  it is t_m/t_T, since later steps are orthogonal to earlier ones.
- The horizon: how well a line through the first part predicts the last point (``foresight``).

Source: the prefix basis is I. Piontkovskaia, S. Nikolenko 2026, arXiv 2606.10929; the line is Wei
et al. 2026, arXiv 2605.21468. Axes: `T` points after the first.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from thalweg.trajectory.foresight import RELIABLE, Foresight, foresight_of
from thalweg.trajectory.inner_products import InnerProducts, inner_products
from thalweg.trajectory.pca import PCAResult, components_of
from thalweg.trajectory.random_walk import walk_gram

__all__ = ["Outlook", "PrefixCapture", "captured_by_prefix", "outlook"]

RATIOS = (1.25, 1.5, 2.0, 3.0, 5.0, 8.0, 12.0)  # horizons that are tried
POINTS = 400  # of sketches: enough for the figures, and quick to decompose


@dataclass(frozen=True)
class PrefixCapture:
    """What the first changes tell of the last.

    Attributes:
        step: up to which they go.
        share: of the squared length of the last change that lies in their span.
        walk: the same of a random walk.
    """

    step: int
    share: float
    walk: float


@dataclass(frozen=True)
class Outlook:
    """Where a training is going.

    Attributes:
        components: of the path.
        prefixes: what its beginnings tell, longer and longer.
        horizons: predictions of the last point, from shorter and shorter parts.
        reach: the largest horizon at which such a prediction was worth making, as times the
            observed length; 1 if none was.
        known_from: ``weights`` or ``sketches``.
        error: relative, of the inner products.
    """

    components: PCAResult
    prefixes: tuple[PrefixCapture, ...]
    horizons: tuple[Foresight, ...]
    reach: float
    known_from: str
    error: float

    @property
    def structured(self) -> bool:
        """Whether the path has fewer dimensions than a random walk would show."""
        return 0 < self.components.r(0.9) < self.components.null_r(0.9)


def outlook(
    source: Any,
    *,
    sketched: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Outlook:
    """Dimensions, prefix and horizon of a path.

    Args:
        source: a run, a ``DeltaStore`` or what one takes, or a (T, P) matrix of changes.
        sketched: of a run: its sketches, of which it has more than snapshots.
        progress: as for ``DeltaStore.gram``.

    Raises:
        ValueError: with fewer than four points after the first, or values that are not finite.

    Example:
        >>> import torch
        >>> line = [{"w": torch.tensor([1.0, 2.0]) * t} for t in range(20)]
        >>> found = outlook(line)
        >>> found.components.r(), round(found.prefixes[0].share, 6), found.reach > 5
        (1, 1.0, True)
    """
    found = inner_products(source, sketched=sketched, progress=progress)
    if len(found.steps) < 4:
        raise ValueError(
            f"outlook: expected at least 4 points after the first, got {len(found.steps)}; train "
            "longer, or keep more checkpoints"
        )
    if found.known_from == "sketches":
        found = _thinned(found)
    horizons = dict[int, Foresight]()
    last, base = found.steps[-1], found.base_step
    for ratio in RATIOS:
        report = foresight_of(
            {"": found.gram}, found.steps, base + ratio * (last - base), base_step=base
        )
        if report.horizon >= ratio:
            horizons.setdefault(report.seen, report)
    good = [h.horizon for h in horizons.values() if h.error <= RELIABLE and h.explained > h.walk]
    return Outlook(
        components_of(found),
        captured_by_prefix(found),
        tuple(horizons.values()),
        max(good, default=1.0),
        found.known_from,
        found.error,
    )


def captured_by_prefix(found: InnerProducts) -> tuple[PrefixCapture, ...]:
    """Share of the last change in the span of the first m changes, m growing by halves.

    Args:
        found: inner products of at least two points.
    """
    G, walk = found.gram, walk_gram(found.steps, base_step=found.base_step)
    total, out, m = len(found.steps), [], 1
    while m < total:
        share, of_walk = (_share(matrix, m) for matrix in (G, walk))
        out.append(PrefixCapture(found.steps[m - 1], share, of_walk))
        m = max(m + 1, m * 3 // 2)
    return tuple(out)


def _share(G: torch.Tensor, m: int) -> float:
    """‖projection of the last row on the first m rows‖² over its own, of a Gram matrix."""
    if not float(G[-1, -1]) > 0:
        return 0.0
    values, vectors = torch.linalg.eigh(G[:m, :m])
    kept = values > 1e-10 * values[-1].clamp(min=torch.finfo(values.dtype).tiny)
    along = vectors[:, kept].T @ G[:m, -1]
    share = float((along.square() / values[kept]).sum() / G[-1, -1])
    return min(share, 1.0)


def _thinned(found: InnerProducts) -> InnerProducts:
    """At most ``POINTS`` points, evenly spaced in time, the last one kept."""
    steps = torch.tensor(found.steps)
    if len(steps) <= POINTS:
        return found
    wanted = torch.linspace(float(steps[0]), float(steps[-1]), POINTS)
    at = torch.searchsorted(steps.double(), wanted.double()).clamp(max=len(steps) - 1).unique()
    return InnerProducts(
        tuple(steps[at].tolist()),
        found.gram[at][:, at],
        found.dim,
        found.known_from,
        found.error,
        found.base_step,
    )
