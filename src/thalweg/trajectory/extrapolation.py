"""RELEX: one direction and one straight line per tensor, and where the line will be later.

For each tensor M holds the changes θ_t − θ_0 in rows, not centred. With M Mᵀ u_k = σ_k² u_k, the
directions v_k = Mᵀu_k/σ_k carry the coefficients C = M V_r = U_r diag(σ); each column of C is
fitted over time and read off at the target. As v_k is a mixture of rows, so is the prediction,

    θ̂_τ = θ_0 + Σ_t w_t(τ) (θ_t − θ_0),   w(τ) = Σ_k c_k(τ) u_k / σ_k,

and everything but the last step, writing it, happens in T × T numbers. A line through every
coordinate is such a mixture too (r = T), as are the last checkpoint and its change scaled with
time: what RELEX has to beat comes for free.

Source: Z. Wei, S. Zhu, Y. Chen, C. Huang, T. Huang, Y. Meng 2026, arXiv 2605.21468. Time is the
true step number; for unit spacing this is the source's row index. Axes: `T` checkpoints, `r`
directions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from thalweg.trajectory.course import Course, Fit, directions, r_squared
from thalweg.trajectory.delta_store import DeltaStore
from thalweg.trajectory.random_walk import WalkNull, line_through_walk

__all__ = ["TrajectoryModel", "fit_rank1", "reconstruct"]


@dataclass(frozen=True)
class TrajectoryModel:
    """A fitted path.

    Attributes:
        store: the checkpoints.
        steps: those that were fitted, ascending.
        course: how they are carried on.
        coefficients: name → C, (T, r); the sign of a column is arbitrary.
        explained_variance: name → Σ_{k≤r} σ_k² / Σ σ_k²; 0 for a tensor that never moved.
        r2: name → R² of the fit of the first coefficient; nan for a tensor that never moved.
        grams: name → (T, T), inner products of the fitted changes.
        clock: step → time.
    """

    store: DeltaStore
    steps: tuple[int, ...]
    course: Course
    coefficients: Mapping[str, Tensor]
    explained_variance: Mapping[str, float]
    r2: Mapping[str, float]
    grams: Mapping[str, Tensor]
    clock: Callable[[float], float]

    @property
    def times(self) -> Tensor:
        """Of the fitted steps, (T,) float64."""
        return torch.tensor([self.clock(t) for t in self.steps], dtype=torch.float64)

    def weights(self, step: float, *, scale: float = 1.0) -> dict[str, Tensor]:
        """The prediction as a mixture of the fitted changes, name → w (T,) float64."""
        times, target = self.times, float(self.clock(step))
        return {n: scale * self.course.weights(G, times, target) for n, G in self.grams.items()}

    def predict(
        self, step: float, *, scale: float = 1.0, out_dtype: torch.dtype | None = None
    ) -> dict[str, Tensor]:
        """The checkpoint at a step.

        Args:
            step: τ.
            scale: λ, of the whole displacement: θ_0 + λ Δ̂.
            out_dtype: of floating tensors; default: as stored.

        Returns:
            Name → tensor, tied ones and copied ones (integers, running statistics) included.
        """
        return _state(self.store, self.stretches(step, scale=scale), out_dtype)

    def stretches(
        self,
        step: float,
        *,
        scale: float = 1.0,
        progress: Callable[[int, int], None] | None = None,
    ) -> Iterator[tuple[str, Tensor]]:
        """The same, never more than a block in memory, as ``write_checkpoint`` wants it."""
        weights = self.weights(step, scale=scale)
        yield from _whole(self.store, self.steps, weights, progress)

    def null_report(self) -> WalkNull:
        """The explained share and R² that a random walk seen at these steps would show."""
        return line_through_walk(self.steps, base_step=self.store.base_step)


def fit_rank1(
    store: DeltaStore | Mapping[int, Any] | str | Path | Sequence[Any],
    base: Any = None,
    *,
    rank: int = 1,
    steps: Sequence[int] | slice | None = None,
    fit: Fit = "linear",
    window: int | None = None,
    refit_every: int | None = None,
    center: bool = False,
    clock: Callable[[float], float] = float,
    dtype: torch.dtype = torch.float64,
    max_bytes: int = 256 << 20,
    progress: Callable[[int, int], None] | None = None,
) -> TrajectoryModel:
    """Fits the leading directions of every tensor's path and their course over time.

    Args:
        store: checkpoints, or what ``DeltaStore`` takes.
        base: θ_0, as for ``DeltaStore``.
        rank: r, directions per tensor.
        steps: which of the observed; a slice is of step numbers, both ends included.
        fit: of each coefficient over time: ``linear``, ``polynomial`` (degree 2), ``sinusoid``.
        window: the fit sees only so many last checkpoints; the directions come from all.
        refit_every: as ``Course.refit_every``.
        center: as ``Course.center``.
        clock: step → time that is fitted over, as the sum of learning rates up to the step.
        dtype: of the coefficients that are reported; sums are float64 throughout.
        max_bytes: as for ``DeltaStore``.
        progress: as for ``DeltaStore.gram``.

    Raises:
        ValueError: with too few checkpoints, steps that are not there, or options out of range.

    Example:
        >>> import torch
        >>> path = {t: {"w": torch.tensor([1.0 + t, 2.0 * t])} for t in range(5)}
        >>> model = fit_rank1(path)
        >>> model.predict(100)["w"], round(model.explained_variance["w"], 6)
        (tensor([101., 200.]), 1.0)
    """
    course = Course(rank, fit, window, refit_every, center)
    if not isinstance(store, DeltaStore):
        store = DeltaStore(store, base, max_bytes=max_bytes)
    elif base is not None:
        raise ValueError("fit_rank1: a DeltaStore has its base already; give base= to the store")
    at = _positions(store.steps, steps)
    least = {"linear": 2, "polynomial": 3, "sinusoid": 4}[fit]
    if len(at) < least:
        raise ValueError(
            f"fit_rank1: fit={fit!r} needs {least} checkpoints after the base, got {len(at)}"
        )
    observed = tuple(store.steps[i] for i in at)
    times = torch.tensor([clock(t) for t in observed], dtype=torch.float64)
    if not bool((times.diff() > 0).all()):
        raise ValueError("fit_rank1: clock must grow from checkpoint to checkpoint")
    grams = {name: G[at][:, at] for name, G in store.gram(progress=progress).items()}
    coefficients, explained, r2 = dict[str, Tensor](), dict[str, float](), dict[str, float]()
    for name, G in grams.items():
        U, S = directions(G, rank, center=center)
        total = G.trace() - (G.mean() * len(G) if center else 0)
        coefficients[name] = (U * S).to(dtype)
        explained[name] = float(S.square().sum() / total) if S[0] > 0 else 0.0
        r2[name] = r_squared(times, (U * S)[:, 0], fit) if S[0] > 0 else float("nan")
    return TrajectoryModel(store, observed, course, coefficients, explained, r2, grams, clock)


def reconstruct(
    store: DeltaStore | Mapping[int, Any] | str | Path | Sequence[Any],
    base: Any = None,
    step: int | None = None,
    rank: int = 1,
    *,
    out_dtype: torch.dtype | None = None,
) -> dict[str, Tensor]:
    """An observed checkpoint with only its change along the leading directions kept.

    Args:
        store: checkpoints, or what ``DeltaStore`` takes; the directions come from all.
        base: θ_0, as for ``DeltaStore``.
        step: which checkpoint; default: the last.
        rank: r, directions per tensor.
        out_dtype: as for ``TrajectoryModel.predict``.

    Raises:
        ValueError: if the step was not observed, or rank < 1.
    """
    if not isinstance(store, DeltaStore):
        store = DeltaStore(store, base)
    if rank < 1 or not store.steps:
        raise ValueError("reconstruct: need rank >= 1 and a checkpoint after the base")
    (at,) = _positions(store.steps, [store.steps[-1] if step is None else step])
    weights = {}
    for name, G in store.gram().items():
        U, S = directions(G, rank)
        # V Vᵀ m_t, as v_k = Mᵀ u_k / σ_k: the mixture U_r U_rᵀ e_t of rows.
        weights[name] = (U * (S > 0)) @ U[at]
    return _state(store, _whole(store, store.steps, weights, None), out_dtype)


def _whole(
    store: DeltaStore,
    steps: Sequence[int],
    weights: Mapping[str, Tensor],
    progress: Callable[[int, int], None] | None,
) -> Iterator[tuple[str, Tensor]]:
    """A mixture of some rows, then what is copied."""
    at = _positions(store.steps, steps)
    full = {}
    for name, w in weights.items():
        full[name] = torch.zeros(len(store.steps), dtype=torch.float64)
        full[name][at] = w
    yield from store.mixture(full, progress=progress)
    yield from store.copies()


def _state(
    store: DeltaStore, stretches: Iterator[tuple[str, Tensor]], out_dtype: torch.dtype | None
) -> dict[str, Tensor]:
    """A state dict of stretches, tied names included."""
    kept = {**store.tensors, **store.copied}
    flat: dict[str, Tensor] = {}
    for name, info in kept.items():
        dtype = out_dtype if out_dtype and info.dtype.is_floating_point else info.dtype
        flat[name] = torch.empty(info.numel, dtype=dtype)
    done = dict.fromkeys(kept, 0)
    for name, stretch in stretches:
        flat[name][done[name] : done[name] + len(stretch)] = stretch
        done[name] += len(stretch)
    state = {name: flat[name].view(kept[name].shape) for name in kept}
    return state | {alias: state[first] for alias, first in store.aliases.items()}


def _positions(known: Sequence[int], steps: Sequence[int] | slice | None) -> list[int]:
    """Where the wanted steps stand."""
    if steps is None:
        return list(range(len(known)))
    if isinstance(steps, slice):
        low = known[0] if steps.start is None else steps.start
        high = known[-1] if steps.stop is None else steps.stop
        return [i for i, step in enumerate(known) if low <= step <= high]
    places = {step: i for i, step in enumerate(known)}
    missing = [step for step in steps if step not in places]
    if missing:
        raise ValueError(f"no checkpoint of step {missing[0]}; there are {list(known)[:8]} …")
    return sorted({places[step] for step in steps})
