"""Pools the losses of an evaluation into one figure with its standard error."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from thalweg.recorder.store import Store

__all__ = ["Evaluation", "Validation"]

MOST_KEPT = 1024  # batch losses held before they are summed up


class Evaluation:
    """Losses computed between two training steps without gradients.

    The mean is weighted by the number of samples in each batch; the standard error is that of the
    weighted mean over batches. Little is read from the device before ``result``.

    Attributes:
        batches: how many losses there are.
    """

    def __init__(self) -> None:
        self.batches = 0
        self._kept: list[tuple[Tensor, int]] = []
        self._sums = [0.0, 0.0, 0.0]  # Σn, Σn·loss, Σn·loss²

    def add(self, loss: Tensor, samples: int) -> None:
        """Adds the loss of one batch: a mean over it, or one value per sample."""
        self.batches += 1
        self._kept.append((loss if loss.ndim == 0 else loss.mean(), samples))
        if len(self._kept) >= MOST_KEPT:
            self._sum_up()

    def clear(self) -> None:
        """Forgets everything."""
        self.batches = 0
        self._kept.clear()
        self._sums = [0.0, 0.0, 0.0]

    def result(self) -> tuple[float, float]:
        """Mean and its standard error (nan for fewer than two batches); then starts anew."""
        self._sum_up()
        batches, (n, total, squares) = self.batches, self._sums
        self.clear()
        if n == 0:
            return math.nan, math.nan
        mean = total / n
        if batches < 2:
            return mean, math.nan
        spread = max(0.0, squares / n - mean * mean)
        return mean, math.sqrt(spread / (batches - 1))

    def _sum_up(self) -> None:
        if not self._kept:
            return
        kept, self._kept = self._kept, []
        losses = torch.stack([loss.detach().to(kept[0][0].device) for loss, _ in kept])
        for value, n in zip(losses.tolist(), (n for _, n in kept), strict=True):
            self._sums[0] += n
            self._sums[1] += n * value
            self._sums[2] += n * value * value


class Validation:
    """The figure ``val_loss``: what is computed for evaluation between two training steps.

    Args:
        store: takes the rows.
        models: the models of the training, as they become known.

    Attributes:
        waiting: whether there are losses that no row holds yet.
    """

    def __init__(self, store: Store, models: Sequence[nn.Module]) -> None:
        self.waiting = False
        self._store, self._models = store, models
        self._sure = Evaluation()
        self._doubtful = Evaluation()  # by a model in eval mode: unless a backward follows

    def add(self, loss: Tensor, args: tuple[Any, ...]) -> None:
        """A loss function was called with ``args``: takes its result if that was evaluation."""
        evaluation = self._sure
        if torch.is_grad_enabled():
            for model in self._models:
                if model.training:
                    return
            if not self._models:
                return
            evaluation = self._doubtful
        target = args[1] if len(args) > 1 else None
        samples = target.shape[0] if isinstance(target, Tensor) and target.ndim else 1
        evaluation.add(loss.detach(), samples)
        self.waiting = True

    def backward(self) -> None:
        """A backward followed: the model trains in eval mode, its losses are no evaluation."""
        if self._doubtful.batches:
            self._doubtful.clear()
            self.waiting = self._sure.batches > 0

    def write(self) -> None:
        """Writes the row of the evaluation that has ended."""
        evaluation = self._sure if self._sure.batches else self._doubtful
        mean, error = evaluation.result()
        self._doubtful.clear()
        self.waiting = False
        code = self._store.series("val_loss", "")
        self._store.rows(self._store.step, [code], [mean], None, [error])
