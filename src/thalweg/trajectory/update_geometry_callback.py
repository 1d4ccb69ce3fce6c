"""The geometry of a change while it happens: every so many steps, compared with the start.

Source: H. Zhu, Z. Zhang, H. Huang et al. 2025, arXiv 2511.08567.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from thalweg.trajectory.checkpoint_pairs import Source
from thalweg.trajectory.compare_checkpoints import UpdateGeometryReport, compare_checkpoints

__all__ = ["UpdateGeometryCallback"]


class UpdateGeometryCallback:
    """Compares a model with its start every so many steps.

    Args:
        every: steps between comparisons.
        model: that is trained.
        base: what to compare with: a state dict or a path; default: a copy of the model's weights
            as they are now.
        settings: of ``compare_checkpoints``.

    Attributes:
        reports: step → report, ascending.

    Raises:
        ValueError: if ``every`` is below 1.

    Source: arXiv 2511.08567; entry rlvr-off-principals.

    Example:
        >>> import torch
        >>> model = torch.nn.Linear(4, 4)
        >>> geometry = UpdateGeometryCallback(2, model=model, k=2)
        >>> for _ in range(4):
        ...     _ = model.weight.data.mul_(2.0)
        ...     geometry.after_step()
        >>> [(step, round(r.tensors[0].drift, 4)) for step, r in geometry.reports.items()]
        [(2, 3.0), (4, 15.0)]
    """

    def __init__(
        self, every: int, *, model: nn.Module, base: Source | None = None, **settings: Any
    ) -> None:
        if every < 1:
            raise ValueError(f"UpdateGeometryCallback: expected every >= 1, got {every}")
        start = {n: t.detach().clone() for n, t in model.state_dict().items()}
        self._base: Source = start if base is None else base
        self._model, self._every, self._settings = model, every, settings
        self._step = 0
        self.reports: dict[int, UpdateGeometryReport] = {}

    def after_step(self) -> None:
        """Call after every optimizer step.

        Raises:
            ThalwegError: if a weight is not finite.
        """
        self._step += 1
        if self._step % self._every == 0:
            now = self._model.state_dict()
            self.reports[self._step] = compare_checkpoints(self._base, now, **self._settings)
