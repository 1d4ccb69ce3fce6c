"""When a training memorised, when it generalised, and how long it took from one to the other.

Source: grokking as delayed generalisation is A. Power et al. 2022, arXiv 2201.02177; the stages as
in Walker et al. 2025, arXiv 2506.12284; entry grokalign.
"""

from __future__ import annotations

import math

__all__ = ["GrokkingMonitor"]


class GrokkingMonitor:
    """First steps at which the training and the test accuracy reached their marks.

    In a recording its figure becomes a series ``user/generalisation_gap``:

        recording.log(monitor.update(step, train=train_accuracy, test=test_accuracy))

    Args:
        memorised: training accuracy that counts as memorised, in (0, 1].
        generalised: test accuracy that counts as generalised, in (0, 1].

    Attributes:
        memorised_at: first step with the training accuracy; None before.
        generalised_at: first step with the test accuracy; None before.

    Raises:
        ValueError: if a mark is not in (0, 1].

    Source: Power et al. 2022, arXiv 2201.02177; arXiv 2506.12284.

    Example:
        >>> monitor = GrokkingMonitor()
        >>> for step, train, test in [(0, 0.5, 0.5), (20, 1.0, 0.6), (400, 1.0, 0.96)]:
        ...     figures = monitor.update(step, train=train, test=test)
        >>> monitor.memorised_at, monitor.generalised_at, monitor.delay
        (20, 400, 380)
    """

    def __init__(self, *, memorised: float = 0.99, generalised: float = 0.95) -> None:
        for name, mark in (("memorised", memorised), ("generalised", generalised)):
            if not 0 < mark <= 1:
                raise ValueError(f"{name} must be an accuracy in (0, 1], got {mark}")
        self._memorised, self._generalised = memorised, generalised
        self.memorised_at: int | None = None
        self.generalised_at: int | None = None
        self._last = -math.inf

    @property
    def delay(self) -> int | None:
        """Steps from memorising to generalising; negative if it came first, None before both."""
        if self.memorised_at is None or self.generalised_at is None:
            return None
        return self.generalised_at - self.memorised_at

    def update(self, step: int, *, train: float, test: float) -> dict[str, float]:
        """Note the accuracies at a step.

        Args:
            step: later than the one before.
            train: training accuracy, in [0, 1].
            test: test accuracy, in [0, 1].

        Returns:
            ``generalisation_gap``, train − test.

        Raises:
            ValueError: if the step is not later, or an accuracy not in [0, 1].
        """
        if step <= self._last:
            raise ValueError(f"steps must increase: got {step} after {self._last}")
        for name, accuracy in (("train", train), ("test", test)):
            if not 0 <= accuracy <= 1:
                raise ValueError(
                    f"{name} must be an accuracy in [0, 1], got {accuracy}; divide per cent by 100"
                )
        self._last = step
        if self.memorised_at is None and train >= self._memorised:
            self.memorised_at = step
        if self.generalised_at is None and test >= self._generalised:
            self.generalised_at = step
        return {"generalisation_gap": float(train - test)}
