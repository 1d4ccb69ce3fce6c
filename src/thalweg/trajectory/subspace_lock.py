"""When does an update enter the subspace that it ends in? Right singular directions over time.

Source: Shen et al. 2026, arXiv 2606.07082. Axes: `m` rows, `n` columns, `K` directions.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from thalweg.trajectory.checkpoint import Checkpoint, open_checkpoint
from thalweg.trajectory.matrix_spectrum import matrix_spectrum

__all__ = ["SubspaceLock"]


class SubspaceLock:
    """Overlap of the leading directions of a change with those at the end.

        Sim_K(t) = 1/K ‖V_K(t)ᵀ V_K(T)‖_F²,   V_K the first K right singular directions of W_t − W_0

    Two random frames have K/n.

    Args:
        every: steps between checkpoints that are taken; others are passed over.
        names: of matrices to follow; default: all with two or four dimensions.
        K: directions kept of each.

    Attributes:
        steps: taken, without the first, which is the base.
        bases: name → one (n, K) float64 frame per step; fewer columns than K in small matrices.

    Raises:
        ValueError: if ``every`` or K is below 1.

    Cost: n·K floats per matrix and checkpoint, and a copy of the base.

    Source: arXiv 2606.07082; entry opd-geometry.

    Example:
        >>> import torch
        >>> lock = SubspaceLock()
        >>> for step in range(4):
        ...     lock.append(step, {"w": step * torch.eye(3)[:1].expand(2, 3)})
        >>> lock.similarity(K=1)
        {'w': tensor([1., 1., 1.], dtype=torch.float64)}
    """

    def __init__(self, every: int = 1, *, names: list[str] | None = None, K: int = 16) -> None:
        if every < 1 or K < 1:
            raise ValueError(f"SubspaceLock: expected every >= 1 and K >= 1, got {every}, {K}")
        self._every, self._names, self._K = every, names, K
        self._base: dict[str, Tensor] | None = None
        self._first = 0
        self.steps: list[int] = []
        self.bases: dict[str, list[Tensor]] = {}

    def append(self, step: int, state_dict: Mapping[str, object] | Checkpoint | str) -> None:
        """Take the weights of a step; the first are what changes are counted from.

        Args:
            step: after those before.
            state_dict: weights, or what ``open_checkpoint`` takes.

        Raises:
            ValueError: if the step is not after the last, or the matrices are not those of before.
        """
        if self._base is not None and step <= (self.steps or [self._first])[-1]:
            raise ValueError(
                f"SubspaceLock: step {step} is not after {(self.steps or [self._first])[-1]}"
            )
        if self._base is not None and (step - self._first) % self._every:
            return
        weights = self._matrices(state_dict)
        if self._base is None:
            self._base, self._first = {n: W.clone() for n, W in weights.items()}, step
            self.bases = {name: [] for name in weights}
            return
        for name, before in self._base.items():
            W = weights.get(name)
            if W is None or W.shape != before.shape or not bool(W.isfinite().all()):
                what = "missing" if W is None else f"{tuple(W.shape)}, or not finite"
                raise ValueError(
                    f"SubspaceLock: {name!r} at step {step}: expected a finite "
                    f"{tuple(before.shape)}, it is {what}"
                )
        for name, before in self._base.items():
            delta = weights[name].double() - before.double()
            self.bases[name].append(matrix_spectrum(delta, self._K).right)
        self.steps.append(step)

    def similarity(self, K: int | None = None) -> dict[str, Tensor]:
        """Overlap of each step's leading directions with the last's.

        Args:
            K: directions; default: as many as are kept.

        Returns:
            name → (steps,) float64 in [0, 1]; the last is 1.

        Raises:
            ValueError: if there is no step, or K is not between 1 and the directions kept.
        """
        K = self._K if K is None else K
        if not self.steps or not 1 <= K <= self._K:
            raise ValueError(
                f"SubspaceLock: expected steps after the base and 1 <= K <= {self._K}; got "
                f"{len(self.steps)} steps and K={K}"
            )
        found = {}
        for name, frames in self.bases.items():
            end = frames[-1][:, :K]
            overlaps = [(V[:, :K].T @ end).square().sum() / end.shape[1] for V in frames]
            found[name] = torch.stack(overlaps)
        return found

    def _matrices(self, source: Mapping[str, object] | Checkpoint | str) -> dict[str, Tensor]:
        checkpoint = open_checkpoint(source)
        names = self._names
        if names is None:
            names = [
                n
                for n, info in checkpoint.tensors.items()
                if len(info.shape) in (2, 4) and info.dtype.is_floating_point
            ]
        return {
            n: checkpoint.read(n, 0, checkpoint.tensors[n].numel)
            .reshape(checkpoint.tensors[n].shape)
            .flatten(1)
            for n in names
            if n in checkpoint.tensors
        }
