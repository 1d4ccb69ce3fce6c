"""Memorisation of wrong labels: what a network predicts for examples whose label is wrong.

Early in training it is mostly their true class, later the label that was given. Needs labels whose
truth is known: corrupted on purpose, or a part of the data that was checked by hand.

Source: S. Liu et al. 2020, arXiv 2007.00151, figure 1. Axes: `N` examples, `C` classes, `E` epochs.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Memorization", "MemorizationTracker"]


@dataclass(frozen=True)
class Memorization:
    """Shares of one class of examples each, after every epoch.

    Attributes:
        correct_on_wrong: (E,) wrongly labelled examples predicted as their true class.
        memorised: (E,) wrongly labelled examples predicted as labelled.
        other: (E,) wrongly labelled examples predicted as a third class.
        correct_on_clean: (E,) rightly labelled examples predicted as labelled; nan if there are
            none.
    """

    correct_on_wrong: Tensor
    memorised: Tensor
    other: Tensor
    correct_on_clean: Tensor

    @property
    def peak(self) -> int:
        """Epoch, counted from 0, at which most wrongly labelled examples are predicted right."""
        return int(self.correct_on_wrong.argmax())


class MemorizationTracker:
    """Follows early learning and memorisation over the epochs of a training.

    Give the predictions of all examples once an epoch, or those of each batch as it is trained on,
    in which case an epoch's figures are of predictions made at different steps of it. In a
    recording the figures become series ``user/…``:

        for epoch in range(num_epochs):
            for x, y, i in loader:
                ...
                tracker.after_step(logits, i)
            recording.log(tracker.after_epoch())

    Args:
        true: (N,) true classes.
        noisy: (N,) labels that are trained on.

    Raises:
        ValueError: if the two differ in shape, or no label is wrong.

    Source:
        Liu et al. 2020, arXiv 2007.00151; entry early-learning-regularization.

    Example:
        >>> tracker = MemorizationTracker(torch.tensor([0, 1, 2, 3]), torch.tensor([0, 1, 0, 0]))
        >>> figures = tracker.after_epoch(torch.tensor([0, 1, 2, 0]))
        >>> figures["wrong_label_correct"].item(), figures["wrong_label_memorised"].item()
        (0.5, 0.5)
    """

    def __init__(self, true: Tensor, noisy: Tensor) -> None:
        if true.shape != noisy.shape or true.ndim != 1:
            raise ValueError(
                "true and noisy must be vectors of one length, got "
                f"{tuple(true.shape)} and {tuple(noisy.shape)}"
            )
        self._true, self._noisy = true.detach().clone(), noisy.detach().clone().to(true.device)
        self._wrong = self._true != self._noisy
        if not bool(self._wrong.any()):
            raise ValueError("no label is wrong: there is nothing to follow")
        self._seen = torch.full_like(self._true, -1)
        self._rows: list[Tensor] = []

    @torch.no_grad()
    def after_step(self, predictions: Tensor, index: Tensor) -> None:
        """Take the predictions of a batch.

        Args:
            predictions: (B, C) logits or (B,) classes.
            index: (B,) which examples they are of.

        Raises:
            ValueError: if they differ in length.
        """
        classes = self._classes(predictions)
        if classes.shape != index.shape:
            raise ValueError(
                f"expected one prediction for each of {index.numel()} indices, got "
                f"{classes.numel()}"
            )
        self._seen[index.to(self._seen.device)] = classes

    @torch.no_grad()
    def after_epoch(self, predictions: Tensor | None = None) -> dict[str, Tensor]:
        """Figures of the epoch that ends.

        Args:
            predictions: (N, C) logits or (N,) classes of all examples; default those that
                ``after_step`` took since the epoch before, shares then being of these examples.

        Returns:
            0-d ``wrong_label_correct``, ``wrong_label_memorised``, ``wrong_label_other`` and
            ``clean_label_correct``.

        Raises:
            ValueError: if there is none of a wrongly labelled example, or not one for each of N.
        """
        if predictions is not None:
            self.after_step(predictions, torch.arange(len(self._true)))
        seen = self._seen >= 0
        wrong, clean = self._wrong & seen, ~self._wrong & seen
        if not bool(wrong.any()):
            raise ValueError(
                "no wrongly labelled example has a prediction in this epoch: give those of all "
                "examples, or call after_step with every batch"
            )
        right, fitted = self._seen == self._true, self._seen == self._noisy
        row = torch.stack(
            [
                right[wrong].double().mean(),
                fitted[wrong].double().mean(),
                (~right & ~fitted)[wrong].double().mean(),
                right[clean].double().mean(),
            ]
        )
        self._rows.append(row)
        self._seen.fill_(-1)
        names = ("wrong_label_correct", "wrong_label_memorised", "wrong_label_other")
        return dict(zip((*names, "clean_label_correct"), row, strict=True))

    def history(self) -> Memorization:
        """All epochs so far, on the CPU.

        Raises:
            ValueError: before the first ``after_epoch``.
        """
        if not self._rows:
            raise ValueError("call after_epoch first: no epoch has been seen")
        return Memorization(*torch.stack(self._rows, 1).cpu())

    def _classes(self, predictions: Tensor) -> Tensor:
        found = predictions.argmax(1) if predictions.ndim == 2 else predictions
        return found.to(self._seen)
